"""Rank unrated images by how well they would fill the short cells of a recipe, by a kept model.

What a model predicts is in columns named `predicted_…`; the rating task has empty columns for ratings. The
errors of the model are measured on the originals of val and test, which a model kept by `train-check` on a
release of the same recipe was not trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import DecodeError, InputError, RecipeError
from affectdata.hashing import file_hash
from affectdata.images.decode import decode
from affectdata.images.duplicates import hash_views
from affectdata.images.hamming import MAX_BITS
from affectdata.images.phash import perceptual_hashes
from affectdata.manifest.manifest import Manifest
from affectdata.plan.cells import Cells, assign_cells
from affectdata.recipe.recipe import RATED, Recipe
from affectdata.records import count_text
from affectdata.selection.shortage import bin_probabilities, count_missing, rank_images
from affectdata.splits.seeds import id_heads, id_keys, id_ranks
from affectdata.store.atomic import write_json, write_text
from affectdata.store.escape import frame_to_csv
from affectdata.store.files import read_regular
from affectdata.train.heads import fit_classifier
from affectdata.train.images import crop_square
from affectdata.train.kept import FrozenModel, KeptModel
from affectdata.train.predict import compute_features, predict_values
from affectdata.train.rows import Rows

SCHEMA = "affectdata/suggest/1"
_SUBTYPE = "subtype"
_MOST_TRAIN, _MOST_HELD_OUT = 1000, 300  # images that subtypes are learnt from, and errors measured on
_BATCH = 256
_95 = 1.96
Read = Callable[[str], bytes]


@dataclass(frozen=True, eq=False)
class Suggestion:
    """Images to rate, the best first, and what they would fill.

    `images`: rank, file, image_id, predicted_<target> with its 95 % interval, predicted_subtype with its
    probability, the likeliest cell, gain. `missing`: images that each short cell lacks. `error` is the root
    mean squared error on `n_held_out` originals; `skipped`: files that cannot be read or are known.
    """

    target: str
    images: pd.DataFrame = field(repr=False)
    missing: dict[str, int] = field(repr=False)
    error: float
    n_held_out: int
    skipped: dict[str, str] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "target": self.target,
            "images": self.images.to_dict("records"),
            "missing": self.missing,
            "error": self.error,
            "held_out": self.n_held_out,
            "skipped": self.skipped,
        }


def suggest_images(
    files: Sequence[Path],
    manifests: Sequence[Manifest],
    rows: pa.Table,
    recipe: Recipe,
    model: KeptModel,
    n: int,
) -> Suggestion:
    """Rank unrated images; `rows` are those of the manifests for the recipe, with their splits.

    Raises:
        RecipeError: the recipe has no rated target or has strata other than subtype, or holds no image out.
        InputError: the model predicts something else, or no image is left.
        ImagesNotFound: the images of the manifests are not at hand.
    """
    if not isinstance(model, FrozenModel):
        raise InputError(
            "the model is a fine-tuned network, and images are compared by features of a frozen one",
            fix="use a model that `train-check --mode frozen --keep-model` wrote",
        )
    _check(recipe, model)
    cells = assign_cells(rows, recipe)
    counts = np.zeros((len(cells.bin_labels), len(cells.stratum_labels)), int)
    np.add.at(counts, (cells.bin, cells.stratum), 1)
    missing = count_missing(counts, recipe.balance.level)
    read = _reader(manifests, rows)
    error, n_held_out = _measure_error(rows, recipe, model, read)
    fresh, ids, features, skipped = _read_files(files, manifests, model)
    if not fresh:
        raise InputError(
            f"no unrated image among {count_text(len(files), 'file')}", fix=_first_reason(skipped)
        )
    predicted = predict_values(model, features)
    shares = _subtype_shares(rows, cells, recipe, model, read, features)
    bins = bin_probabilities(predicted, error, cells.edges or [])
    probabilities = (bins[:, :, None] * shares[:, None, :]).reshape(len(fresh), -1)
    order, gains = rank_images(probabilities, missing.ravel(), n)
    names = np.array([name for names in cells.names for name in names])
    likely = probabilities.argmax(1)
    columns: dict[str, Any] = {
        "file": [str(fresh[at]) for at in order],
        "image_id": [ids[at] for at in order],
        f"predicted_{recipe.target}": predicted[order].round(2),
        "low": np.clip(predicted[order] - _95 * error, 0, 100).round(2),
        "high": np.clip(predicted[order] + _95 * error, 0, 100).round(2),
        "likely_cell": names[likely[order]],
        "p_likely_cell": probabilities.max(1)[order].round(4),
        "gain": gains.round(4),
    }
    if recipe.strata:
        columns["predicted_subtype"] = np.array(cells.stratum_labels)[shares.argmax(1)[order]]
        columns["p_subtype"] = shares.max(1)[order].round(4)
    images = pd.DataFrame(columns)
    images.insert(0, "rank", np.arange(1, len(images) + 1))
    short = {str(name): int(count) for name, count in zip(names, missing.ravel(), strict=True) if count}
    return Suggestion(recipe.target, images, short, error, n_held_out, skipped)


def _check(recipe: Recipe, model: FrozenModel) -> None:
    if recipe.target not in RATED:
        raise RecipeError(
            f"target {recipe.target} is not a rating", where="target", fix=f"one of {', '.join(RATED)}"
        )
    if model.targets != [recipe.target]:
        found = ", ".join(model.targets) or "classes only"
        raise InputError(f"the model predicts {found}, the recipe's target is {recipe.target}")
    if other := sorted(set(recipe.strata_bins) - {_SUBTYPE}):
        raise RecipeError(
            f"{', '.join(other)} cannot be predicted from an image",
            where="strata",
            fix="use a copy of the recipe with `strata: [subtype]` or `strata: []`",
        )


def _reader(manifests: Sequence[Manifest], rows: pa.Table) -> Read:
    """Return a function that reads the image of an image_id."""
    images = {source: manifest.images() for manifest in manifests for source in manifest.sources}
    places = {row["image_id"]: row for row in rows.select(["image_id", "source", "path"]).to_pylist()}
    return lambda key: images[places[key]["source"]].read(places[key]["source"], places[key]["path"], key)


def _sample(rows: pa.Table, splits: Sequence[str], seed: int, most: int) -> np.ndarray:
    """Return at most `most` rows of some splits, in an order that depends on the seed."""
    found = np.flatnonzero(pc.is_in(rows["split"], pa.array(splits)).to_numpy())
    ranks = id_ranks(seed, id_keys(id_heads(rows["image_id"].take(pa.array(found)))))
    return found[np.argsort(ranks, kind="stable")][:most]


def _features(rows: pa.Table, index: np.ndarray, model: FrozenModel, read: Read) -> np.ndarray:
    keys = rows["image_id"].take(pa.array(index)).to_pylist()
    return np.concatenate(
        [
            compute_features(
                model, [_square(model, decode(read(key)).rgb) for key in keys[start : start + _BATCH]]
            )
            for start in range(0, len(keys), _BATCH)
        ]
    )


def _square(model: FrozenModel, rgb: np.ndarray) -> np.ndarray:
    """Return what the model sees of an image: a small part of a photograph's memory."""
    return crop_square(rgb, model.normalisation.size_px)


def _measure_error(rows: pa.Table, recipe: Recipe, model: FrozenModel, read: Read) -> tuple[float, int]:
    """Return the root mean squared error on held-out originals, and their number."""
    index = _sample(rows, ("val", "test"), recipe.seed, _MOST_HELD_OUT)
    if len(index) < 2:
        raise RecipeError(
            "no image is held out, so the errors of the model are unknown",
            where="split",
            fix="use a recipe with shares of val and test, and a model of its release",
        )
    rated = rows[recipe.target].to_numpy()[index]
    errors = predict_values(model, _features(rows, index, model, read)) - rated
    return max(float(np.sqrt(np.mean(errors**2))), 1e-6), len(index)


def _subtype_shares(
    rows: pa.Table, cells: Cells, recipe: Recipe, model: FrozenModel, read: Read, features: np.ndarray
) -> np.ndarray:
    """Return the probability of each stratum (n, strata), by logistic regression on the train originals."""
    n_strata = len(cells.stratum_labels)
    shares = np.full((len(features), n_strata), 1 / n_strata)
    index = _sample(rows, ("train",), recipe.seed, _MOST_TRAIN)
    if n_strata < 2 or len(np.unique(cells.stratum[index])) < 2:
        return shares
    train = _features(rows, index, model, read)
    empty = np.full(len(index), "")
    fitted = fit_classifier(
        Rows(
            features=train,
            target=rows[recipe.target].to_numpy()[index],
            image_id=np.array(rows["image_id"].to_pylist())[index],
            group=np.array(rows["group_id"].to_pylist())[index],
            copy=np.zeros(len(index), int),
            subtype=empty,
            source=empty,
            stratum=cells.stratum[index],
            weight=np.ones(len(index)),
            pool_index=np.arange(len(index)),
        ),
        cells.stratum[index],
        None,
        recipe.seed,
    )
    shares[:] = 0
    shares[:, fitted.model.classes_] = fitted.model.predict_proba(features)
    return shares


def _read_files(
    files: Sequence[Path], manifests: Sequence[Manifest], model: FrozenModel
) -> tuple[list[Path], list[str], np.ndarray, dict[str, str]]:
    """Return files that are new images with their ids and features, and why others are skipped."""
    rows = [each.rows.select(["image_id", "phash", "phash_views"]) for each in manifests]
    known = {key for each in rows for key in each["image_id"].to_pylist()}
    looks = np.concatenate([hash_views(each)[:, 0] for each in rows])
    fresh, ids, parts, skipped = list[Path](), list[str](), [np.empty((0, 0), np.float32)], dict[str, str]()
    waiting: list[np.ndarray] = []
    for file in files:
        try:
            data = read_regular(file)
            rgb = decode(data).rgb
        except (OSError, DecodeError) as error:
            skipped[str(file)] = f"cannot be read: {error}".splitlines()[0]
            continue
        key = file_hash(data)
        views = np.array([int(view, 16) for view in perceptual_hashes(rgb)], np.uint64)
        if key in known or _is_near(views, looks):
            skipped[str(file)] = "is in the manifest, another suggestion, or looks like such an image"
            continue
        known.add(key)
        looks = np.append(looks, views[0])
        fresh.append(file)
        ids.append(key)
        waiting.append(_square(model, rgb))
        if len(waiting) == _BATCH:
            parts.append(compute_features(model, waiting))
            waiting = []
    if waiting:
        parts.append(compute_features(model, waiting))
    return fresh, ids, np.concatenate(parts[1:]) if fresh else parts[0], skipped


def _is_near(views: np.ndarray, looks: np.ndarray) -> bool:
    return bool((np.bitwise_count(views[:, None] ^ looks[None]) <= MAX_BITS).any())


def _first_reason(skipped: dict[str, str]) -> str:
    file, reason = next(iter(skipped.items()), ("", "the folder has no files"))
    return f"{file} {reason}".strip()


def write_suggestion(suggestion: Suggestion, folder: Path, out: Path, seed: int) -> None:
    """Write `suggestions.csv` with the predictions, and a rating task without them.

    The task is `rating_task.csv` with empty columns, in random order, `columns.yaml` with which `ingest`
    reads it once it is filled in, and `label_studio.json`.
    """
    images = suggestion.images
    write_text(out / "suggestions.csv", frame_to_csv(images))
    shuffled = suggestion.images.sample(frac=1, random_state=seed)
    files = [Path(file).relative_to(folder).as_posix() for file in shuffled["file"]]
    task = pd.DataFrame({"file": files, "rater": "", "valence": "", "arousal": "", "subtype": ""})
    write_text(out / "rating_task.csv", task.to_csv(index=False))
    write_text(out / "columns.yaml", _COLUMN_MAP)
    studio = [
        {"data": {"image": f"/data/local-files/?d={folder.name}/{file}", "file": file}} for file in files
    ]
    write_text(out / "label_studio.json", json.dumps(studio, indent=1, ensure_ascii=False) + "\n")
    write_json(out / "suggest.json", {"schema": SCHEMA, **suggestion.to_dict()})


_COLUMN_MAP = """# A row per rater and image. Set the scales to those that the raters used.
name: suggested
table: rating_task.csv
key: file
rows: rater
rater: rater
scales: {valence: [1, 9], arousal: [1, 9]}
columns: {valence: valence, arousal: arousal, subtype: subtype}
"""
