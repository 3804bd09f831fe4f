"""Assign rows to train, val and test, and train rows to folds.

In: the rows of a manifest with their groups and strata. Out: the same rows with `split` and `fold`.

Read in this order:

seeds   deterministic seeds and ranks, derived from image ids
folds   folds for cross-validation
assign  splits: groups stay together, strata keep their shares
"""
