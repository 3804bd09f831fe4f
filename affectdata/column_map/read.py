"""Read the rows of a table, or file names, as records by a column map."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from affectdata.column_map.columns import PLACEHOLDER, ColumnMap
from affectdata.column_map.rows import RowReader, average_rows
from affectdata.errors import SourceError
from affectdata.reading.delimited import require_columns
from affectdata.reading.join import Row, common_ending, join_groups, join_rows
from affectdata.reading.names import fold_path, is_readme
from affectdata.reading.protocol import Item, Link
from affectdata.reading.tables import TABLE_SUFFIXES, Shape, has_columns, read_table
from affectdata.reading.tree import Tree, is_image_name
from affectdata.records import Annotation, Finding, Reason, Reject, shorten

# In names of columns that summarise the answers of raters.
_SUMMARY = re.compile(
    r"(?i)(?<![a-z])(mean|avg|average|median|mode|majority|sum|total|count|sd|std|stdev|sem|var)(?![a-z])"
)


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


def read_mapped(
    tree: Tree, tables: list[str], spec: ColumnMap, folder: str = "", strict: bool = False
) -> Iterator[Item]:
    """Yield the tables as annotations, and every row as a record or a reject.

    `spec.file` is relative to `folder`, which is empty or ends in a slash. Without tables every image is a
    row whose cells are the parts of its name. Votes that cannot be used are left out and counted.

    Raises:
        SourceError: a table cannot be read or lacks a column that the map names; or it has votes that cannot
            be used, and `strict` is set.
    """
    reader = RowReader(spec)
    if not spec.patterns:
        yield from _read_names(tree, spec, reader)
    else:
        yield from map(Annotation, [*tables, *_url_tables(tree, spec)])
        yield from _read_tables(tree, tables, spec, folder, reader)
    if strict:
        reader.tally.refuse_dropped()
    yield from reader.tally.findings()


def _read_tables(
    tree: Tree, tables: list[str], spec: ColumnMap, folder: str, reader: RowReader
) -> Iterator[Item]:
    def read_rows() -> Iterator[Row | Reject | Finding]:
        for table in tables:
            yield from map(reader.note, _read_rows(tree, table, spec, folder))
        reader.check_words()

    rows = read_rows()
    images, fold = tree.images().inside(folder), partial(_fold, spec)
    if spec.rows != "image":
        for group in join_groups(rows, images, fold, tree.others(), any_zeros=True):
            yield reader.read_group(*group) if isinstance(group, tuple) else group
        return
    pool = partial(average_rows, spec) if spec.repeated == "mean" else None
    for pair in join_rows(rows, images, fold, pool, tree.others(), any_zeros=True):
        if isinstance(pair, tuple):
            yield reader.read_row(*pair)
        else:
            yield from _explain(pair, reader)


def _explain(item: Item, reader: RowReader) -> Iterator[Item]:
    """Count findings about several rows for an image; to a reject because of them, add what combines them."""
    if isinstance(item, Finding) and item.kind in ("averaged", "repeated_row"):
        reader.tally.add(item.kind, item.text)
    elif isinstance(item, Reject) and item.reason == Reason.CONFLICTING_RATING:
        hint = "if a row is one rater: `rows: rater`; if it is one person in the image: `rows: person`"
        yield Reject(item.path, item.reason, f"{item.detail}; {hint}")
    else:
        yield item


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


def _read_names(tree: Tree, spec: ColumnMap, reader: RowReader) -> Iterator[Item]:
    for path in tree.images():
        cells = _read_name(path, spec)
        if cells is None:
            yield Reject(path, Reason.BAD_NAME, f"the name does not match {spec.file}")
        else:
            yield reader.read_row(Row(path, PurePosixPath(path).stem, path, cells), path)


def _read_name(path: str, spec: ColumnMap) -> dict[str, str] | None:
    """Return the parts of an image's name by their names in `file`; None if it does not match."""
    match = spec.name_pattern.fullmatch(PurePosixPath(path).with_suffix("").as_posix())
    names = [placeholder[1] for placeholder in PLACEHOLDER.finditer(spec.file)]
    groups = match.groupdict() if match else {}
    return dict(zip(names, groups.values(), strict=True)) if match else None


def _read_rows(tree: Tree, table: str, spec: ColumnMap, folder: str) -> Iterator[Row | Reject | Finding]:
    header, lines = read_table(tree, table, _shape(spec))
    notes = [*lines.notes, *_find_repeated(spec, header)]
    yield from (Finding("table", f"{table}: {note}") for note in notes)
    unmatched = [name for name in spec.raters if not spec.rater_columns(name, header)]
    wanted = [*spec.needed, *(str(spec.raters[name]) for name in unmatched)]
    hints = [
        "correct the column names in the column map",
        *(note for note in lines.notes if "`sheet" in note),
    ]
    require_columns(header, wanted, table, fix="; ".join(hints))
    _check_raters(spec, header, table)
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


def _check_raters(spec: ColumnMap, header: list[str], table: str) -> None:
    """Refuse a pattern of raters that also fits columns of means and the like.

    Raises:
        SourceError: with these columns.
    """
    for name, pattern in spec.raters.items():
        columns = spec.rater_columns(name, header)
        summaries = [column for column in columns if _SUMMARY.search(column)]
        if summaries and isinstance(pattern, str):
            others = ", ".join(column for column in columns if column not in summaries)
            raise SourceError(
                f"the pattern {pattern!r} under `raters` also fits {shorten(summaries)}, which do not seem "
                "to be answers of raters",
                where=table,
                fix=f"list the columns of raters: `raters: {{{name}: [{others}]}}`",
            )


def _find_repeated(spec: ColumnMap, header: list[str]) -> Iterator[str]:
    """Note columns of the map whose title the header repeats, unless the map uses another of them too."""
    for name in spec.needed:
        others = [title for title in header if re.fullmatch(re.escape(name) + r"#\d+", title)]
        if others and not set(others) & set(spec.needed):
            yield f"{len(others) + 1} columns are called {name!r}; the first is used (next: {others[0]!r})"


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
