"""Deal folds for cross-validation: groups stay whole, strata are balanced, existing folds are kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, ManifestError
from affectdata.hashing import hash_ranks
from affectdata.schema import FOLD
from affectdata.splits.seeds import id_heads, id_keys, id_ranks
from affectdata.store.chunks import as_one_array

_FREE = -1
_READ = ("image_id", "group_id", FOLD.name)


def deal_folds(
    group: np.ndarray, levels: Sequence[np.ndarray], seed: int, n_folds: int, kept: np.ndarray | None = None
) -> np.ndarray:
    """Return a fold per row, 0 … n_folds - 1, for cross-validation: groups stay whole, strata are balanced.

    `levels` are integer codes per row, from coarse to fine (bin, then cell). The largest groups are dealt
    first, equal ones in the order of a hash of seed and group, each to the fold with the fewest rows of its
    finest stratum (that of the group's first row), then of the coarser ones, then the fewest rows. With fewer
    groups than folds there are as many folds as groups. `kept` is the fold that a row already has, -1 for
    none; its whole group gets that fold.
    """
    names, code = np.unique(group, return_inverse=True)
    return _deal(
        code, hash_ranks(seed, names), levels, n_folds, np.full(len(code), _FREE) if kept is None else kept
    )


def _deal(
    code: np.ndarray, ranks: np.ndarray, levels: Sequence[np.ndarray], n_folds: int, kept: np.ndarray
) -> np.ndarray:
    """Deal groups by their `ranks`; `code` is the group of each row."""
    sizes = np.bincount(code, minlength=len(ranks))
    first = np.empty(len(ranks), np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]
    fold = np.full(len(ranks), _FREE)
    fold[code[kept != _FREE]] = kept[kept != _FREE]
    n_folds = max(min(n_folds, len(ranks)), int(fold.max(initial=_FREE)) + 1)
    # From fine to coarse, as Python integers, which are faster to look up one by one.
    whole = np.zeros(len(code), np.int64)
    kinds = [np.unique(level[first], return_inverse=True)[1].tolist() for level in reversed([whole, *levels])]
    held = [[[0] * n_folds for _ in range(max(kind, default=0) + 1)] for kind in kinds]
    order = np.lexsort((ranks, -sizes, fold == _FREE)).tolist()  # groups that have a fold come first
    dealt, n_rows = fold.tolist(), sizes.tolist()
    for group in order:
        rows = [counts[kind[group]] for counts, kind in zip(held, kinds, strict=True)]
        if dealt[group] == _FREE:
            in_fold = list(zip(*rows, strict=True))
            dealt[group] = in_fold.index(min(in_fold))
        for counts in rows:
            counts[dealt[group]] += n_rows[group]
    return np.asarray(np.array(dealt, np.int64)[code])


def assign_folds(table: pa.Table, levels: Sequence[np.ndarray], n_folds: int, seed: int) -> pa.Table:
    """Fill `fold`, adding the column if it is missing: train is dealt into `n_folds`, val and test get null.

    Train rows that have a fold keep it, and their group gets it. `levels` as in `deal_folds`.

    Raises:
        IntegrityError: a group already has rows in two folds.
        ManifestError: a row has a fold outside 0 … n_folds - 1, or there are fewer groups than folds.
    """
    order = pc.sort_indices(table["image_id"]).to_numpy()
    train = order[pc.equal(table["split"], "train").to_numpy()[order]]
    rows = table.select([name for name in _READ if name in table.column_names]).take(pa.array(train))
    groups = as_one_array(rows["group_id"]).dictionary_encode()
    if len(groups.dictionary) < n_folds:
        raise ManifestError(
            f"cannot make {n_folds} folds of {len(groups.dictionary)} groups of train images",
            where="split.folds",
            fix="set fewer folds",
        )
    code, ranks = groups.indices.to_numpy(), id_ranks(seed, id_keys(id_heads(groups.dictionary)))
    fold = np.full(len(table), _FREE)
    fold[train] = _deal(code, ranks, [level[train] for level in levels], n_folds, _kept(rows, code, n_folds))
    values = pa.array(fold, FOLD.type, mask=fold == _FREE)
    return put_folds(table, values)


def put_folds(table: pa.Table, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the table with these values as column `fold`, placed after `split`."""
    if FOLD.name in table.column_names:
        table = table.drop_columns([FOLD.name])
    return table.add_column(table.column_names.index("split") + 1, FOLD, values)


def _kept(table: pa.Table, code: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the fold of each row, -1 for none, after checking them against `n_folds` and the groups."""
    if FOLD.name not in table.column_names:
        return np.full(len(table), _FREE)
    known = np.flatnonzero(pc.is_valid(table[FOLD.name]).to_numpy())
    fold = table[FOLD.name].fill_null(_FREE).to_numpy()

    def describe(row: int) -> str:
        return f"{table['image_id'][row].as_py()[:16]} is in fold {fold[row]}"

    outside = known[(fold[known] < 0) | (fold[known] >= n_folds)]
    if len(outside):
        raise ManifestError(
            f"{describe(int(outside[0]))}, but split.folds is {n_folds}",
            where="column fold",
            fix="set split.folds to the number of folds in the manifest, or clear the column",
        )
    first = np.zeros(int(code.max(initial=0)) + 1, np.int64)
    first[code[known[::-1]]] = known[::-1]
    differing = known[fold[known] != fold[first[code[known]]]]
    if len(differing):
        pair = (int(first[code[differing[0]]]), int(differing[0]))
        raise IntegrityError(
            f"one group is in two folds: {', '.join(map(describe, pair))}",
            where="column fold, of images that must stay together (group_id)",
            fix="correct the fold of one of them",
        )
    return np.asarray(fold)
