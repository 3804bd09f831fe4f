"""Tasks for Label Studio: the originals, those on which raters agree least first, to be rated again.

tasks.json               a task per original: the address of its image and every column of the release
label_config.xml         the labeling interface: a rating of the target, 1 to 9, or a choice of its classes
images/<sample_id>.jpg   the images; beside them `metadata.parquet`, by which `ingest` reads them back

Formats: https://labelstud.io/guide/tasks and https://labelstud.io/tags. Existing ratings are not written as
predictions: Label Studio would show them to the raters. Copies are left out, as an original has their labels.
The order is that of the SD of the target over raters, of `agreement` if the target is a class; rows without
it come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from affectdata.exports._images import write_images, write_records
from affectdata.exports._job import Job
from affectdata.exports._order import CLASS, ordered_rows
from affectdata.records import RATINGS
from affectdata.store.atomic import write_text
from affectdata.store.parquet import Rows

HAS_IMAGES = True
HAS_CLASSES = True
_IMAGES = "images"
_SERVED = f"/data/local-files/?d={_IMAGES}/"  # below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
_POINTS = 9


def export(job: Job, folder: Path) -> None:
    """Write the images and tasks, then the labeling interface."""
    names = _choices(job)
    rows = write_images(job, ordered_rows(job, _rank(job.release.rows, _target(job))), folder / _IMAGES)
    write_records(folder / "tasks.json", ({"data": _data(row)} for row in rows))
    write_text(folder / "label_config.xml", "\n".join(_interface(_target(job), names)) + "\n")


def notes(job: Job) -> list[str]:
    """Return how to import the tasks."""
    return [
        "## Use",
        "",
        "Start Label Studio with `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true` and this folder as",
        "`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT`. Create a project with `label_config.xml` as labeling",
        f"interface, add the folder `{_IMAGES}` as local storage without syncing it, import `tasks.json`.",
        "The first tasks are the images on which raters agreed least.",
    ]


def _target(job: Job) -> str:
    return job.by or job.recipe.target


def _choices(job: Job) -> list[str]:
    """Return the classes to choose from; none for a rating."""
    return [] if _target(job) in RATINGS else job.classes().names


def _rank(rows: Rows, target: str) -> np.ndarray:
    """Return the position of every original in the order of the tasks, and -1 for copies."""
    keys = [(f"{target}_sd", -1), ("agreement", 1)]  # a large SD and a small share come first
    known = [(name, sign) for name, sign in keys if name in rows.column_names]
    table = rows.select(["copy", *(name for name, _ in known)])
    values = [sign * table[name].to_numpy().astype(float) for name, sign in known]
    is_copy = table["copy"].to_numpy() > 0
    order = np.lexsort([*reversed(values), is_copy])  # NaN is last
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    ranks[is_copy] = -1
    return ranks


def _data(row: dict[str, Any]) -> dict[str, Any]:
    name = row["file_name"]
    labels = {key: value for key, value in row.items() if key != CLASS}
    return {"image": _SERVED + name, **labels, "file_name": f"{_IMAGES}/{name}"}


def _interface(target: str, names: Sequence[str]) -> list[str]:
    """Return the lines of the labeling interface; results must not be named like data."""
    control = f'name={quoteattr(f"new_{target}")} toName="image" required="true"'
    question = [f'  <Rating {control} maxRating="{_POINTS}"/>']
    if names:
        choices = [f"    <Choice value={quoteattr(name)}/>" for name in names]
        question = [f'  <Choices {control} choice="single">', *choices, "  </Choices>"]
    return [
        "<View>",
        '  <Image name="image" value="$image"/>',
        f"  <Header value={quoteattr(target)}/>",
        *question,
        "</View>",
    ]
