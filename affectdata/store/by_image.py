"""Rows of a release grouped by image: the rows of one image are consecutive, the original first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def iter_complete_images(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Re-chunk rows so that no image (`image_id`) is split across chunks; no chunk is empty."""
    held: pa.Table | None = None
    for part in parts:
        held = part if held is None else pa.concat_tables([held, part])
        if not len(held):
            continue
        held = held.combine_chunks()
        is_earlier = pc.not_equal(held["image_id"], held["image_id"][-1]).to_numpy()
        cut = int(np.flatnonzero(is_earlier)[-1]) + 1 if is_earlier.any() else 0
        if cut:
            yield held.slice(0, cut)
        held = held.slice(cut)
    if held is not None and len(held):
        yield held


def first_rows(part: pa.Table) -> np.ndarray:
    """Return for every row the index of the first row of its image; rows of an image are consecutive."""
    ids = part["image_id"].combine_chunks()
    new = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.append(len(ids) > 0, new))
    return np.repeat(starts, np.diff(np.append(starts, len(ids))))
