"""Saliency maps of the clearest and the worst predictions of a model on test originals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.check.prepare import CheckInput
from affectdata.check.study_targets import StudyTarget
from affectdata.errors import InputError
from affectdata.images.decode import decode
from affectdata.release.images import Read, released_reader
from affectdata.release.release import Release
from affectdata.store.atomic import write_text
from affectdata.store.escape import frame_to_csv
from affectdata.train.kept import KeptModel
from affectdata.train.predict import predict
from affectdata.train.saliency import save_maps
from affectdata.train.trunks import load_extra

_CLEAR = 0.8  # certainty above which a prediction is clear
CLEAREST = "clearest"
_BATCH = 64


def check_maps(release: Release) -> None:
    """Check that maps can be drawn, before a model is trained.

    Raises:
        MissingError: captum is not installed.
        InputError: the release has no test split.
    """
    if not len(release.split("test")):
        raise InputError(
            "maps are drawn of the test split, and the release has none",
            where=str(release.path),
            fix="leave out --maps, or balance by a recipe with `split: {test: 0.2}`",
        )
    load_extra("captum.attr", "saliency")


def draw_maps(prepared: CheckInput, model: KeptModel, n_maps: int, folder: Path) -> list[Path]:
    """Write maps of the clearest and the worst predictions on test originals, which were not trained on.

    `clearest` are predictions with more than 80 % certainty (there may be none); `worst` have the largest
    error (of points, the distance; of shares, the divergence), or the highest certainty of a wrong class.
    Both folders have an `index.csv` that lists the images;
    the names of the files have the true and the predicted value or class.

    Raises:
        MissingError, InputError: as in `check_maps`.
    """
    check_maps(prepared.release)
    table, target = prepared.release.split("test"), prepared.target
    if target:  # the values of others are not known, see `check.max_pictures`
        table = table.filter(pc.is_in(table["image_id"], prepared.originals.table["image_id"]))
    read = released_reader(prepared.release.path, prepared.recipe, prepared.release.sources_to_render())
    batches = [table.slice(start, _BATCH) for start in range(0, len(table), _BATCH)]
    predictions = pd.concat([predict(model, _images(read, batch)) for batch in batches], ignore_index=True)
    predictions["image"] = [
        f"{row['source']}: {row['path']}" for row in table.select(["source", "path"]).to_pylist()
    ]
    if target:
        true = target.values[prepared.originals.find(table["image_id"].to_pylist())]
        predictions["true"] = [_true_text(row, target) for row in true]
    else:
        predictions["true"] = table[prepared.recipe.target].to_pylist()
    certainty = (
        predictions.filter(regex="^p_").max(axis=1)
        if "class" in predictions
        else pd.Series(0.0, predictions.index)
    )
    if target and target.kind in ("numbers", "shares"):
        columns = [name if target.kind == "numbers" else f"p_{name}" for name in target.outputs]
        error = pd.Series(target.errors(true, predictions[columns].to_numpy()), predictions.index)
    else:
        error = _errors(predictions, certainty, prepared)
    written = []
    for name, ordered in (
        (CLEAREST, certainty[certainty > _CLEAR].sort_values(ascending=False, kind="stable").index),
        ("worst", error[error > 0].sort_values(ascending=False, kind="stable").index),
    ):
        chosen = ordered[:n_maps]
        images = _images(read, table.take(pa.array(chosen, pa.int64())))
        written += save_maps(model, images, folder / name, list(_captions(predictions.loc[chosen], prepared)))
        listed = predictions.loc[chosen]
        write_text(folder / name / "index.csv", frame_to_csv(listed))
    return written


def explain_no_clearest(model: KeptModel, drawn: list[Path]) -> str | None:
    """Return why `draw_maps` wrote no map of clear predictions; None if it did."""
    if any(each.parent.name == CLEAREST for each in drawn):
        return None
    if not model.labels:
        return "the model predicts no classes, so no prediction has a certainty and maps/clearest is empty"
    return f"no prediction on test is more than {_CLEAR:.0%} certain, so maps/clearest is empty"


def _captions(predictions: pd.DataFrame, prepared: CheckInput) -> Iterator[str]:
    """Yield true and predicted value or class of each image, as a part of a file name."""
    target = prepared.target
    for _, row in predictions.iterrows():
        if prepared.numeric:
            yield f"true-{row['true']:.0f}_predicted-{row[prepared.recipe.target]:.0f}"
            continue
        predicted = str(row.get("class", ""))
        if target and target.kind == "numbers":
            predicted = _true_text(row[list(target.outputs)].to_numpy(), target)
        yield f"true-{_safe_name(str(row['true']))}_predicted-{_safe_name(predicted)}"


def _true_text(values: np.ndarray, target: StudyTarget) -> str:
    """Return the values of an image in words: rounded numbers, its set of labels, or its largest class."""
    if target.kind == "numbers":
        return " ".join(f"{value:.0f}" for value in values)
    if target.kind == "multi":
        return "+".join(label for label, flag in zip(target.outputs, values, strict=True) if flag)
    return target.outputs[int(np.argmax(values))]


def _safe_name(text: str) -> str:
    return re.sub(r"[^\w-]+", "-", text)[:40]


def _images(read: Read, table: pa.Table) -> list[np.ndarray]:
    return [decode(data).rgb for data in read(table)] if len(table) else []


def _errors(predictions: pd.DataFrame, certainty: pd.Series, prepared: CheckInput) -> pd.Series:
    """Return how wrong each prediction is: in POMP units, or the certainty of a wrong class."""
    if prepared.numeric:
        return (predictions[prepared.recipe.target] - predictions["true"]).abs()
    return certainty.where(predictions["class"] != predictions["true"], 0.0)
