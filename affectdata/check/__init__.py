"""train-check: does the release help a model, measured on untouched originals?

In: a release, and a frozen backbone or a network. Out: train-check.json with scores, rules and a verdict.

Read in this order:

image_pool, arms, probes    every image once; the training sets to compare; images for prediction shift only
prepare                     folds, and a plan of every training set per fold
evaluate, final, tuned      models fitted and evaluated per split; the model to keep; fine-tuned networks
metrics, scores             measures; scores with intervals
leak, shift                 hints that copies leak or shift predictions
document                    all results in one document
words, gate, verdict        figures as text; rules on the document; what they mean, in sentences
check                       all of it
study, trials               grids of settings for networks
"""
