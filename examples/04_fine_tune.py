"""Fine-tune a network on a release, save its weights as plain tensors, and load them again.

python examples/04_fine_tune.py releases/valence_bins-…
"""

import sys

import numpy as np
import torch

import affectdata
from affectdata.train.finetune import FittedNetwork, finetune
from affectdata.train.images import crop_square
from affectdata.train.networks import build_network
from affectdata.train.task import Examples, Settings

SIZE_PX = 64
release = affectdata.open_release(sys.argv[1])


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of a split as squares, and their valence."""
    rows = list(release.dataset(split))
    squares = [crop_square(row["image"].permute(1, 2, 0).numpy(), SIZE_PX) for row in rows]
    return np.stack(squares), np.array([float(row["valence"]) for row in rows])


images, valence = load("train")
# `small_cnn` is fast on any machine; for good results start with efficientnet_lite0 and weights DEFAULT.
network = build_network("small_cnn", 1, "none", size_px=SIZE_PX)
settings = Settings(steps=60, head_steps=0, lr_trunk=1e-3)
fitted = finetune(network, images, Examples(np.arange(len(images)), valence), settings, progress=print)
torch.save(fitted.network.module.state_dict(), "network.pt")

loaded = build_network("small_cnn", 1, "none", size_px=SIZE_PX)
loaded.module.load_state_dict(torch.load("network.pt", weights_only=True))
images, valence = load("test")
predictions = FittedNetwork(loaded, settings, []).predict(images)[:, 0]
print(f"test: MAE {np.abs(predictions - valence).mean():.1f}, SD of the targets {valence.std():.1f}")
