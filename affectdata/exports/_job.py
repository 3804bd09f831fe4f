"""The interface of an export module. To add a format, write one module in this folder with:

HAS_IMAGES           whether it contains images, whose terms may forbid redistribution
HAS_CLASSES          whether its images have classes, which `--by` can take from another column
export(job, folder)  write the release into an empty folder: equal bytes for equal releases, bounded memory
SPLIT_FILES          optional: file pattern of a `{split}`, for the README.md that Hugging Face reads
features(job)        optional: features of a record for Hugging Face, if they cannot be inferred from a part
notes(job)           optional: Markdown lines for README.md on how to load it

After `export` returns, `README.md` with the terms is added and the folder is renamed to its final name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import tee
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import InputError, IntegrityError
from affectdata.recipe.recipe import Recipe
from affectdata.records import count_text
from affectdata.release.classes import Classes, find_classes
from affectdata.release.images import Read
from affectdata.release.release import Release
from affectdata.store.parquet import Rows, read_parts
from affectdata.workers import THREADS, map_ordered

_BATCH = 24  # images per worker task
_MAX_SHOWN = 3


@dataclass(frozen=True)
class Job:
    """A valid release, the reader of its images, and the column of classes (`by`)."""

    release: Release
    recipe: Recipe
    read: Read | None
    by: str | None = None
    workers: int = 1
    engine: str = THREADS
    progress: Callable[[int, int], None] | None = None

    def images(self, parts: Iterable[pa.Table]) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Yield each row with the bytes of its image, in order, with a few batches in memory.

        Raises:
            IntegrityError: an image differs from the released one.
        """
        if self.read is None:
            raise TypeError("an export module needs HAS_IMAGES = True to read images")
        done = 0
        slices = (part.slice(start, _BATCH) for part in parts for start in range(0, len(part), _BATCH))
        batches, to_read = tee(slices)
        read = map_ordered(self.read, to_read, self.workers, self.engine)
        for batch, images in zip(batches, read, strict=True):
            yield from zip(batch.to_pylist(), images, strict=True)
            done += len(batch)
            if self.progress:
                self.progress(done, len(self.release.rows))

    def classes(self) -> Classes:
        """Return the class of every row (`release.classes`), in the column `by` or the recipe's target.

        Raises:
            InputError: no such column, rows without a class, or a numeric column without thresholds.
        """
        return find_classes(self.release.rows, self.recipe, self.by).require_all()

    @cached_property
    def known_classes(self) -> Classes | None:
        """The same, also with rows without a class; None if the target is not a class and `by` is not given.

        Raises:
            InputError: `by` names a column that has no classes.
        """
        try:
            return find_classes(self.release.rows, self.recipe, self.by)
        except InputError:
            if self.by is not None:
                raise
            return None


class Exporter(Protocol):
    """An export module."""

    HAS_IMAGES: bool
    HAS_CLASSES: bool

    def export(self, job: Job, folder: Path) -> None: ...


def check_names(rows: Rows, splits: tuple[str, ...]) -> None:
    """Validate the names in rows, so that no file is written outside its folder.

    Raises:
        IntegrityError: lists the first invalid names.
    """
    invalid: list[str] = []
    for part in read_parts(rows, ["sample_id", "split"]):
        valid = pc.match_substring_regex(part["sample_id"], "^[0-9a-f]{16}-[0-9]+$")
        valid = pc.and_(valid, pc.is_in(part["split"], pa.array(splits)))
        invalid += part["sample_id"].filter(pc.invert(valid)).to_pylist()
    if invalid:
        listed = ", ".join(map(repr, invalid[:_MAX_SHOWN]))
        raise IntegrityError(
            f"{count_text(len(invalid), 'row', 'have')} an invalid sample_id or split: {listed}"
        )
