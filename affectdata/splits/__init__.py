"""Which rows go into train, val and test, and into the folds of train.

In: the rows of a manifest with their groups and strata. Out: the same rows with `split` and `fold`.

Read in this order:

seeds   deterministic orders and seeds, derived from image ids
folds   folds for cross-validation
assign  splits: groups stay together, strata keep their shares
"""
