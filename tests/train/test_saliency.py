"""train.saliency: the map highlights the region that the model uses, red where it raises valence."""

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

from affectdata.errors import MissingError
from affectdata.train.backbones import load_backbone
from affectdata.train.kept import FrozenModel, make_model
from affectdata.train.plain_heads import PlainHead
from affectdata.train.predict import read_rgb
from affectdata.train.saliency import GRID, attribute, draw_map, save_maps
from affectdata.train.svr import RbfSVR

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

class Flat(nn.Module):
    size_px = 32
    def forward(self, x):
        return x.mean((1, 2, 3))[:, None]
"""


def head(n_outputs: int, sign: float = 1.0) -> PlainHead:
    """A linear head on one feature; its coefficients decrease from the first output to the last."""
    coef = sign * torch.arange(n_outputs, 0, -1)[:, None]
    scaling = {"mean": torch.zeros(1), "scale": torch.ones(1)}
    return PlainHead("logistic", {**scaling, "coef": coef, "intercept": torch.zeros(n_outputs)})


@pytest.fixture
def build(tmp_path: Path) -> Any:
    """Build a model that predicts `sign` times the brightness; `both` adds a classifier."""
    (tmp_path / "mine.py").write_text(CODE)

    def call(name: str, sign: float = 1.0, *, both: bool = False) -> FrozenModel:
        backbone = load_backbone(f"{tmp_path / 'mine.py'}:{name}", "none", "cpu")
        heads: Any = {"regressor": head(1, sign), **({"classifier": head(2)} if both else {})}
        labels = ["light", "dark"] if both else []
        return FrozenModel(backbone=backbone, heads=heads, targets=["valence"], labels=labels)

    return call


@pytest.fixture
def lit() -> np.ndarray:
    """A dark image with a bright square in its upper left quarter."""
    image = np.full((32, 32, 3), 10, np.uint8)
    image[4:12, 4:12] = 250
    return image


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "channel"), [(1.0, 0), (-1.0, 2)])
def test_the_map_highlights_what_changes_valence(
    sign: float, channel: int, lit: np.ndarray, build: Any, tmp_path: Path
) -> None:
    pytest.importorskip("captum")
    (path,) = save_maps(build("Edge", sign), [lit], tmp_path / "maps")
    assert path.name == "0000_valence.png"
    drawn = read_rgb(path).astype(int)[:, 32:]
    # Red minus blue where the region raises valence, blue minus red where it lowers it.
    colour = drawn[..., channel] - drawn[..., 2 - channel]
    assert np.unravel_index(colour.argmax(), colour.shape)[0] in range(4, 12)
    assert colour[4:12, 4:12].mean() > 10 * max(colour[20:, 20:].mean(), 1)


def test_one_file_per_stage_named_after_the_image_and_the_target(
    lit: np.ndarray, build: Any, tmp_path: Path
) -> None:
    pytest.importorskip("captum")
    Image.fromarray(lit).save(tmp_path / "lamp.png")
    model = build("Edge", both=True)
    paths = save_maps(model, [tmp_path / "lamp.png", lit], tmp_path)
    names = ["0000_lamp_valence", "0000_lamp_light", "0001_valence", "0001_light"]
    assert [path.stem for path in paths] == names
    assert all(read_rgb(path).shape == (32, 64, 3) for path in paths)
    assert all((read_rgb(path)[:, :32] == lit).all() for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "mobilenet_v3_small"])
def test_networks_and_the_heads_of_a_check_have_maps(name: str, lit: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    backbone = load_backbone(name, "none", "cpu")
    rng, size = np.random.default_rng(0), backbone.normalisation.size_px
    images = rng.integers(0, 256, (12, size, size, 3), np.uint8)
    regressor = make_pipeline(StandardScaler(), RbfSVR())
    regressor.fit(backbone.features(images), rng.uniform(0, 100, 12))
    (path,) = save_maps(make_model(backbone, regressor), [lit], tmp_path)
    assert read_rgb(path).shape == (size, 2 * size, 3)


def test_the_cells_add_up_to_the_change_from_the_baseline(build: Any, lit: np.ndarray) -> None:
    pytest.importorskip("captum")
    model = build("Edge", both=True)
    for stage, column in (("regressor", 0), ("classifier", 1)):
        cells = attribute(model, lit, stage, column)
        x = model.normalise(lit[None])
        outputs = [model(each)[stage == "classifier"][0, column].item() for each in (x, torch.zeros_like(x))]
        assert cells.shape == (GRID, GRID) and cells.sum() == pytest.approx(outputs[0] - outputs[1], rel=1e-3)


def test_networks_without_spatial_positions_have_maps_too(lit: np.ndarray, build: Any) -> None:
    pytest.importorskip("captum")
    cells = attribute(build("Flat"), lit, "regressor", 0)
    assert cells[4:11, 4:11].mean() > 10 * cells[15:, 15:].mean()


def test_without_captum_the_extra_is_named(
    lit: np.ndarray, build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("Edge")

    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingError, match=r"affectdata\[saliency\]"):
        save_maps(model, [lit], tmp_path)


def test_a_map_is_drawn_over_the_grey_image() -> None:
    square = np.full((2, 4, 3), 100, np.uint8)
    drawn = draw_map(square, np.array([[1.0, 0.0, -0.5, 0.0]]).repeat(2, 0))
    assert drawn[0].tolist() == [[193, 40, 40], [100, 100, 100], [70, 70, 147], [100, 100, 100]]
    assert (draw_map(square, np.zeros((2, 4))) == square).all()
