"""Read the rows of a table, or file names, as records by a column map."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

from affectdata.column_map.columns import PLACEHOLDER, TEXTS, ColumnMap
from affectdata.errors import SourceError
from affectdata.labels import dominant_emotion, spell_emotion
from affectdata.reading.delimited import parse_count, parse_number, parse_share, parse_spread, require_columns
from affectdata.reading.join import Row, common_ending, join_rows
from affectdata.reading.names import fold_path, is_readme, spell_split
from affectdata.reading.protocol import Item, Link
from affectdata.reading.tables import TABLE_SUFFIXES, Shape, has_columns, read_table
from affectdata.reading.tree import Tree, is_image_name
from affectdata.records import RATINGS, Annotation, Rating, Reason, Record, Reject

_OLDEST = 150
Parsed = TypeVar("Parsed")


def find_tables(tree: Tree, spec: ColumnMap) -> list[str]:
    """List the tables of a map; empty for a map of file names.

    Raises:
        SourceError: there is no such table.
    """
    tables = _match(tree, spec.patterns)
    if spec.patterns and not tables:
        others = [name for name in tree.others() if PurePosixPath(name).suffix.lower() in TABLE_SUFFIXES]
        raise SourceError(
            f"{tree.root} has no table {' or '.join(map(repr, spec.patterns))}",
            where=f"its tables: {', '.join(others[:10]) or 'none'}",
            fix=f"restore it, or describe yours in a column map (this is the map of {spec.name})",
        )
    return tables


def recognise_map(tree: Tree, spec: ColumnMap) -> str | None:
    """Recognise a tree by the name and columns of a table, or by the emotion words in all file names.

    File names suffice only if all images are in one folder, every name has a word of the map, and there is no
    other file that could have labels.
    """
    if spec.patterns:
        tables = (path for path in _match(tree, spec.patterns) if has_columns(tree, path, _shape(spec)))
        table = next(tables, None)
        return table and f"the columns of {table}"
    images = tree.images()
    if len(images.one_per_folder()) != 1 or not all(map(is_readme, tree.others())):
        return None
    words = set(spec.values.get("emotion", {}))
    cells = (_read_name(path, spec) or {} for path in images)
    used = {parts.get(spec.columns.get("emotion", "")) for parts in cells}
    if len(used) < 2 or not used <= words:
        return None
    return f"nothing but images called {spec.file}, such as {PurePosixPath(images[0]).name}"


def _match(tree: Tree, patterns: list[str]) -> list[str]:
    others = tree.others()
    return [path for path in others if any(path == name or fnmatchcase(path, name) for name in patterns)]


def _shape(spec: ColumnMap) -> Shape:
    return Shape(spec.sheet, spec.skip_rows, spec.encoding, spec.delimiter, spec.needed, spec.header)


def read_mapped(tree: Tree, tables: list[str], spec: ColumnMap, folder: str = "") -> Iterator[Item]:
    """Yield the tables as annotations, and every row as a record or a reject.

    `spec.file` is relative to `folder`, which is empty or ends in a slash. Without tables every image is a
    row whose cells are the parts of its name.

    Raises:
        SourceError: a table cannot be read or lacks a column that the map names.
    """
    if not spec.patterns:
        yield from _read_names(tree, spec)
        return
    yield from map(Annotation, [*tables, *_url_tables(tree, spec)])
    rows = (row for table in tables for row in _read_rows(tree, table, spec, folder))
    pool = partial(_average, spec) if spec.repeated == "mean" else None
    for pair in join_rows(rows, tree.images().inside(folder), partial(_fold, spec), pool, tree.others()):
        yield read_row(spec, *pair) if isinstance(pair, tuple) else pair


def _fold(spec: ColumnMap, path: str) -> str:
    """Return the part of a path that is compared."""
    parts = spec.match_parts
    return "/".join(fold_path(path).split("/")[-parts:]) if parts else fold_path(path)


def _url_tables(tree: Tree, spec: ColumnMap) -> list[str]:
    return _match(tree, [spec.urls.table]) if spec.urls else []


def find_mapped_links(tree: Tree, spec: ColumnMap) -> Iterator[Link]:
    """Yield the addresses in the table of `urls`, or in the column mapped to `url`.

    Raises:
        SourceError: a table cannot be read or lacks a column that the map names.
    """
    paths: dict[str, list[str]] = {}
    for path in tree.images():
        paths.setdefault(_fold(spec, path), []).append(path)
    links = list(_read_urls(tree, spec))
    named = {
        path: found for path, _ in links for found in paths.get(_fold(spec, path), []) if _ends(found, path)
    }
    taken = set(named.values())
    for path, url in links:
        others = (found for found in paths.get(_fold(spec, path), []) if found not in taken)
        yield Link(named.get(path) or next(others, path), url)


def _ends(path: str, name: str) -> bool:
    return common_ending(name, path) == name.count("/") + 1


def _read_urls(tree: Tree, spec: ColumnMap) -> Iterator[tuple[str, str]]:
    if spec.urls:
        for table in _url_tables(tree, spec):
            header, lines = read_table(tree, table)
            require_columns(header, [spec.urls.path, spec.urls.url], table)
            for line in lines:
                cells = dict(zip(header, line, strict=True))
                yield cells[spec.urls.path].lstrip("/"), cells[spec.urls.url]
    elif "url" in spec.columns:
        for table in find_tables(tree, spec):
            for row in _read_rows(tree, table, spec, ""):
                url = row.cells[spec.columns["url"]] if isinstance(row, Row) else ""
                if isinstance(row, Row) and url and url not in spec.na:
                    yield row.image + ("" if is_image_name(row.image) else _suffix(url)), url


def _suffix(url: str) -> str:
    """Return the suffix of an image address, by default .jpg: decoders go by content, not by name."""
    path = urlsplit(url).path
    return PurePosixPath(path).suffix if is_image_name(path) else ".jpg"


def _read_names(tree: Tree, spec: ColumnMap) -> Iterator[Item]:
    for path in tree.images():
        cells = _read_name(path, spec)
        if cells is None:
            yield Reject(path, Reason.BAD_NAME, f"the name does not match {spec.file}")
        else:
            yield read_row(spec, Row(path, PurePosixPath(path).stem, path, cells), path)


def _read_name(path: str, spec: ColumnMap) -> dict[str, str] | None:
    """Return the parts of an image's name by their names in `file`; None if it does not match."""
    match = spec.name_pattern.fullmatch(PurePosixPath(path).with_suffix("").as_posix())
    names = [placeholder[1] for placeholder in PLACEHOLDER.finditer(spec.file)]
    groups = match.groupdict() if match else {}
    return dict(zip(names, groups.values(), strict=True)) if match else None


def _read_rows(tree: Tree, table: str, spec: ColumnMap, folder: str) -> Iterator[Row | Reject]:
    header, lines = read_table(tree, table, _shape(spec))
    require_columns(header, spec.needed, table, fix="correct the column names in the column map")
    for number, line in enumerate(lines, 1):
        row = _named_row(table, dict(zip(header, line, strict=True)), spec, folder)
        if row is None:
            detail = f"data row {number} has no value in column {spec.key!r}"
            yield Reject(f"{table}#row {number}", Reason.MISSING_IMAGE, detail)
        elif empty := [
            f"{column} {word!r}" for column, word in spec.placeholder.items() if row.cells[column] == word
        ]:
            yield Reject(
                row.where, Reason.PLACEHOLDER, f"marked in the table as a row without an image: {empty[0]}"
            )
        else:
            yield row


def _named_row(table: str, cells: dict[str, str], spec: ColumnMap, folder: str) -> Row | None:
    """Return the cells of a table row with the name of its image; None if the key is missing."""
    key = re.sub(r"^(\d+)\.0+$", r"\1", cells[spec.key])  # a spreadsheet's 2000.0, but not 2375.1
    if not key or key in spec.na:
        return None
    stem = key.replace("\\", "/").lstrip("/").removeprefix("./")
    if is_image_name(stem) and not spec.file.endswith("{key}"):
        stem = stem.rpartition(".")[0]
    image = PLACEHOLDER.sub(lambda match: stem if match[1] == "key" else cells[match[1]], spec.file)
    return Row(table, key, folder + image, cells)


def _average(spec: ColumnMap, rows: list[Row]) -> Row | None:
    """Merge the rows of one image: mean ratings; None if labels other than ratings differ.

    SDs are pooled as for equal numbers of raters; other different cells are joined with " | ".
    """
    rated = {column: name for name, column in spec.columns.items() if name.startswith(RATINGS)}
    fixed = {*spec.columns.values(), *spec.emotions.values()} - rated.keys()
    cells = {}
    for column, first in rows[0].cells.items():
        distinct = list(dict.fromkeys(row.cells[column] for row in rows))
        if len(distinct) == 1 or column == spec.key:
            cells[column] = first
        elif column in fixed:
            return None
        elif column not in rated:
            cells[column] = " | ".join(distinct)
        else:
            values = [
                row.cells[column] for row in rows if row.cells[column] and row.cells[column] not in spec.na
            ]
            try:
                cells[column] = _pool(rated[column], [parse_number(cell) for cell in values])
            except ValueError:
                return None
    return Row(rows[0].table, rows[0].key, rows[0].image, cells)


def _pool(name: str, numbers: list[float]) -> str:
    if name.endswith("_n"):
        return f"{sum(numbers):g}"
    if name.endswith("_sd"):
        return f"{statistics.fmean(number**2 for number in numbers) ** 0.5:.9g}"
    return f"{statistics.fmean(numbers):.9g}"


def read_row(spec: ColumnMap, row: Row, path: str) -> Record | Reject:
    """Return the record of a row, or the reject with the reason why it has none."""
    cells = {column: cell for column, cell in row.cells.items() if cell and cell not in spec.na}
    try:
        record = _to_record(spec, row, path, cells)
    except ValueError as error:
        return Reject(path, Reason.BAD_RATING, f"{row.where}, {error}")
    labels = [spec.columns[name] for name in (*RATINGS, "emotion") if name in spec.columns]
    labels += spec.emotions.values()
    if labels and not (record.ratings or record.emotion or record.emotions):
        return Reject(path, Reason.MISSING_RATING, f"{row.where} has no value in {', '.join(labels)}")
    return record


def _to_record(spec: ColumnMap, row: Row, path: str, cells: Mapping[str, str]) -> Record:
    used = {spec.key, *spec.columns.values(), *spec.emotions.values()}
    texts = {name: _word(spec, cells, name) for name in TEXTS if name in spec.columns}
    shares, emotion, agreement = _emotions(spec, cells)
    subtype = spec.subtypes.get(texts.get("subtype") or "")
    return Record(
        path=path,
        source_id=row.key,
        ratings=_ratings(spec, cells),
        emotion=emotion,
        emotions=shares,
        agreement=agreement,
        age=_parse(cells, spec.columns.get("age"), lambda cell: parse_count(cell, _OLDEST)),
        split=_split(spec, row, cells),
        content_tags=tuple(subtype.tags) if subtype else (),
        extra={column: cell for column, cell in row.cells.items() if column not in used},
        **texts,
    )


def _parse(cells: Mapping[str, str], column: str | None, parse: Callable[[str], Parsed]) -> Parsed | None:
    """Parse one cell; None if the column is not mapped or the cell is NA; an error names the column."""
    if column is None or column not in cells:
        return None
    try:
        return parse(cells[column])
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _word(spec: ColumnMap, cells: Mapping[str, str], name: str) -> str | None:
    """Return the text of a cell, translated by `values` of the map."""
    known = spec.values.get(name)

    def read(cell: str) -> str | None:
        if known is not None and cell not in known:
            raise ValueError(f"{cell!r} is not one of {', '.join(known)}")
        return known[cell] if known else cell

    return _parse(cells, spec.columns[name], read)


def _ratings(spec: ColumnMap, cells: Mapping[str, str]) -> dict[str, Rating]:
    ratings = {}
    for name in RATINGS:
        mean = _parse(cells, spec.columns.get(name), parse_number)
        sd = _parse(cells, spec.columns.get(f"{name}_sd"), parse_spread)
        n = _parse(cells, spec.columns.get(f"{name}_n"), parse_count)
        if mean is not None:
            ratings[name] = Rating(mean, sd, n)
    return ratings


def _emotions(spec: ColumnMap, cells: Mapping[str, str]) -> tuple[dict[str, float], str | None, float | None]:
    """Return shares, dominant emotion and agreement; without an emotion column, that with the largest share.

    A tie for the largest share has no dominant emotion.
    """

    def parse(cell: str) -> float:
        return parse_share(cell, spec.percent)

    parsed = {name: _parse(cells, column, parse) for name, column in spec.emotions.items()}
    shares = {name: share for name, share in parsed.items() if share is not None}
    if "emotion" in spec.columns:
        emotion = spell_emotion(_word(spec, cells, "emotion") or "") or None
    else:
        emotion = dominant_emotion(shares)
    agreement = _parse(cells, spec.columns.get("agreement"), parse)
    return shares, emotion, shares.get(emotion or "") if agreement is None else agreement


def _split(spec: ColumnMap, row: Row, cells: Mapping[str, str]) -> str | None:
    if spec.split_by_table:
        return spell_split(PurePosixPath(row.table).stem)
    word = cells.get(spec.columns.get("split", ""))
    if word is None:
        return None
    split = spell_split(word)
    if split is None:
        raise SourceError(
            f"{word!r} is not a split; use train, val or test",
            where=f"{row.where}, {spec.columns['split']}",
            fix="correct the cell, or remove the column from the map",
        )
    return split
