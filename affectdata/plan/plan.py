"""The plan: a table with one row per image to release, and the counts per bin and cell.

A plan is a pure function of the manifests' rows and the recipe; nothing here opens an image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.schema import LEDGER
from affectdata.splits.seeds import HEAD
from affectdata.store.chunks import as_one_array

_SHORT_ENDING = 2  # bytes: a dash and a digit


@dataclass(frozen=True, slots=True)
class CellCount:
    """One cell of the train split: its rows before and after balancing.

    `n_eff` is the effective sample size (Σc)² / Σc² over the copies c of each image (Kish 1965).
    """

    bin: str
    stratum: str
    cell: str
    n_before: int
    n_after: int
    n_eff: float


@dataclass(frozen=True, slots=True)
class BinCount:
    """One bin of the train split: its own images before balancing, `n_filled` from other sources, rows after.

    `shortfall` is the number of rows missing to `target`, because of the cap on copies.
    """

    bin: str
    target: int
    n_before: int
    n_filled: int
    n_after: int
    shortfall: int


@dataclass(frozen=True, slots=True)
class SplitDistance:
    """Total variation distance (0–1) of each part's distribution from the whole: over bins, over cells."""

    bin: dict[str, float]
    cell: dict[str, float]


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """Rows per split, and the distance of each from the whole; `folds` has the same of the folds."""

    rows: dict[str, int]
    distance: SplitDistance
    folds: SplitSummary | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as plain data; without folds there is no key for them."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Plan:
    """`table` is sorted by image_id and copy; `bins` and `cells` are in the order of the bins.

    The table has the columns of schema.PLAN; strings are dictionary-encoded, so that each id is stored once.
    `held_out` has images that are not in the table and were val or test before, in the columns of a ledger.
    """

    table: pa.Table
    bins: list[BinCount]
    cells: list[CellCount]
    held_out: pa.Table = field(default_factory=LEDGER.empty_table)

    @property
    def rows(self) -> pa.Array:
        """The row number of each output image in the table that was planned."""
        return as_one_array(self.table["image_id"]).indices

    def summary(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        return {
            "rows": self.table.num_rows,
            "bins": [asdict(bin_) for bin_ in self.bins],
            "cells": [asdict(cell) for cell in self.cells],
            "imbalance_ratio": self._before_after(imbalance_ratio),
            "entropy": self._before_after(evenness),
        }

    def weighted(self) -> dict[str, float]:
        """Return for each bin how many rows of train its sampling weights amount to; {} without weights.

        The weights have mean 1 over train, so that the sum over the bins is the number of rows.
        """
        train = self.table.filter(pc.equal(self.table["split"], "train"))
        weights = train["weight"]
        if not len(train) or pc.all(pc.equal(weights, 1.0)).as_py():
            return {}
        cells = train["cell"].cast(pa.string())
        sums = pa.table({"cell": cells, "weight": weights}).group_by("cell").aggregate([("weight", "sum")])
        by_cell = dict(zip(sums["cell"].to_pylist(), sums["weight_sum"].to_pylist(), strict=True))
        return {
            bin_.bin: sum(by_cell.get(cell.cell, 0.0) for cell in self.cells if cell.bin == bin_.bin)
            for bin_ in self.bins
        }

    def worth(self) -> dict[str, dict[str, float | None]]:
        """Return imbalance and entropy of the bins before, after, and with sampling weights if any."""
        summary, weighted = self.summary(), list(self.weighted().values())
        found = {name: dict(summary[name]) for name in ("imbalance_ratio", "entropy")}
        if weighted:
            found["imbalance_ratio"]["weighted"] = imbalance_ratio(weighted)
            found["entropy"]["weighted"] = evenness(weighted)
        return found

    def _before_after(self, measure: Callable[[list[int]], float | None]) -> dict[str, float | None]:
        before, after = [bin_.n_before for bin_ in self.bins], [bin_.n_after for bin_ in self.bins]
        return {"before": measure(before), "after": measure(after)}


def evenness(counts: Sequence[float]) -> float:
    """Return the entropy of the bins divided by its maximum (Pielou's evenness), 0–1; 1 is balanced."""
    total = sum(counts)
    if len(counts) < 2 or not total:
        return 1.0
    shares = [count / total for count in counts if count]
    return round(-sum(share * math.log(share) for share in shares) / math.log(len(counts)), 6)


def imbalance_ratio(counts: Sequence[float]) -> float | None:
    """Return the largest count divided by the smallest one above zero; None if all are zero."""
    nonzero = [count for count in counts if count]
    return round(max(nonzero) / min(nonzero), 6) if nonzero else None


def effective_size(copies: Sequence[int] | np.ndarray) -> float:
    """Return (Σc)² / Σc² over the number of copies of each image; 0 if there is none."""
    counts = np.asarray(copies, np.int64)
    return effective_size_of_sums(int(counts.sum()), int((counts**2).sum()))


def effective_size_of_sums(total: int, squares: int) -> float:
    """Return the effective size from Σc and Σc²."""
    return round(total**2 / squares, 6) if squares else 0.0


def sample_ids(heads: np.ndarray, copies: np.ndarray) -> pa.Array:
    """Return the keys of output images: the first digits of the image id (`id_heads`), "-", the copy."""
    ends = np.array([f"-{copy}" for copy in range(int(copies.max(initial=0)) + 1)], "S")
    keys = np.empty(len(heads), [("head", heads.dtype), ("end", ends.dtype)])
    keys["head"], keys["end"] = heads, ends.take(copies)
    text = keys.view(np.uint8)
    data = text if ends.itemsize == _SHORT_ENDING else text[text > 0]  # numpy pads shorter strings with zeros

    lengths = (HEAD + np.strings.str_len(ends)).astype(np.int32)
    offsets = np.zeros(len(heads) + 1, np.int32)
    np.cumsum(lengths.take(copies), dtype=np.int32, out=offsets[1:])
    return pa.StringArray.from_buffers(len(heads), pa.py_buffer(offsets), pa.py_buffer(data))
