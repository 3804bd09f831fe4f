"""The images of a data set for check_power.py, and what the rules see of them, unchanged and changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from _power import KeptFeatures

from affectdata.check.marks import SIDE_PX, measure_marks
from affectdata.check.shortcuts import LOOKS
from affectdata.images.decode import decode
from affectdata.manifest.manifest import Images
from affectdata.train.images import crop_square

Change = Callable[[np.ndarray], np.ndarray]


_BATCH = 32


_N_CHANGED = 120


@dataclass(frozen=True, eq=False)
class Seen:
    """What the rules see of every image: patterns (n, pixels) and their squares, scalars, features."""

    patterns: np.ndarray
    squares: np.ndarray
    scalars: np.ndarray
    features: np.ndarray


@dataclass(frozen=True, eq=False)
class KeptImages:
    """The images of a data set, and what was measured on them unchanged."""

    kept: KeptFeatures
    images: Images

    def read(self, row: int) -> np.ndarray:
        """Return the pixels of an original, as stored."""
        entry = self.kept.originals.table.select(["source", "path", "image_id"]).slice(row, 1).to_pylist()[0]
        return decode(self.images.read(entry["source"], entry["path"], entry["image_id"])).rgb

    @cached_property
    def plain(self) -> Seen:
        """Every image unchanged."""
        return self._see(lambda rgb: rgb, self.kept.plain.features)

    def marked(self, change: Change) -> Seen:
        """Return what is seen of every image after a change."""
        return self._see(change, None)

    def _see(self, change: Change, features: np.ndarray | None) -> Seen:
        """Read every image once; without `features` pass it through the network."""
        n = len(self.kept.plain)
        patterns, scalars, found = np.empty((n, 2 * SIDE_PX**2), np.float32), [], []
        for rows in np.array_split(np.arange(n), -(-n // _BATCH)):
            changed = [change(self.read(row)) for row in rows]
            marks = [measure_marks(each) for each in changed]
            patterns[rows] = [each.patterns.ravel() for each in marks]
            scalars += [each.scalars for each in marks]
            found += [] if features is not None else [self.features_of(changed)]
        features = np.concatenate(found) if features is None else features
        return Seen(patterns, patterns**2, np.array(scalars), features)

    @cached_property
    def looks(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of some originals, and their features unchanged and with each look."""
        rows = np.sort(np.random.default_rng(0).permutation(len(self.kept.plain))[:_N_CHANGED])
        squares = [crop_square(self.read(row), self.kept.backbone.normalisation.size_px) for row in rows]
        changes = [lambda rgb: rgb, *LOOKS.values()]
        return rows, np.stack([self.features_of([change(each) for each in squares]) for change in changes])

    def features_of(self, images: list[np.ndarray]) -> np.ndarray:
        size = self.kept.backbone.normalisation.size_px
        return self.kept.backbone.features(np.stack([crop_square(each, size) for each in images]))


def read_images(kept: KeptFeatures) -> KeptImages:
    """Return the images of a data set, at AFFECTDATA_GAPED_ROOT or AFFECTDATA_OASIS_ROOT."""
    root = os.environ[f"AFFECTDATA_{kept.name.upper()}_ROOT"]
    return KeptImages(kept, Images({kept.name: Path(root)}))
