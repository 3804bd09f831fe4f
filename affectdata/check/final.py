"""The model of a release: regressor and classifier on all of its train rows, and saliency maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from affectdata.check.evaluate import Classes, find_classes
from affectdata.check.prepare import CheckInput
from affectdata.errors import InputError
from affectdata.images.decode import decode
from affectdata.release.images import Read, released_reader
from affectdata.release.release import Release
from affectdata.store.parquet import write_text
from affectdata.train.backbones import Backbone
from affectdata.train.heads import Fitted, fit_classifier, fit_regressor, out_of_fold, quiet_threads
from affectdata.train.kept import KeptModel, make_model, predict
from affectdata.train.rows import Rows
from affectdata.train.saliency import find_layer, save_maps
from affectdata.train.trunks import load_extra

_CLEAR = 0.8  # certainty above which a prediction is clear
_BATCH = 64


def fit_final(prepared: CheckInput) -> KeptModel:
    """Fit regressor and classifier on the release's train rows; the classifier is that of the target.

    Raises:
        InputError: there is nothing to predict: the target is not numeric and has one class.
    """
    train, seed = prepared.train, prepared.recipe.seed
    classes = find_classes(prepared.recipe, None if prepared.numeric else prepared.originals.labels, [])
    with quiet_threads():
        regressor = fit_regressor(train, "svr", seed) if prepared.numeric else None
        classifier = _fit_classifier(train, classes[0], regressor, seed) if classes else None
    models = [fitted and fitted.model for fitted in (regressor, classifier)]
    return make_model(prepared.backbone, models[0], models[1], prepared.recipe.target)


def _fit_classifier(train: Rows, classes: Classes, regressor: Fitted | None, seed: int) -> Fitted | None:
    labels = classes.of(train)
    if len(np.unique(labels)) < 2:
        return None
    outputs = out_of_fold(regressor, train, seed) if regressor else None
    return fit_classifier(train, labels, outputs, seed)


def check_maps(release: Release, backbone: Backbone) -> None:
    """Check that maps can be drawn, before a model is trained.

    Raises:
        MissingError: captum is not installed.
        InputError: the release has no test split, or the network has no layer with a spatial grid.
    """
    if not len(release.split("test")):
        raise InputError(
            "maps are drawn of the test split, and the release has none",
            where=str(release.path),
            fix="leave out --maps, or balance by a recipe with `split: {test: 0.2}`",
        )
    load_extra("captum.attr", "saliency")
    find_layer(backbone)


def draw_maps(prepared: CheckInput, model: KeptModel, n_maps: int, folder: Path) -> list[Path]:
    """Write maps of the clearest and the worst predictions on test originals, which were not trained on.

    `clearest` are predictions with more than 80 % certainty; `worst` have the largest error, or the highest
    certainty of a wrong class. Both folders have an `index.csv` that lists the images.

    Raises:
        MissingError, InputError: as in `check_maps`.
    """
    check_maps(prepared.release, prepared.backbone)
    table = prepared.release.split("test")
    read = released_reader(prepared.release.path, prepared.recipe, prepared.release.sources_to_render())
    batches = [table.slice(start, _BATCH) for start in range(0, len(table), _BATCH)]
    predictions = pd.concat([predict(model, _images(read, batch)) for batch in batches], ignore_index=True)
    predictions["image"] = [
        f"{row['source']}: {row['path']}" for row in table.select(["source", "path"]).to_pylist()
    ]
    predictions["true"] = table[prepared.recipe.target].to_pylist()
    certainty = (
        predictions.filter(regex="^p_").max(axis=1)
        if "class" in predictions
        else pd.Series(0.0, predictions.index)
    )
    error = _errors(predictions, certainty, prepared)
    written = []
    for name, ordered in (
        ("clearest", certainty[certainty > _CLEAR].sort_values(ascending=False, kind="stable").index),
        ("worst", error[error > 0].sort_values(ascending=False, kind="stable").index),
    ):
        chosen = ordered[:n_maps]
        written += save_maps(model, _images(read, table.take(pa.array(chosen))), folder / name)
        write_text(
            folder / name / "index.csv", predictions.loc[chosen].to_csv(index=False, lineterminator="\n")
        )
    return written


def _images(read: Read, table: pa.Table) -> list[np.ndarray]:
    return [decode(data).rgb for data in read(table)] if len(table) else []


def _errors(predictions: pd.DataFrame, certainty: pd.Series, prepared: CheckInput) -> pd.Series:
    """Return how wrong each prediction is: in POMP units, or the certainty of a wrong class."""
    if prepared.numeric:
        return (predictions[prepared.recipe.target] - predictions["true"]).abs()
    return certainty.where(predictions["class"] != predictions["true"], 0.0)
