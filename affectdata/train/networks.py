"""Networks to train: a trunk with a new output layer; names and weights as in `trunks`.

A network can take one extra number per image, the output of a regressor; it is appended to the pooled
features before the output layer.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from affectdata.errors import UsageError
from affectdata.train.backbones import choose_device
from affectdata.train.trunks import Normalisation, Note, Trunk, build_trunk, pool, run_trunk
from affectdata.train.weights import DEFAULT

# Output layers of the auxiliary heads of the two torchvision networks that have them.
_AUXILIARY = {"inception_v3": ("AuxLogits.fc",), "googlenet": ("aux1.fc2", "aux2.fc2")}
# Weights of their losses: for GoogLeNet from Szegedy et al. (2014), arXiv:1409.4842, section 5; for
# Inception-V3 from PyTorch's fine-tuning tutorial.
_AUXILIARY_WEIGHT = {"inception_v3": 0.4, "googlenet": 0.3}
_OUTPUT_MIDDLE, _OUTPUT_UNIT = 50.0, 10.0  # POMP units; scale the number to about the spread of the features


class HeadedNetwork(nn.Module):
    """A trunk (`body`), pooling, dropout, and one linear layer (`head`)."""

    def __init__(self, trunk: nn.Module, n_features: int, n_outputs: int, takes_output: bool) -> None:
        super().__init__()
        self.body = trunk  # saved state dicts and checkpoints contain the name `body`
        self.drop = nn.Dropout(0.0)
        self.head = nn.Linear(n_features + takes_output, n_outputs)
        self.takes_output = takes_output

    def forward(self, x: Tensor, output: Tensor | None = None) -> Tensor:
        """Return (n, n_outputs) of normalised images (n, 3, height, width).

        `output` (n,), the regressor's prediction per image in POMP, is required if `takes_output`.
        """
        return self.all_outputs(x, output)[0]

    def all_outputs(self, x: Tensor, output: Tensor | None = None) -> list[Tensor]:
        """Return the outputs of the head and, in training mode, of the auxiliary heads after it."""
        outputs = self.body(x)
        main, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        features = self.drop(pool(main))
        if self.takes_output:
            if output is None:
                raise ValueError("the network requires the regressor's output, but got None")
            column = ((output - _OUTPUT_MIDDLE) / _OUTPUT_UNIT).to(features.dtype)
            features = torch.cat([features, column[:, None]], 1)
        return [self.head(features), *auxiliary]


@dataclass(frozen=True, eq=False)
class Network:
    """A network, its input format and its device; `auxiliary` names the output layers of auxiliary heads."""

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
        """Number of outputs per image."""
        return self.module.head.out_features

    def copy(self) -> Network:
        """Return an independent network with the same weights."""
        return replace(self, module=copy.deepcopy(self.module))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by group: `head`, all output layers; `body`, the rest that is not frozen."""
        layers = [self.module.head, *(self.module.body.get_submodule(name) for name in self.auxiliary)]
        head = [parameter for layer in layers for parameter in layer.parameters()]
        in_head = {id(parameter) for parameter in head}
        rest = (parameter for parameter in self.module.parameters() if id(parameter) not in in_head)
        return {"head": head, "body": [parameter for parameter in rest if parameter.requires_grad]}


def build_network(
    name: str,
    n_outputs: int,
    weights: str = DEFAULT,
    *,
    size_px: int | None = None,
    takes_output: bool = False,
    device: str | None = None,
    seed: int = 0,
    note: Note = lambda _: None,
) -> Network:
    """Build a network with `n_outputs` outputs; `weights` are those of its trunk.

    `size_px` is the size of the images [default: the network's own]. Random weights depend on `seed` alone.
    `note` is called before anything is downloaded.

    Raises:
        MissingError: the weights, a required extra or the device are not available.
        InputError: the weights do not match the network, or it cannot process images of this size.
        UsageError: no network has this name, or `n_outputs` or `size_px` is below 1.
    """
    for parameter, number in {"n_outputs": n_outputs, "size_px": size_px}.items():
        if number is not None and number < 1:
            raise UsageError(f"{parameter} is {number}", fix="it must be >= 1")
    torch_device = choose_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = build_trunk(name, weights, note)
        normalisation = replace(trunk.normalisation, size_px=size_px or trunk.normalisation.size_px)
        n_features = _count_features(trunk, normalisation.size_px)
        module = HeadedNetwork(trunk.module, n_features, n_outputs, takes_output)
        auxiliary = _AUXILIARY.get(name, ())
        for layer in auxiliary:
            _replace_layer(trunk.module, layer, n_outputs)
    module = module.to(torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight = _AUXILIARY_WEIGHT.get(name, 0.0)
    return Network(trunk.name, weights, module, normalisation, torch_device, trunk.code, auxiliary, weight)


def _count_features(trunk: Trunk, size_px: int) -> int:
    """Return the number of features of two black images, run in training mode to include auxiliary heads."""
    module = copy.deepcopy(trunk.module).train()  # a copy: the images would change batch norm's averages
    with torch.no_grad():
        outputs = run_trunk(trunk.name, module, torch.zeros(2, 3, size_px, size_px))
    return pool(outputs[0] if isinstance(outputs, tuple) else outputs).shape[1]


def _replace_layer(module: nn.Module, layer: str, n_outputs: int) -> None:
    """Replace a linear layer by a new one with `n_outputs`."""
    parent, _, leaf = layer.rpartition(".")
    old = getattr(module.get_submodule(parent), leaf)
    setattr(module.get_submodule(parent), leaf, nn.Linear(old.in_features, n_outputs))
