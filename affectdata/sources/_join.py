"""Rating rows and pictures, brought together: every row is a pair, a reject or one of several equal rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeAlias

from affectdata.records import Finding, Reason, Reject


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `table`: `key` as the table has it, `picture` the name to look for, `cells` by column."""

    table: str
    key: str
    picture: str
    cells: Mapping[str, str]

    @property
    def where(self) -> str:
        """Table and key, for a person and for rejects."""
        return f"{self.table}#{self.key}"


Pool: TypeAlias = Callable[[list[Row]], Row | None]


def join_rows(
    rows: Iterable[Row],
    pictures: Iterable[str],
    fold: Callable[[str], str],
    pool: Pool | None = None,
) -> Iterator[tuple[Row, str] | Reject | Finding]:
    """Yield each row with its picture's path.

    Names are compared after `fold`, then exactly where that finds several pictures. Equal rows for one
    picture count once, with a finding; rows that differ are one if `pool` makes one of them, else they reject
    the picture.
    """
    index: dict[str, list[str]] = {}
    for path in pictures:
        index.setdefault(fold(path), []).append(path)
    by_target: dict[str, tuple[list[str], list[Row]]] = {}
    for row in rows:
        found = _candidates(row, index.get(fold(row.picture), []))
        target = found[0] if len(found) == 1 else row.where
        by_target.setdefault(target, (found, []))[1].append(row)
    for found, same in by_target.values():
        yield from _pair(found, same, pool)


def _candidates(row: Row, found: list[str]) -> list[str]:
    exact = [path for path in found if row.picture in (path, PurePosixPath(path).stem)]
    return exact if len(exact) == 1 else found


def _pair(
    found: list[str], rows: list[Row], pool: Pool | None
) -> Iterator[tuple[Row, str] | Reject | Finding]:
    first = rows[0]
    if not found:
        yield Reject(first.where, Reason.MISSING_IMAGE, f"rated, but there is no picture {first.picture!r}")
    elif len(found) > 1:
        detail = f"which picture was rated is unknown: {', '.join(sorted(found))}"
        yield Reject(first.where, Reason.BAD_NAME, detail)
    elif any(row.cells != first.cells for row in rows):
        pooled = pool(rows) if pool else None
        detail = f"{len(rows)} rows for it, which differ: {', '.join(row.where for row in rows)}"
        if pooled is None:
            yield Reject(found[0], Reason.CONFLICTING_RATING, detail)
        else:
            yield Finding("averaged", f"{found[0]}: {detail}; their means are taken")
            yield pooled, found[0]
    else:
        if len(rows) > 1:
            yield Finding("repeated_row", f"{first.where} is there {len(rows)} times, word for word")
        yield first, found[0]
