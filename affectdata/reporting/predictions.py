"""A page of predictions: each image with its place on the scale, its class, and a saliency map beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from affectdata.records import count_text
from affectdata.reporting.blocks import Card, Images, Section
from affectdata.reporting.page import render
from affectdata.reporting.thumbnails import make_thumbnail
from affectdata.train.kept import KeptModel
from affectdata.train.predict import labels_text, read_rgb
from affectdata.train.saliency import save_maps


def predictions_page(model: KeptModel, images: Sequence[Path], predicted: pd.DataFrame, *, maps: bool) -> str:
    """Return the page; `predicted` is the result of `predict` for these images.

    Raises:
        MissingError: maps are wanted and captum is not installed.
        InputError: an image cannot be read, or the network has no layer to draw a map of.
    """
    thumbnails = {str(image): make_thumbnail(read_rgb(image)) for image in images}
    with TemporaryDirectory() as folder:
        drawn = save_maps(model, images, Path(folder)) if maps else []
        cards: list[Card] = []
        for number, row in predicted.iterrows():
            marks = [("predicted", _clip(row[name])) for name in model.targets]
            cards.append(Card(str(row["image"]), _lines(row, model), marks))
            own = [file for file in drawn if file.name.startswith(f"{number:04d}")]
            cards += [Card("", [f"saliency, {file.stem.split('_')[-1]}"], map_file=str(file)) for file in own]
        text = "○: predicted value on the scale from 0 to 100. Red raises the prediction, blue lowers it."
        return render(
            "Predictions",
            f"{count_text(len(images), 'image')}, {model.name}",
            [Section("predictions", "Predictions", [Images("Images", text if maps else "", cards)])],
            thumbnails,
        )


def _clip(value: Any) -> float:
    return min(max(float(value), 0.0), 100.0)


def _lines(row: pd.Series, model: KeptModel) -> list[str]:
    lines = [Path(str(row["image"])).name, *(f"{name} {row[name]:.1f}" for name in model.targets)]
    return [*lines, labels_text(model, row)] if model.labels else lines
