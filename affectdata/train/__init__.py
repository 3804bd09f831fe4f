"""Train networks and heads, and save them. Nothing here depends on `check`.

In: images (as squares or as features) and their targets. Out: networks and heads, predictions, model files.
Only this folder imports torch and scikit-learn, apart from `release.dataset`.

Read in this order:

images     square images of one size, in one file
weights    network weights: download, read, load strictly
packaged   network weights that come in a Python package
trunks     network trunks (feature extractors) by name
backbones  a frozen trunk that turns images into features
features   features of many images, computed once
rows       what heads are fitted on
heads      regressors and classifiers on features
subtype_aware, outputs   a regressor that estimates the subtype too; calibrated and stacked ones
networks   a trunk with a new output layer
task       examples and settings of a training run
losses     losses by name
feed       batches, moved to the device
loop       the training loop and its checkpoints
finetune   the entry point: train a network on examples
plain_heads   all of these as arrays
kept, model_file, predict   models to keep, their file, and what they predict
saliency   maps of the image regions that a prediction depends on
"""
