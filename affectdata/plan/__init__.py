"""Which images a release holds and how often: decisions on tables only, no pixel is read.

In: the rows of manifests, and a recipe. Out: a `Plan`, one row per image to release.

Read in this order:

lexicon    valence and arousal of emotion words, from a table of the user's
labelling  emotions to classes
cells      bin and stratum of every row
solver     one bin levelled over its strata, in whole numbers
fill       images of other manifests for thin bins
weights    sampling weights, the alternative to copies
plan       the plan and what it did to each cell
planner    all of it, from manifests to a plan
"""
