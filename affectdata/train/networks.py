"""Networks: a body and a last layer of their own, to be trained; by the names and weights of `bodies`.

A network may be told one number per image, the output of a regressor: it joins the pooled features in front
of the last layer.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from affectdata.errors import UsageError
from affectdata.train.backbones import choose_device
from affectdata.train.trunks import Body, Normalisation, Say, build_body, pool, run_body
from affectdata.train.weights import DEFAULT

# The last layers of the auxiliary heads that torchvision's two networks with such heads have.
_AUXILIARY = {"inception_v3": ("AuxLogits.fc",), "googlenet": ("aux1.fc2", "aux2.fc2")}
# What their losses count: for GoogLeNet Szegedy et al. (2014), arXiv:1409.4842, section 5; for Inception-V3
# PyTorch's tutorial on fine-tuning.
_AUXILIARY_WEIGHT = {"inception_v3": 0.4, "googlenet": 0.3}
_OUTPUT_MIDDLE, _OUTPUT_UNIT = 50.0, 10.0  # POMP units; brings the number to about the spread of features


class HeadedNetwork(nn.Module):
    """A body, its features pooled, dropout, one linear layer."""

    def __init__(self, body: nn.Module, n_features: int, n_outputs: int, takes_output: bool) -> None:
        super().__init__()
        self.body = body
        self.drop = nn.Dropout(0.0)
        self.head = nn.Linear(n_features + takes_output, n_outputs)
        self.takes_output = takes_output

    def forward(self, x: Tensor, output: Tensor | None = None) -> Tensor:
        """Return (n, n_outputs) of normalised images (n, 3, height, width).

        `output`: what the regressor says of each, POMP, (n,); where the network takes it.
        """
        return self.all_outputs(x, output)[0]

    def all_outputs(self, x: Tensor, output: Tensor | None = None) -> list[Tensor]:
        """Return the outputs of the head and, in training, of the auxiliary heads behind it."""
        found = self.body(x)
        main, *auxiliary = found if isinstance(found, tuple) else (found,)
        features = self.drop(pool(main))
        if self.takes_output:
            if output is None:
                raise ValueError("the network takes the regressor's output too, and was given none")
            told = ((output - _OUTPUT_MIDDLE) / _OUTPUT_UNIT).to(features.dtype)
            features = torch.cat([features, told[:, None]], 1)
        return [self.head(features), *auxiliary]


@dataclass(frozen=True, eq=False)
class Network:
    """A network, what it takes, where it runs; `auxiliary` names the last layers of auxiliary heads."""

    name: str
    weights: str
    module: HeadedNetwork
    normalisation: Normalisation
    device: torch.device
    code: str = ""
    auxiliary: tuple[str, ...] = ()
    auxiliary_weight: float = 0.0

    @property
    def n_outputs(self) -> int:
        """How many numbers the last layer gives per image."""
        return self.module.head.out_features

    def copy(self) -> Network:
        """Return a network of its own with the same weights."""
        return replace(self, module=copy.deepcopy(self.module))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters as `head`, all last layers, and `body`, the rest but for what is frozen."""
        lasts = [self.module.head, *(self.module.body.get_submodule(name) for name in self.auxiliary)]
        head = [parameter for layer in lasts for parameter in layer.parameters()]
        known = {id(parameter) for parameter in head}
        rest = (each for each in self.module.parameters() if id(each) not in known)
        return {"head": head, "body": [each for each in rest if each.requires_grad]}


def build_network(
    name: str,
    n_outputs: int,
    weights: str = DEFAULT,
    *,
    size_px: int | None = None,
    takes_output: bool = False,
    device: str | None = None,
    seed: int = 0,
    say: Say = lambda _: None,
) -> Network:
    """Build a network whose last layer gives `n_outputs` numbers; its other weights as `weights` says.

    `size_px` is that of the images [default: what the network was made for]. What is random follows from
    `seed` alone.

    Raises:
        MissingError: the weights, an extra or the device are not there.
        InputError: the weights do not fit, or the network cannot take images of this size.
        UsageError: no network has that name, or there is nothing to put in or out.
    """
    for what, number in {"n_outputs": n_outputs, "size_px": size_px}.items():
        if number is not None and number < 1:
            raise UsageError(f"{what} is {number}", fix="it is 1 at least")
    where = choose_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = build_body(name, weights, say)
        normalisation = replace(body.normalisation, size_px=size_px or body.normalisation.size_px)
        module = HeadedNetwork(
            body.module, _count_features(body, normalisation.size_px), n_outputs, takes_output
        )
        auxiliary = _AUXILIARY.get(name, ())
        for layer in auxiliary:
            _widen(body.module, layer, n_outputs)
    module = module.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight = _AUXILIARY_WEIGHT.get(name, 0.0)
    return Network(body.name, weights, module, normalisation, where, body.code, auxiliary, weight)


def _count_features(body: Body, size_px: int) -> int:
    """Run two black images as in training, so that auxiliary heads take part, and count what comes out."""
    twin = copy.deepcopy(body.module).train()  # a twin: batch norm would remember the black images
    with torch.no_grad():
        found = run_body(body.name, twin, torch.zeros(2, 3, size_px, size_px))
    return pool(found[0] if isinstance(found, tuple) else found).shape[1]


def _widen(body: nn.Module, layer: str, n_outputs: int) -> None:
    """Put a new layer of `n_outputs` in the place of a linear one."""
    parent, _, leaf = layer.rpartition(".")
    old = getattr(body.get_submodule(parent), leaf)
    setattr(body.get_submodule(parent), leaf, nn.Linear(old.in_features, n_outputs))
