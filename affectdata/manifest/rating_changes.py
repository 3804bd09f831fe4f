"""Compare the ratings of a tree with the digests in the index of its source, and say what differs.

The index has no ratings, so that a change is recognised by undoing it: shifted and reversed rows are
digested, and digests of other subtypes and columns are compared. Anything else differs in number or mean.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import pyarrow as pa

from affectdata.manifest.findings import list_examples
from affectdata.manifest.items import LABELS, Items
from affectdata.reading.indexes import Index
from affectdata.reading.protocol import ReadOptions, Source, read_source
from affectdata.reading.rating_digests import (
    RATED,
    RatingDigest,
    Series,
    by_subtype,
    digest_rows,
    digest_values,
    mean_of,
    read_series,
)
from affectdata.reading.tree import Tree
from affectdata.records import Finding, Scale

_COLUMNS = ["source_id", "subtype", *RATED]
_MOVES = {1: "shifted down by one row", -1: "shifted up by one row"}


def compare_ratings(
    plugin: Source, tree: Tree, options: ReadOptions, items: Items, index: Index, is_copy: bool
) -> Iterator[Finding]:
    """Compare all ratings of the tables, also of images that are missing, with the index.

    Where no image is known (not `is_copy`), a table with another number of rows is another table: no finding.
    """
    if not index.ratings:
        return
    rows = _rows_of(items)
    n_rows = Counter(subtype or "" for subtype in rows["subtype"].to_pylist())
    known = {(digest.subtype, digest.column): digest for digest in index.ratings}
    if any(0 < n_rows[digest.subtype] < digest.n for digest in index.ratings):
        if not is_copy:
            return
        names = (image.file for image in index.images if n_rows[image.subtype])
        with_all_images = Tree(tree.root, [*tree.others(), *names])
        every = Items(items.info)
        for item in read_source(plugin, with_all_images, options).items:
            every.add(item)
        rows = _rows_of(every)
    yield from find_changes(known, rows, items.info.scales)


def _rows_of(items: Items) -> pa.Table:
    parts = [LABELS.empty_table(), *items.labels.read(_COLUMNS)]
    return pa.concat_tables(part.select(_COLUMNS) for part in parts)


def find_changes(
    known: Mapping[tuple[str, str], RatingDigest], rows: pa.Table, scales: Mapping[str, Scale]
) -> Iterator[Finding]:
    """Report how many subtypes have the known ratings, and what differs in the others."""
    changes: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    subtypes, changed = {subtype or "" for subtype in rows["subtype"].unique().to_pylist()}, set()
    for column, series in read_series(rows).items():
        parts = by_subtype(series)
        for digest in (digest for digest in known.values() if digest.column == column):
            part = parts.get(digest.subtype, [])
            if digest.subtype in subtypes and digest_rows(part) != digest.rows:
                change, details = _explain(digest, part, series, known, scales)
                changes[change][digest.subtype].append(column + details)
                changed.add(digest.subtype)
    same = sorted(subtypes & {subtype for subtype, _ in known} - changed)
    n_known = len({subtype for subtype, _ in known})
    if same:
        text = f"ratings identical to the indexed ones in {len(same)} of {n_known} subtypes"
        yield Finding("ratings", text)
    for change, columns in changes.items():
        texts = [f"{subtype or 'all'} ({', '.join(names)})" for subtype, names in sorted(columns.items())]
        yield Finding(
            "ratings_differ",
            f"subtypes with ratings that differ from the indexed ones, {change}: {list_examples(texts)}",
        )


def _explain(
    digest: RatingDigest,
    part: Series,
    series: Series,
    known: Mapping[tuple[str, str], RatingDigest],
    scales: Mapping[str, Scale],
) -> tuple[str, str]:
    """Return what happened to the values of a subtype, `part` of the column `series`, and details."""
    for by, move in _MOVES.items():
        if any(_is_shifted(digest, rows, by) for rows in (part, series)):
            return move, ""
    scale = scales.get(digest.column.removesuffix("_raw"))
    if (
        scale
        and digest_rows([value._replace(value=scale.low + scale.high - value.value) for value in part])
        == digest.rows
    ):
        return "reversed", ""
    for other in known.values():
        n = min(digest.n, other.n)
        if 1 < n <= len(part) and other.heads.get(n) == digest_values(part[:n]):
            if other.column == digest.column:
                return f"the values of {other.subtype}", ""
            if other.subtype == digest.subtype:
                return f"the values of {other.column}", ""
    if not part or len(part) != digest.n:
        return "in the number of rows", f" {len(part)} instead of {digest.n}"
    if digest_values(sorted(part, key=lambda row: row.value)) == digest.values:
        return "the same values on other rows", ""
    mean = f" with the mean {mean_of(part):g} instead of {digest.mean:g}"
    return "other values", mean if digest.column.endswith("_raw") else ""


def _is_shifted(digest: RatingDigest, rows: Series, by: int) -> bool:
    """Return whether rows have the values of their neighbours: row i has the value of row i - `by`.

    At the ends a value may be lost or new, or a row may be missing: only the inner rows are compared.
    """
    before, after = (rows, rows[1:]) if by == 1 else (rows[1:], rows)
    moved = [
        row._replace(value=neighbour.value)
        for row, neighbour in zip(before, after, strict=False)
        if row.subtype == digest.subtype
    ]
    inner = (moved[start : len(moved) - end] for start in (0, 1) for end in (0, 1))
    return digest.n > 2 and any(digest_rows(part) == digest.inner for part in inner)
