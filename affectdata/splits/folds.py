"""Deal folds for cross-validation: groups stay whole, strata come out level, folds that are there stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, ManifestError
from affectdata.hashing import hash_ranks
from affectdata.schema import FOLD
from affectdata.splits.seeds import id_heads, id_keys, id_ranks
from affectdata.store.parquet import in_one_piece

_FREE = -1
_READ = ("image_id", "group_id", FOLD.name)


def deal_folds(
    group: np.ndarray, levels: Sequence[np.ndarray], seed: int, n_folds: int, kept: np.ndarray | None = None
) -> np.ndarray:
    """Return a fold per row, 0 … n_folds - 1, for cross-validation: groups stay whole, strata are level.

    `levels` are integer codes per row, from coarse to fine (bin, then cell). The largest groups are dealt
    first, equal ones by a hash of seed and group, each to the fold that has the fewest rows of its finest
    stratum (that of the group's first row), then of the coarser ones, then the fewest rows. With fewer groups
    than folds there are as many folds as groups. `kept` is the fold that a row has already, -1 for none; its
    group joins it.
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
    # From fine to coarse, as plain numbers: looked up group by group, these are the faster ones.
    whole = np.zeros(len(code), np.int64)
    kinds = [np.unique(each[first], return_inverse=True)[1].tolist() for each in reversed([whole, *levels])]
    held = [[[0] * n_folds for _ in range(max(kind, default=0) + 1)] for kind in kinds]
    order = np.lexsort((ranks, -sizes, fold == _FREE)).tolist()  # those that have a fold come first
    dealt, n_rows = fold.tolist(), sizes.tolist()
    for each in order:
        rows = [counts[kind[each]] for counts, kind in zip(held, kinds, strict=True)]
        if dealt[each] == _FREE:
            in_fold = list(zip(*rows, strict=True))
            dealt[each] = in_fold.index(min(in_fold))
        for counts in rows:
            counts[dealt[each]] += n_rows[each]
    return np.asarray(np.array(dealt, np.int64)[code])


def assign_folds(table: pa.Table, levels: Sequence[np.ndarray], n_folds: int, seed: int) -> pa.Table:
    """Fill `fold` (added if need be): train is dealt into `n_folds`, the rows of val and test have none.

    Rows of train that have a fold keep it, and their group joins it. `levels` as in `deal_folds`.

    Raises:
        IntegrityError: a group has rows in two folds already.
        ManifestError: a row has a fold that is none of `n_folds`, or there are fewer groups than folds.
    """
    order = pc.sort_indices(table["image_id"]).to_numpy()
    train = order[pc.equal(table["split"], "train").to_numpy()[order]]
    rows = table.select([name for name in _READ if name in table.column_names]).take(pa.array(train))
    groups = in_one_piece(rows["group_id"]).dictionary_encode()
    if len(groups.dictionary) < n_folds:
        raise ManifestError(
            f"{len(groups.dictionary)} groups of images in train make no {n_folds} folds",
            where="split.folds",
            fix="ask for fewer folds",
        )
    code, ranks = groups.indices.to_numpy(), id_ranks(seed, id_keys(id_heads(groups.dictionary)))
    fold = np.full(len(table), _FREE)
    fold[train] = _deal(code, ranks, [level[train] for level in levels], n_folds, _kept(rows, code, n_folds))
    values = pa.array(fold, FOLD.type, mask=fold == _FREE)
    return put_folds(table, values)


def put_folds(table: pa.Table, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the table with these values as its column `fold`, which stands behind `split`."""
    if FOLD.name in table.column_names:
        table = table.drop_columns([FOLD.name])
    return table.add_column(table.column_names.index("split") + 1, FOLD, values)


def _kept(table: pa.Table, code: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the fold of each row that has one, -1 for the others, after a look at what they say."""
    if FOLD.name not in table.column_names:
        return np.full(len(table), _FREE)
    known = np.flatnonzero(pc.is_valid(table[FOLD.name]).to_numpy())
    fold = table[FOLD.name].fill_null(_FREE).to_numpy()

    def say(row: int) -> str:
        return f"{table['image_id'][row].as_py()[:16]} is in fold {fold[row]}"

    strange = known[(fold[known] < 0) | (fold[known] >= n_folds)]
    if len(strange):
        raise ManifestError(
            f"{say(int(strange[0]))}, and {n_folds} folds are asked for",
            where="column fold",
            fix="ask for as many folds as the manifest has, or empty the column",
        )
    first = np.zeros(int(code.max(initial=0)) + 1, np.int64)
    first[code[known[::-1]]] = known[::-1]
    other = known[fold[known] != fold[first[code[known]]]]
    if len(other):
        raise IntegrityError(
            f"one group is in two folds: {say(int(first[code[other[0]]]))}, {say(int(other[0]))}",
            where="column fold, of images that must stay together (group_id)",
            fix="correct the fold of one of them",
        )
    return np.asarray(fold)
