"""Deal folds for cross-validation: groups stay whole, strata come out level, folds that are there stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import IntegrityError, ManifestError
from affectdata.hashing import hash_ranks
from affectdata.schema import FOLD

_FREE = -1


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
    names, first, code, sizes = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    kinds = [
        np.zeros(len(names), np.int64),
        *(np.unique(level[first], return_inverse=True)[1] for level in levels),
    ]
    fold = np.full(len(names), _FREE)
    if kept is not None:
        fold[code[kept != _FREE]] = kept[kept != _FREE]
    n_folds = max(min(n_folds, len(names)), int(fold.max(initial=_FREE)) + 1)
    held = [np.zeros((int(kind.max(initial=0)) + 1, n_folds), np.int64) for kind in kinds]
    order = np.lexsort((hash_ranks(seed, names), -sizes, fold == _FREE))  # those that have a fold come first
    for each in order:
        if fold[each] == _FREE:
            fold[each] = np.lexsort([rows[kind[each]] for rows, kind in zip(held, kinds, strict=True)])[0]
        for rows, kind in zip(held, kinds, strict=True):
            rows[kind[each], fold[each]] += sizes[each]
    return np.asarray(fold[code])


def assign_folds(table: pa.Table, levels: Sequence[np.ndarray], n_folds: int, seed: int) -> pa.Table:
    """Fill `fold` (added if need be): train is dealt into `n_folds`, the rows of val and test have none.

    Rows of train that have a fold keep it, and their group joins it. `levels` as in `deal_folds`.

    Raises:
        IntegrityError: a group has rows in two folds already.
        ManifestError: a row has a fold that is none of `n_folds`, or there are fewer groups than folds.
    """
    order = np.argsort(np.array(table["image_id"].to_pylist(), str))
    train = order[np.array(table["split"].to_pylist())[order] == "train"]
    rows = table.take(pa.array(train))
    group = np.array(rows["group_id"].to_pylist())
    if len(np.unique(group)) < n_folds:
        raise ManifestError(
            f"{len(np.unique(group))} groups of pictures in train make no {n_folds} folds",
            where="split.folds",
            fix="ask for fewer folds",
        )
    fold = np.full(len(table), _FREE)
    fold[train] = deal_folds(group, [level[train] for level in levels], seed, n_folds, _kept(rows, n_folds))
    values = pa.array(fold, FOLD.type, mask=fold == _FREE)
    return put_folds(table, values)


def put_folds(table: pa.Table, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the table with these values as its column `fold`, which stands behind `split`."""
    if FOLD.name in table.column_names:
        table = table.drop_columns([FOLD.name])
    return table.add_column(table.column_names.index("split") + 1, FOLD, values)


def _kept(table: pa.Table, n_folds: int) -> np.ndarray:
    """Return the fold of each row that has one, -1 for the others, after a look at what they say."""
    if FOLD.name not in table.column_names:
        return np.full(len(table), _FREE)
    known = (
        table.select(["image_id", "group_id", FOLD.name]).filter(pc.is_valid(table[FOLD.name])).to_pylist()
    )
    seen: dict[str, dict[str, Any]] = {}
    for row in known:
        if not 0 <= row[FOLD.name] < n_folds:
            raise ManifestError(
                f"{row['image_id'][:16]} is in fold {row[FOLD.name]}, and {n_folds} folds are asked for",
                where="column fold",
                fix="ask for as many folds as the manifest has, or empty the column",
            )
        other = seen.setdefault(row["group_id"], row)
        if other[FOLD.name] != row[FOLD.name]:
            pair = (f"{each['image_id'][:16]} in fold {each[FOLD.name]}" for each in (other, row))
            raise IntegrityError(
                f"one group is in two folds: {', '.join(pair)}",
                where="column fold, of pictures that must stay together (group_id)",
                fix="correct the fold of one of them",
            )
    return np.asarray(table[FOLD.name].fill_null(_FREE).to_numpy())
