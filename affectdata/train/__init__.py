"""train-check in the order in which it goes, and the networks beside it; nothing else imports torch.

rows      bank (every picture once), arms (what could be trained on), asked (what is only asked about)
features  bodies, weights, backbones → features, by pictures as squares
splits    prepare: deals folds, plans every arm of each anew
fit       evaluate, with a learner: heads on frozen features, or tuned networks
scores    scores, compare (intervals), leak, shift → document
rules     gate (judged: three outcomes)
verdict   verdict, advice (words); check runs it all

networks  networks, task, losses, feed, loop, checkpoints → finetune; study and trials: grids of settings
kept      final, kept, plain_heads → predict, saliency; data: a split as a torch Dataset
"""
