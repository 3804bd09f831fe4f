"""What an export module offers, and what it is handed. To add a format, write one module in this folder.

HAS_IMAGES         whether it holds images, which their terms may forbid to pass on
HAS_CLASSES          whether it sorts them into classes
export(job, folder)  write the release into an empty folder: equal bytes for equal releases, bounded memory
SPLIT_FILES          optional: where the files of a `{split}` are, for the README.md that Hugging Face reads
features(job)        optional: the features of a record there, for data whose types cannot be seen from a part

The folder takes its name when `export` has returned; `README.md`, with the terms, is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import InputError, IntegrityError
from affectdata.labels import class_names, cut_values
from affectdata.recipe.recipe import Recipe
from affectdata.release.images import Read
from affectdata.release.release import Release
from affectdata.store.parquet import Rows, read_parts
from affectdata.workers import map_ordered

_BATCH = 24  # images in one worker's hands
_SHOWN = 3


@dataclass(frozen=True)
class Job:
    """A sound release, how its images are read, and what to sort them by (`by`, a column)."""

    release: Release
    recipe: Recipe
    read: Read | None
    by: str | None = None
    workers: int = 1
    progress: Callable[[int, int], None] | None = None

    def images(self, parts: Iterable[pa.Table]) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield each row with the bytes of its image, in order, a few batches in memory.

        Raises:
            IntegrityError: an image is not the one that was released.
        """
        if self.read is None:
            raise TypeError("an export without HAS_IMAGES reads none")
        done = 0
        for part in parts:
            batches = [part.slice(start, _BATCH) for start in range(0, len(part), _BATCH)]
            for few, images in zip(batches, map_ordered(self.read, batches, self.workers), strict=True):
                yield from zip(few.to_pylist(), images, strict=True)
                done += len(few)
                if self.progress:
                    self.progress(done, len(self.release.rows))

    def classes(self) -> pa.ChunkedArray:
        """Return the class of every row: the word in its column `by`, by default the recipe's target.

        A number is cut where `check.classes` of the recipe says.

        Raises:
            InputError: no such column, rows without a class, or a number with nothing to cut it by.
        """
        name, rows = self.by or self.recipe.target, self.release.rows
        if name not in rows.column_names:
            words = [field.name for field in rows.schema if pa.types.is_string(field.type)]
            raise InputError(f"the release has no column {name!r}", where="--by", fix=", ".join(words))
        values = rows.select([name])[name]
        if values.null_count:
            raise InputError(
                f"{name} is null in {values.null_count} of {len(rows)} rows",
                where="--by",
                fix="choose another column, or leave those rows out of the release (`where:`)",
            )
        if pa.types.is_string(values.type):
            return values
        thresholds = self.recipe.check.classes.get(name)
        if thresholds is None:
            raise InputError(
                f"{name} is a number, and the recipe's check.classes does not say where to cut it",
                where="--by",
                fix="choose a column of words, such as --by subtype",
            )
        cut = cut_values(np.asarray(values.to_numpy(), float), thresholds, class_names(len(thresholds)))
        return pa.chunked_array([pa.array(cut.tolist(), pa.string())])


class Exporter(Protocol):
    """An export module."""

    HAS_IMAGES: bool
    HAS_CLASSES: bool

    def export(self, job: Job, folder: Path) -> None: ...


def check_names(rows: Rows, splits: tuple[str, ...]) -> None:
    """Refuse rows whose names would lead a file out of its folder.

    Raises:
        IntegrityError: naming the first ones.
    """
    bad: list[str] = []
    for part in read_parts(rows, ["sample_id", "split"]):
        plain = pc.match_substring_regex(part["sample_id"], "^[0-9a-f]{16}-[0-9]+$")
        plain = pc.and_(plain, pc.is_in(part["split"], pa.array(splits)))
        bad += part["sample_id"].filter(pc.invert(plain)).to_pylist()
    if bad:
        named = ", ".join(repr(each) for each in bad[:_SHOWN])
        raise IntegrityError(f"{len(bad)} rows have names that `affectdata` does not give: {named}")
