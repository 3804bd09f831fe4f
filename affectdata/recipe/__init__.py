"""Recipes: read, validate and resolve.

In: a YAML file, and the manifests that it applies to. Out: a `Recipe` with every default filled in.

Read in this order:

recipe      the models: every key of a recipe, documented
bounds      the bounds of train-check, the block `check:`
target      what train-check and studies predict in place of the recipe's target
transforms  the augmentations; the only module that imports albumentations
lint        warnings about valid but rarely intended settings
resolve     resolve a recipe against its manifests

"""
