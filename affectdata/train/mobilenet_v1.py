"""MobileNetV1 as Keras and TensorFlow build it, which torchvision does not have.

Howard et al. (2017), MobileNets, arXiv:1704.04861, table 1; padding as TensorFlow's "SAME".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_WIDTHS = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)  # channels into block i; the last one out
_STRIDE_2 = (1, 3, 5, 11)  # blocks, from 0, that halve the map
MAX_BLOCKS = len(_WIDTHS) - 1
_BN_EPSILON = 1e-3  # Keras' default for this network, not torch's


def same_padding(size_px: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's padding before and after along one axis: the odd pixel goes after.

    >>> same_padding(224, 3, 2), same_padding(225, 3, 2), same_padding(14, 3, 1)
    ((0, 1), (1, 1), (1, 1))
    """
    total = max((-(-size_px // stride) - 1) * stride + kernel - size_px, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow does, by the size of what comes in."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(n_in, n_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down, across = (
            same_padding(size, self.kernel_size[axis], self.stride[axis])
            for axis, size in enumerate(x.shape[2:])
        )
        return super().forward(functional.pad(x, (*across, *down)))


class Unit(nn.Module):
    """Convolution, batch norm, ReLU6."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = SameConv2d(n_in, n_out, kernel, stride, groups)
        self.bn = nn.BatchNorm2d(n_out, eps=_BN_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu6(self.bn(self.conv(x)))


class Block(nn.Module):
    """A depthwise 3 × 3 unit, then a pointwise 1 × 1 unit."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.depthwise = Unit(n_in, n_in, 3, stride, groups=n_in)
        self.pointwise = Unit(n_in, n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.pointwise(self.depthwise(x)))


class MobileNetV1(nn.Module):
    """The stem and the first `n_blocks` blocks: RGB in [-1, 1], (n, 3, h, w) → (n, channels, h', w')."""

    def __init__(self, n_blocks: int = MAX_BLOCKS) -> None:
        super().__init__()
        self.stem = Unit(3, _WIDTHS[0], 3, 2)
        self.blocks = nn.Sequential(
            *(Block(_WIDTHS[i], _WIDTHS[i + 1], 2 if i in _STRIDE_2 else 1) for i in range(n_blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.blocks(self.stem(x)))
