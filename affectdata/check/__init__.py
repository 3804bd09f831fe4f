"""train-check: does the release help a model, measured on untouched originals?

In: a release, and a frozen backbone or a network. Out: train-check.json with scores, rules and a verdict.

Read in this order:

blocks                      the models of every block of train-check.json
image_pool, arms, probes    every image once; the training sets to compare; images to measure prediction shift
prepare                     folds, and the plan of every training set per fold
subtype_aware, networks, outputs   arms of another head, other features or another output
evaluate, tuned             models fitted and evaluated per split; fine-tuned networks
metrics, scores             measures; scores with intervals
influence, paired           intervals of scores and of differences between arms on the same images
label_model, label_rules    figures on whether the ratings belong to the images
leak, shift                 tests for leaks; how copies shift predictions
advice, transfer            what would help, with intervals for all options; heads on other sources
document                    all results as blocks
rule_result, label_gate     what a rule returns; the rules labels.*
words, gate, verdict        figures as text; rules over the document; findings and advice as sentences
final, model_card           the model to keep, saliency maps, and its card
check                       the whole check
study, trials               grids of settings for networks
"""
