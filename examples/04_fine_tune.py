"""Fine-tune a network on a release, keep what it learnt as plain tensors, and use it again.

python examples/04_fine_tune.py releases/valence_bins-…
"""

import sys

import numpy as np
import torch

import affectdata
from affectdata.train.finetune import Fitted, finetune
from affectdata.train.images import fit_square
from affectdata.train.networks import build_network
from affectdata.train.task import Examples, Settings

SIZE_PX = 64
release = affectdata.open_release(sys.argv[1])


def load(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of a split as squares, and their valence."""
    rows = list(release.dataset(split))
    squares = [fit_square(row["image"].permute(1, 2, 0).numpy(), SIZE_PX) for row in rows]
    return np.stack(squares), np.array([row["valence"] for row in rows])


images, valence = load("train")
# `small_cnn` runs anywhere; mobilenet_v3_large with weights DEFAULT is where to begin in earnest.
network = build_network("small_cnn", 1, "none", size_px=SIZE_PX)
settings = Settings(steps=60, head_steps=0, lr_body=1e-3)
fitted = finetune(network, images, Examples(np.arange(len(images)), valence), settings, progress=print)
torch.save(fitted.network.module.state_dict(), "network.pt")

again = build_network("small_cnn", 1, "none", size_px=SIZE_PX)
again.module.load_state_dict(torch.load("network.pt", weights_only=True))
images, valence = load("test")
said = Fitted(again, settings, []).predict(images)[:, 0]
print(f"test: mean absolute error {np.abs(said - valence).mean():.1f}, true sd {valence.std():.1f}")
