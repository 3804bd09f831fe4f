"""Generate the sample of a packaged column map: images, and tables in the layout of the map.

One image has an upper-case suffix, one row has no image, some cells are NA; and there are placeholders,
repeated rows and tables without a header if the map has them.
"""

from __future__ import annotations

import csv
import io
import json
import re
import struct
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from affectdata.column_map.columns import ColumnMap
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tables import unique_names
from affectdata.records import RATINGS

_IMAGES = 16
_CLOCK = re.compile(rb"\d{4}-\d\d-\d\dT[\d:]+Z")


def write_map_sample(spec: ColumnMap, root: Path, rng: np.random.Generator) -> None:
    """Write 16 generated images and the tables of the map.

    Raises:
        ValueError: the map has no `sample`.
    """
    sample = spec.sample
    if sample is None:
        raise ValueError(f"the column map {spec.name} has no `sample`")
    names = unique_names(sample.header)
    rows, keys = [], []
    for number in range(_IMAGES):
        key = sample.keys[number % len(sample.keys)].replace("%d", f"{number + 1:04d}")
        rows.append(_draw_row(spec, names, key, number, rng))
        keys.append(key.lstrip("/"))
        path = PurePosixPath(sample.images.replace("{key}", key.lstrip("/")))
        path = path.with_suffix(".JPG") if number == 2 else path
        save_image(root / path, draw_image(rng, float(rng.uniform(10, 90)), 96, 72), "JPEG")
    rows.append(_draw_row(spec, names, sample.keys[0].replace("%d", "9999"), _IMAGES, rng))
    if spec.repeated == "mean":
        repeated = _draw_row(spec, names, "", 1, rng)
        rows.append(
            [
                old if name == spec.key else new
                for name, old, new in zip(names, rows[0], repeated, strict=True)
            ]
        )
    for column, word in spec.placeholder.items():
        rows.append([{spec.key: "absent", column: word}.get(name, "") for name in names])
    for index, table in enumerate(sample.tables):
        header = [] if spec.header and index else [sample.header]
        part = rows[index :: len(sample.tables)]
        _write_table(root / table, [*([line] for line in sample.above), *header, *part], spec)
    if spec.urls:
        addresses = [{spec.urls.path: key, spec.urls.url: f"https://example.org/{key}"} for key in keys]
        (root / sample.urls).write_text(json.dumps(addresses), encoding="ascii")
    (root / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")


def _draw_row(
    spec: ColumnMap, names: list[str], key: str, number: int, rng: np.random.Generator
) -> list[str]:
    """Draw the cells of a row; unmapped cells are its number."""
    cells = {spec.key: key}
    for name, column in spec.columns.items():
        low, high = spec.scales.get(name.partition("_")[0], [0, 1])
        if name in RATINGS:
            cells[column] = f"{rng.uniform(low, high):.2f}"
        elif name.endswith("_sd"):
            cells[column] = f"{rng.uniform(0.1, 0.3) * (high - low):.2f}"
        elif name in spec.values:
            cells[column] = list(spec.values[name])[number % len(spec.values[name])]
        else:
            cells[column] = ("joy", "fear", "awe")[number % 3]
    votes = rng.integers(1, 16, len(spec.emotions))
    cells |= {column: f"{n / votes.sum():g}" for column, n in zip(spec.emotions.values(), votes, strict=True)}
    if number % 7 == 5 and "arousal" in spec.columns:
        cells[spec.columns["arousal"]] = spec.na[0]
    return [cells.get(name, str(number)) for name in names]


def _write_table(path: Path, rows: list[list[str]], spec: ColumnMap) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".xlsx":
        path.write_bytes(_workbook(rows))
    elif path.suffix == ".xls":
        path.write_bytes(_old_workbook(rows))
    elif path.suffix == ".json":
        records = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
        path.write_text(json.dumps(records), encoding="ascii")
    else:
        text = io.StringIO()
        delimiter = spec.delimiter or ("\t" if path.suffix == ".txt" else ",")
        csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
        path.write_bytes(text.getvalue().encode("utf-8"))


def _workbook(rows: list[list[str]]) -> bytes:
    """Return an .xlsx that does not depend on the time."""
    import openpyxl

    book, dated, undated = openpyxl.Workbook(), io.BytesIO(), io.BytesIO()
    for row in rows:
        book.active.append([_number(cell) for cell in row])
    book.save(dated)
    with zipfile.ZipFile(dated) as parts, zipfile.ZipFile(undated, "w") as copy:
        for name in parts.namelist():
            copy.writestr(zipfile.ZipInfo(name), _CLOCK.sub(b"2000-01-01T00:00:00Z", parts.read(name)))
    return undated.getvalue()


def _old_workbook(rows: list[list[str]]) -> bytes:
    """Return an .xls of Excel 2: a record per cell (OpenOffice's documentation of the file format, 2007)."""
    records = [(0x0009, struct.pack("<HH", 2, 0x10)), (0x0042, struct.pack("<H", 1252))]  # begin, code page
    for row_index, row in enumerate(rows):
        for column, cell in enumerate(row):
            value, position = _number(cell), struct.pack("<HH3x", row_index, column)
            if isinstance(value, float):
                records.append((0x0003, position + struct.pack("<d", value)))
            elif value:
                text = value.encode("cp1252")
                records.append((0x0004, position + struct.pack("<B", len(text)) + text))
    records.append((0x000A, b""))
    return b"".join(struct.pack("<HH", kind, len(data)) + data for kind, data in records)


def _number(cell: str) -> float | str:
    return float(cell) if re.fullmatch(r"-?\d+(\.\d+)?", cell) else cell
