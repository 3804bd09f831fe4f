"""Networks and heads, trained and kept. Nothing here knows what a check is.

In: images as squares or features, and their targets. Out: networks and heads, predictions, model files.
Only this folder imports torch and scikit-learn, apart from `release.dataset`.

Read in this order:

images   images as squares of one size, in one file
weights    weights of networks: fetched, read, matched strictly
trunks     feature extractors by name
backbones  a frozen trunk that turns images into features
features   features of many images, computed once
rows       what heads are fitted on
heads      regressors and classifiers on features
networks   a trunk with outputs
task       examples and settings of one training run
losses     losses by name
feed       batches, on the device
loop       the training loop and its checkpoints
finetune   all of it: a network trained on examples
kept       a model in one file, and its predictions
saliency   maps of what a prediction depends on
"""
