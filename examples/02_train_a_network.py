"""Train a small network on a release for a few steps: a release is a torch Dataset per split.

python examples/02_train_a_network.py releases/valence_bins-…
"""

import sys

import torch
from torch import nn
from torch.nn.functional import interpolate

import affectdata

release = affectdata.open_release(sys.argv[1])


def shrink(image: torch.Tensor) -> torch.Tensor:
    """Resize a uint8 image to a fixed size, so that images can be stacked into a batch."""
    return interpolate(image[None].float() / 255, (64, 64), mode="area")[0]


torch.manual_seed(0)
train = release.dataset("train", transform=shrink)
loader = torch.utils.data.DataLoader(
    train, batch_size=32, sampler=release.sampler("train"), collate_fn=train.collate
)
convolution = nn.Sequential(nn.Conv2d(3, 16, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
network = nn.Sequential(convolution, nn.Linear(256, 1))
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)

for epoch in range(3):
    errors = []
    for batch in loader:
        loss = nn.functional.mse_loss(50 + 50 * network(batch["image"]), batch["valence"][:, None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    print(f"epoch {epoch}: train MSE {sum(errors) / len(errors):.0f}")
