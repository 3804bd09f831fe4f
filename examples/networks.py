"""Networks of five projects on affective images, as plain torch classes.

    affectdata train-check --backbone examples/networks.py:LeNet5 --weights none

Each is built without arguments and has no output layer: `train-check` adds one for the target. `size_px` is
the input size in pixels. The projects, and their other networks, which are in torchvision:

    valence of GAPED       five CNNs: three convolutions with and without dropout, LeNet-5, separable
    six classes of CAP-D   Inception-V3, first only its last layer, then the whole network
    eight emotions of FI   ResNets at 32 and 128 pixels
    balanced faces         the separable CNN on UTKFace
    seven classes of art   from LeNet-5 to AlexNet on WikiArt
"""

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small


def lenet(activation: type[nn.Module]) -> nn.Sequential:
    """Two convolutions and two dense layers: LeCun et al. (1998), figure 2, for RGB images."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), activation(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), activation(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), activation(), nn.Linear(120, 84), activation()),
    )


class LeNet5(nn.Module):
    """LeNet-5 with tanh, as published. For: GAPED; the smallest network for WikiArt."""

    size_px = 32

    def __init__(self) -> None:
        super().__init__()
        self.layers = lenet(nn.Tanh)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LeNet5Relu(nn.Module):
    """LeNet-5 with ReLU. For: GAPED, WikiArt."""

    size_px = 32

    def __init__(self) -> None:
        super().__init__()
        self.layers = lenet(nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Separable(nn.Module):
    """A depthwise convolution, then a pointwise one: Chollet (2017), arXiv:1610.02357."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(n_in, n_in, 3, padding=1, groups=n_in, bias=False)
        self.pointwise = nn.Conv2d(n_in, n_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.pointwise(self.depthwise(x))))


class SeparableCnn(nn.Module):
    """Four separable convolutions, small enough for a phone. For: expressions of balanced faces (UTKFace)."""

    size_px = 48

    def __init__(self) -> None:
        super().__init__()
        blocks = [(16, 32), (32, 64), (64, 96), (96, 128)]
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(
            *(nn.Sequential(Separable(*widths), nn.MaxPool2d(2)) for widths in blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


class ThreeConv(nn.Module):
    """Three convolutions and a dense layer. For: GAPED, with random initial weights."""

    size_px = 64
    dropout = 0.0

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 32), (32, 64), (64, 64)]
        self.convolutions = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(*pair, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for pair in widths)
        )
        self.dense = nn.Sequential(
            nn.Dropout(self.dropout),
            nn.Flatten(),
            nn.Linear(64 * 8 * 8, 128),
            nn.ReLU(),
            nn.Dropout(self.dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.convolutions(x))


class ThreeConvDropout(ThreeConv):
    """The same with dropout before and after the dense layer. For: GAPED, where ThreeConv overfits."""

    dropout = 0.5


class EmbeddingMlp(nn.Module):
    """A frozen embedding and two dense layers, followed by the output layer. For: GAPED, CAP-D.

    The embedding is MobileNetV3-small. It is random unless the weights are a file with the state_dict of this
    class, in which torchvision's weights are under `embedding.`.
    """

    size_px = 224

    def __init__(self) -> None:
        super().__init__()
        self.embedding = mobilenet_v3_small().features.requires_grad_(False)
        self.dense = nn.Sequential(nn.Linear(576, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())

    def train(self, mode: bool = True) -> "EmbeddingMlp":
        super().train(mode)
        self.embedding.eval()  # frozen, including the running averages of its batch norms
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.embedding(x).mean((2, 3)))
