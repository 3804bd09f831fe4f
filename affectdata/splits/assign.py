"""Assign splits: groups stay together, strata keep their shares, existing splits are kept.

In: a manifest's rows with `image_id`, `group_id`, `split`. Out: the same rows with `split` filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, ManifestError
from affectdata.schema import FOLD
from affectdata.splits.folds import put_folds
from affectdata.splits.seeds import id_heads, id_keys, id_ranks
from affectdata.store.chunks import as_one_array

SPLITS = ("train", "val", "test")
_FREE = -1


def assign_splits(
    table: pa.Table, levels: Sequence[np.ndarray], fractions: Mapping[str, float], seed: int
) -> pa.Table:
    """Fill `split`: `fractions` gives the shares of val and test, the rest is train.

    `levels` are integer codes per row, from coarse to fine (bin, then cell); each code's rows are divided
    by `fractions` as closely as whole groups allow. Rows that have a split keep it, and their group gets it;
    they count towards the shares, so a test set that a source ships grows only if it is too small. The result
    depends on `seed` and the ids, not on the order of rows.

    Raises:
        IntegrityError: a group already has rows in two splits (`drop_conflicts` removes those in train).
        ManifestError: a row has an unknown split.
    """
    group_of = _group_codes(table)
    shares = np.array([1 - sum(fractions.values()), fractions.get("val", 0.0), fractions.get("test", 0.0)])
    side = _deal(table, group_of, levels, shares, seed, _kept(table, group_of))
    names = pa.array(SPLITS).take(pa.array(side))
    return table.set_column(table.column_names.index("split"), "split", names)


def _group_codes(table: pa.Table) -> np.ndarray:
    return np.unique(_group_keys(table), return_inverse=True)[1]


def _group_keys(table: pa.Table) -> np.ndarray:
    return id_keys(id_heads(table["group_id"]))


def _deal(
    table: pa.Table,
    group_of: np.ndarray,
    levels: Sequence[np.ndarray],
    shares: np.ndarray,
    seed: int,
    side: np.ndarray,
) -> np.ndarray:
    """Return a split code per row, by `shares`; rows that have one in `side` keep it, -1 marks free rows."""
    order = pc.sort_indices(table["image_id"]).to_numpy()
    state = _Shares([np.zeros(len(side), np.int64), *levels], shares)
    state.declare(np.flatnonzero(side != _FREE), side)
    ranks = id_ranks(seed, _group_keys(table))
    sizes = np.bincount(group_of, minlength=1)
    free = order[side[order] == _FREE]
    for rows in _by_group(free[sizes[group_of[free]] > 1], group_of, sizes, ranks):
        side[rows] = state.best(rows)
        state.place(rows, side)
    _share_out(free[sizes[group_of[free]] == 1], side, ranks, state)
    return side


class _Shares:
    """Target and actual numbers of rows per level, code and side (split)."""

    def __init__(self, levels: Sequence[np.ndarray], shares: np.ndarray) -> None:
        self.levels = levels
        self.open = np.flatnonzero(shares > 0)
        sizes = [np.bincount(level, minlength=1) for level in levels]
        self.target = [size[:, None] * shares for size in sizes]
        self.placed = [np.zeros((len(size), len(shares))) for size in sizes]

    def declare(self, rows: np.ndarray, side: np.ndarray) -> None:
        """Place rows that have a side; val and test stay open only for what the whole then lacks.

        What is lacking is divided over the codes below their share, in proportion to their deficits.
        """
        if not len(rows):
            return
        self.place(rows, side)
        left = self.target[0][0] - self.placed[0][0]  # the first level is the whole
        left[left < 0.5] = 0  # less than one row
        for target, placed in zip(self.target, self.placed, strict=True):
            lacking = np.maximum(target - placed, 0)
            part = left / np.maximum(lacking.sum(axis=0), left + (left == 0))
            target[:, 1:] = (placed + lacking * part)[:, 1:]
        self.open = self.open[(self.open == 0) | (left[self.open] > 0)]

    def place(self, rows: np.ndarray, side: np.ndarray) -> None:
        for level, placed in zip(self.levels, self.placed, strict=True):
            np.add.at(placed, (level[rows], side[rows]), 1)

    def best(self, rows: np.ndarray) -> int:
        """Return the side whose relative squared error, over all levels, grows least with `rows` added."""
        cost = np.zeros(len(self.open))
        for level, target, placed in zip(self.levels, self.target, self.placed, strict=True):
            codes, counts = np.unique(level[rows], return_counts=True)
            aim = target[codes][:, self.open]
            gap = placed[codes][:, self.open] - aim
            cost += ((counts[:, None] ** 2 + 2 * counts[:, None] * gap) / aim).sum(axis=0)
        return int(self.open[np.argmin(cost)])


def _kept(table: pa.Table, group_of: np.ndarray) -> np.ndarray:
    """Return the split code of each row or its group; -1 for free rows."""
    pair = _conflict(table, group_of)
    if pair:
        first, second = (f"{image_id[:16]} in {split}" for image_id, split in pair)
        raise IntegrityError(
            f"one group is in two splits: {first}, {second}",
            where="column split, of images that must stay together (group_id)",
            fix="correct the split of one of them, or remove the train rows with --on-conflict drop-train",
        )
    own = _codes(table)
    of_group = np.full(group_of.max(initial=-1) + 1, _FREE)
    known = own != _FREE
    of_group[group_of[known]] = own[known]
    return np.asarray(of_group[group_of])


def _codes(table: pa.Table) -> np.ndarray:
    """Return the code of each row's split, -1 for none."""
    unknown = sorted(set(table["split"].unique().drop_null().to_pylist()) - set(SPLITS))
    if unknown:
        raise ManifestError(
            f"unknown split {unknown[0]!r}", where="column split", fix=f"use one of {', '.join(SPLITS)}"
        )
    codes = pc.fill_null(pc.index_in(table["split"], pa.array(SPLITS)), _FREE)
    return np.asarray(codes.to_numpy(), np.int64)


def _conflict(table: pa.Table, group_of: np.ndarray) -> list[tuple[str, str]]:
    """Return two images (id, split) of one group in two splits; empty if there is no such group."""
    lowest, highest = _extremes(_codes(table), group_of)
    bad = np.flatnonzero(lowest < highest)
    if not len(bad):
        return []
    rows = table.select(["image_id", "split"]).filter(pa.array(group_of == bad[0])).to_pylist()
    by_split = {row["split"]: row["image_id"] for row in rows if row["split"]}
    return [(image_id, split) for split, image_id in by_split.items()][:2]


def _extremes(codes: np.ndarray, group_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and largest split code of every group, over its rows that have one."""
    n = group_of.max(initial=-1) + 1
    lowest, highest = np.full(n, len(SPLITS)), np.full(n, _FREE)
    known = codes != _FREE
    np.minimum.at(lowest, group_of[known], codes[known])
    np.maximum.at(highest, group_of[known], codes[known])
    return lowest, highest


def drop_conflicts(table: pa.Table) -> pa.Table:
    """Remove the train rows of groups that are also in val or test; never rows of val or test."""
    group_of, codes = _group_codes(table), _codes(table)
    _, highest = _extremes(codes, group_of)
    return table.filter(pa.array(~((codes == 0) & (highest[group_of] > 0))))


def adopt_splits(table: pa.Table, earlier: pa.Table) -> pa.Table:
    """Fill empty splits and folds by `image_id` from an earlier manifest or release."""
    seen = earlier.filter(pc.equal(earlier["copy"], 0)) if "copy" in earlier.column_names else earlier
    index = pc.index_in(table["image_id"], seen["image_id"].combine_chunks())
    split = pc.coalesce(table["split"], seen["split"].take(index))
    table = table.set_column(table.column_names.index("split"), "split", split)
    if FOLD.name not in seen.column_names:
        return table
    fold = seen[FOLD.name].take(index)
    return put_folds(table, pc.coalesce(table[FOLD.name], fold) if FOLD.name in table.column_names else fold)


def split_distance(codes: np.ndarray, part_of: pa.ChunkedArray) -> dict[str, float]:
    """Return the total variation distance (0–1) between the shares of `codes` in each part and in the whole.

    `part_of` is the part of each row: its split, or its fold.
    """
    parts = as_one_array(part_of).dictionary_encode()
    n_codes = int(codes.max(initial=0)) + 1
    counts = np.bincount(
        parts.indices.to_numpy() * n_codes + codes, minlength=len(parts.dictionary) * n_codes
    )
    counts = counts.reshape(-1, n_codes)
    whole = counts.sum(axis=0) / max(1, len(codes))
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    distances = (np.abs(shares - whole).sum(axis=1) / 2).tolist()
    return {
        str(name): round(distance, 6)
        for name, distance in sorted(zip(parts.dictionary.to_pylist(), distances, strict=True))
    }


def _by_group(
    rows: np.ndarray, group_of: np.ndarray, sizes: np.ndarray, ranks: np.ndarray
) -> list[np.ndarray]:
    """Collect rows by group, the largest groups first, equal ones in the order of their hash."""
    if not len(rows):
        return []
    rows = rows[np.lexsort((group_of[rows], ranks[rows], -sizes[group_of[rows]]))]
    starts = np.flatnonzero(np.diff(group_of[rows])) + 1
    return np.split(rows, starts)


def _share_out(rows: np.ndarray, side: np.ndarray, ranks: np.ndarray, state: _Shares) -> None:
    """Split the groups of one row, cell by cell; carry rounding remainders over to the next cell."""
    if not len(rows):
        return
    cells, target, placed = state.levels[-1], state.target[-1], state.placed[-1]
    rows = rows[np.lexsort((ranks[rows], cells[rows]))]
    codes, starts = np.unique(cells[rows], return_index=True)
    carry = np.zeros(target.shape[1])
    for code, members in zip(codes, np.split(rows, starts[1:]), strict=True):
        left = members
        for split in range(len(carry) - 1, 0, -1):
            exact = target[code, split] - placed[code, split] + carry[split]
            take = min(max(int(np.floor(exact + 0.5)), 0), len(left))
            carry[split] = exact - take
            side[left[:take]] = split
            left = left[take:]
        side[left] = 0
