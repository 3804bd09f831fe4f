"""Digests of a source's ratings, per subtype and column: they show whether a table has the published ratings.

In: rows with `source_id`, `subtype` and rating columns of the manifest. Out: a `RatingDigest` per subtype and
column that has values. No rating can be read from them; number and mean are what papers print.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pyarrow as pa

from affectdata.hashing import file_hash
from affectdata.records import RATINGS
from affectdata.store.sealed import read_sealed_csv, write_sealed_csv

RATED = tuple(f"{name}{part}" for name in RATINGS for part in ("_raw", "_sd", "_n"))  # columns of a manifest
FIX = "install the package again"  # indexes come with it
_DIGITS = 16  # of a digest, hexadecimal


class Value(NamedTuple):
    """A value of a rating column, with the key and the subtype of its row."""

    key: str
    subtype: str
    value: float


Series: TypeAlias = list[Value]


@dataclass(frozen=True, slots=True)
class RatingDigest:
    """The values of one column in one subtype, in the natural order of their keys (`I2` before `I10`).

    `rows` is a digest of keys and values, `inner` the same without the first and the last row, so that it can
    be found in a shifted table; `values` is a digest of the sorted values. `heads` are digests of the first
    values, as many as another subtype has rows, so that they can be found there; by number.
    """

    subtype: str
    column: str
    n: int
    mean: float
    rows: str
    inner: str
    values: str
    heads: Mapping[int, str]


_COLUMNS = [field.name for field in fields(RatingDigest)]


def read_series(rows: pa.Table) -> dict[str, Series]:
    """Return the values of each rating column that has any, in the natural order of their keys."""
    keys = rows["source_id"].to_pylist()
    rows = rows.take(sorted(range(len(keys)), key=lambda row: _natural(keys[row])))
    keys, subtypes = rows["source_id"].to_pylist(), rows["subtype"].fill_null("").to_pylist()
    return {
        column: [
            Value(*row)
            for row in zip(keys, subtypes, rows[column].to_pylist(), strict=True)
            if row[2] is not None
        ]
        for column in RATED
        if rows[column].null_count < len(rows)
    }


def by_subtype(series: Series) -> dict[str, Series]:
    """Return the values of each subtype, in their order."""
    parts = defaultdict(list)
    for value in series:
        parts[value.subtype].append(value)
    return parts


def digest_ratings(rows: pa.Table) -> list[RatingDigest]:
    """Return the digests of all columns with values, by subtype."""
    digests = []
    for column, series in read_series(rows).items():
        parts = by_subtype(series)
        sizes = sorted({len(part) for part in parts.values()})
        digests += [_digest_part(column, part, sizes) for part in parts.values()]
    return sorted(digests, key=lambda digest: (digest.subtype, RATED.index(digest.column)))


def _digest_part(column: str, part: Series, sizes: list[int]) -> RatingDigest:
    heads = {n: digest_values(part[:n]) for n in sizes if n <= len(part)}
    values = digest_values(sorted(part, key=lambda row: row.value))
    inner = digest_rows(part[1:-1])
    return RatingDigest(
        part[0].subtype, column, len(part), mean_of(part), digest_rows(part), inner, values, heads
    )


def mean_of(part: Series) -> float:
    """Return the mean of values, rounded to two decimals."""
    return round(sum(row.value for row in part) / len(part), 2)


def digest_rows(part: Series) -> str:
    """Return the digest of keys and values."""
    return _digest(f"{row.key}\t{_spell(row.value)}" for row in part)


def digest_values(part: Series) -> str:
    """Return the digest of the values alone, in their order."""
    return _digest(_spell(row.value) for row in part)


def read_digests(path: Path) -> list[RatingDigest]:
    """Read digests; none if there is no such file."""
    if not path.is_file():
        return []
    return [
        RatingDigest(
            *(row["subtype"], row["column"], int(row["n"]), float(row["mean"])),
            *(row["rows"], row["inner"], row["values"]),
            {int(n): digest for n, digest in (head.split(":") for head in row["heads"].split())},
        )
        for row in read_sealed_csv(path, _COLUMNS, FIX)
    ]


def write_digests(digests: Iterable[RatingDigest], origin: str, path: Path) -> None:
    """Write digests; `origin` is one line on where the ratings come from."""
    rows = []
    for digest in digests:
        *cells, heads = (getattr(digest, column) for column in _COLUMNS)
        rows.append([*cells, " ".join(f"{n}:{head}" for n, head in heads.items())])
    write_sealed_csv(path, origin, _COLUMNS, rows)


def _natural(key: str) -> list[str | int]:
    parts = re.split(r"(\d+)", key)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _spell(value: float) -> str:
    return f"{round(value, 6) + 0.0:.6f}"  # + 0.0: no negative zero


def _digest(lines: Iterable[str]) -> str:
    return file_hash("\n".join(lines).encode())[:_DIGITS]
