"""train.saliency: the map lies where the model looks, in red where it raises valence."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from torch import nn

from affectdata.errors import InputError, MissingError
from affectdata.train.finetune import Fitted
from affectdata.train.kept import TrainedModel, freeze_model
from affectdata.train.networks import Network, build_network
from affectdata.train.predict import read_rgb
from affectdata.train.saliency import draw_map, save_maps
from affectdata.train.task import Settings

CODE = """
import torch
from torch import nn

class Edge(nn.Module):
    size_px = 32
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 4, stride=4, bias=False)
        nn.init.ones_(self.conv.weight)
    def forward(self, x):
        return torch.relu(self.conv(x))

class Attention(nn.Module):
    def forward(self, x):
        return x.flatten(2).mean(2)

class Attends(Edge):
    def __init__(self):
        super().__init__()
        self.attention = Attention()
    def forward(self, x):
        return self.attention(super().forward(x))

class Flat(nn.Module):
    size_px = 32
    def forward(self, x):
        return x.mean((2, 3))
"""


@pytest.fixture
def build(tmp_path: Path) -> Any:
    """Build a network that adds up light and answers with its `sign`."""
    (tmp_path / "mine.py").write_text(CODE)

    def call(name: str, n_outputs: int = 1, sign: float = 1.0) -> Network:
        network = build_network(f"{tmp_path / 'mine.py'}:{name}", n_outputs, "none", device="cpu")
        nn.init.constant_(network.module.head.bias, 0.0)
        network.module.head.weight.data[:] = sign * torch.arange(n_outputs, 0, -1)[:, None]
        return network

    return call


def model_of(regressor: Network, classifier: Network | None = None) -> TrainedModel:
    fitted = {"regressor": Fitted(regressor, Settings(), [])}
    if classifier:
        fitted["classifier"] = Fitted(classifier, Settings("cross_entropy"), [])
    return TrainedModel(fitted, ["valence"], ["light", "dark"] if classifier else [])  # type: ignore[arg-type]


@pytest.fixture
def lit() -> np.ndarray:
    """A dark picture with a light in its upper left quarter."""
    picture = np.full((32, 32, 3), 10, np.uint8)
    picture[4:12, 4:12] = 250
    return picture


@pytest.mark.parametrize(("sign", "channel"), [(1.0, 0), (-1.0, 2)])
def test_the_map_lies_on_what_moves_valence(
    sign: float, channel: int, lit: np.ndarray, build: Any, tmp_path: Path
) -> None:
    pytest.importorskip("captum")
    (path,) = save_maps(model_of(build("Edge", sign=sign)), [lit], tmp_path / "maps")
    assert path.name == "0000_valence.png"
    drawn = read_rgb(path).astype(int)
    colour = (
        drawn[..., channel] - drawn[..., 2 - channel]
    )  # red over blue where it raises, else the other way
    assert np.unravel_index(colour.argmax(), colour.shape)[0] in range(4, 12)
    assert colour[4:12, 4:12].mean() > 10 * max(colour[20:, 20:].mean(), 1)


def test_a_file_per_stage_named_after_the_picture_and_what_was_asked(
    lit: np.ndarray, build: Any, tmp_path: Path
) -> None:
    pytest.importorskip("captum")
    Image.fromarray(lit).save(tmp_path / "lamp.png")
    model = model_of(build("Edge"), build("Edge", 2))
    paths = save_maps(model, [tmp_path / "lamp.png", lit], tmp_path)
    names = ["0000_lamp_valence", "0000_lamp_light", "0001_valence", "0001_light"]
    assert [path.stem for path in paths] == names
    assert all(read_rgb(path).shape == (32, 32, 3) for path in paths)


def test_a_frozen_model_has_maps_too(lit: np.ndarray, backbone: Any, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (12, 128, 128, 3), np.uint8)
    pipeline = make_pipeline(StandardScaler(), SVR()).fit(
        backbone.features(pictures), rng.uniform(0, 100, 12)
    )
    (path,) = save_maps(freeze_model(backbone, pipeline, None), [lit], tmp_path)
    assert read_rgb(path).shape == (128, 128, 3)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_networks_of_torchvision_have_maps(name: str, lit: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    network = build_network(name, 1, "none", size_px=64, device="cpu")
    assert len(save_maps(model_of(network), [lit], tmp_path)) == 1


def test_networks_without_places(lit: np.ndarray, build: Any, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    for network in (build("Flat"), build("Attends")):
        with pytest.raises(InputError, match="no map to draw"):
            save_maps(model_of(network), [lit], tmp_path)


def test_without_captum_the_extra_is_named(
    lit: np.ndarray, build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(build("Edge"))

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingError, match=r"affectdata\[saliency\]"):
        save_maps(model, [lit], tmp_path)


def test_a_map_is_drawn_over_grey() -> None:
    square = np.full((2, 4, 3), 100, np.uint8)
    drawn = draw_map(square, np.array([[1.0, 0.0, -0.5, 0.0]]).repeat(2, 0))
    assert drawn[0].tolist() == [[193, 40, 40], [100, 100, 100], [70, 70, 147], [100, 100, 100]]
    assert (draw_map(square, np.zeros((2, 4))) == square).all()
