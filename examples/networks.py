"""Networks that five projects on affective images trained, as plain torch classes.

    affectdata train-check --backbone examples/networks.py:LeNet5 --weights none

Each is built without arguments and ends in front of its last layer: that one is put on for the outputs asked
for. `size_px` is the square it takes. The projects and their other networks, which torchvision has:

    valence of GAPED       five CNNs: three convolutions with dropout and without, LeNet-5, separable
    six classes of CAP-D   Inception-V3, first its last layer alone, then the whole of it
    eight emotions of FI   ResNets at 32 and 64 pixels
    balanced faces         the separable CNN on UTKFace
    seven classes of art   from LeNet-5 to AlexNet on WikiArt
"""

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small


def lenet(activation: type[nn.Module]) -> nn.Sequential:
    """Two convolutions and two dense layers: LeCun et al. (1998), figure 2, on three colours."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5), activation(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), activation(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), activation(), nn.Linear(120, 84), activation()),
    )


class LeNet5(nn.Module):
    """LeNet-5 with tanh, as it was published. For: GAPED; the smallest one on WikiArt."""

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
    """A convolution per channel, then one across them: Chollet (2017), arXiv:1610.02357."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(n_in, n_in, 3, padding=1, groups=n_in, bias=False)
        self.pointwise = nn.Conv2d(n_in, n_out, 1, bias=False)
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.pointwise(self.depthwise(x))))


class SeparableCnn(nn.Module):
    """Four separable convolutions. For: expressions of balanced faces (UTKFace), small enough for a phone."""

    size_px = 48

    def __init__(self) -> None:
        super().__init__()
        blocks = [(16, 32), (32, 64), (64, 96), (96, 128)]
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(*(nn.Sequential(Separable(*each), nn.MaxPool2d(2)) for each in blocks))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.stem(x))


class ThreeConv(nn.Module):
    """Three convolutions and a dense layer. For: GAPED, from random weights."""

    size_px = 64
    dropout = 0.0

    def __init__(self) -> None:
        super().__init__()
        widths = [(3, 32), (32, 64), (64, 64)]
        self.convolutions = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(*each, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for each in widths)
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
    """The same with dropout on both sides of the dense layer. For: GAPED, where ThreeConv learns by heart."""

    dropout = 0.5


class EmbeddingMlp(nn.Module):
    """A frozen embedding and two dense layers; with the last layer a softmax of three. For: GAPED, CAP-D.

    The embedding is MobileNetV3-small's: give a file of this class's state_dict, with the weights of
    torchvision under `embedding.`, or it is a random one.
    """

    size_px = 224

    def __init__(self) -> None:
        super().__init__()
        self.embedding = mobilenet_v3_small().features.requires_grad_(False)
        self.dense = nn.Sequential(nn.Linear(576, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())

    def train(self, mode: bool = True) -> "EmbeddingMlp":
        super().train(mode)
        self.embedding.eval()  # frozen, the averages of its batch norms too
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.embedding(x).mean((2, 3)))
