"""Read the files of the originals of a check: as the source stores them, else as released."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.check.image_pool import Originals
from affectdata.manifest.manifest import Images
from affectdata.recipe.recipe import Recipe
from affectdata.release.images import Read, released_reader
from affectdata.release.release import Release


@dataclass(frozen=True, eq=False)
class ReadOriginal:
    """Read the file of a row of `originals`; without `images`, the released one, resized and re-encoded."""

    release: Release
    recipe: Recipe
    originals: Originals
    images: Images | None

    def __call__(self, row: int) -> bytes:
        names = ["source", "path", "image_id"]
        (one,) = self.originals.table.select(names).slice(row, 1).to_pylist()
        if self.images:
            return self.images.read(one["source"], one["path"], one["image_id"])
        return self._read_released(
            self._released.filter(pc.equal(self._released["image_id"], one["image_id"]))
        )[0]

    @cached_property
    def _released(self) -> pa.Table:
        return self.release.table.filter(pc.equal(self.release.table["copy"], 0))

    @cached_property
    def _read_released(self) -> Read:
        sources = self.release.sources_to_render(self.images)
        return released_reader(self.release.path, self.recipe, sources)
