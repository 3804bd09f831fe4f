"""Decide which images a release contains and how often; works on tables only, reads no pixels.

In: the rows of manifests, and a recipe. Out: a `Plan`, one row per image to release.

Read in this order:

user_table a table that the recipe names, by its hash
groups     images that must stay together, by such a table
lexicon    valence and arousal of emotion words, from the user's table
labelling  map emotions to classes
rows       the rows that a recipe applies to
cells      bin and stratum of every row
solver     distribute the rows of a bin over its strata
fill       fill rare bins with images of other manifests
weights    sampling weights, the alternative to copies
plan       the plan, and counts per bin and cell
planner    the whole process, from manifests to a plan

"""
