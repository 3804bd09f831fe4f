"""What a release should be: a recipe, checked and resolved.

In: a YAML file, and the manifests that it is for. Out: a `Recipe` with every default written out.

Read in this order:

recipe      the models: every key of a recipe, documented
transforms  the augmentations, and the one door to albumentations
lint        settings that are allowed but rarely intended
resolve     the recipe's names against its manifests
"""
