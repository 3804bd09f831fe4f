"""Any rating table beside images, described by a column map: CSV, TSV, XLSX, XLS, Parquet or JSON.

A column map is a YAML file; `affectdata ingest ROOT --map COLUMNS.yaml` uses it. Without --map, it is the
file `columns.yaml` at the root, and a tree with this file is recognised by it. docs/column_map.md explains
every key:

    name: my_norms                    # of the manifest; --name overrides it
    table: ratings/*.csv              # a path inside the root, a pattern for several tables, or a list
    sheet: Ratings                    # of a workbook; default: the first that has the columns
    skip_rows: 2                      # rows above the header, which is the next row with all columns
    header: [image, V_mean]           # the columns of a table without one
    encoding: cp1252                  # default: by the byte-order mark, else UTF-8, else cp1252
    delimiter: ";"                    # default: the one with which the header has all columns
    decimal: ","                      # and thousands: "." read 1.234,5
    na: [".", "NA"]                   # missing values, beside empty cells
    key: image                        # the column that names the image
    file: images/{key}.jpg            # its path; any column in braces; the suffix may differ or be omitted
    match_parts: 1                    # compare only the last parts of paths: images may be in any folder
    placeholder: {thumb: Empty}       # marks rows without an image
    rows: rater                       # what a row is: image (the default), rater, or person in the image
    rater: user                       # the column that names the rater
    repeated: mean                    # different rows for one image: reject (the default), or their mean
    scales: {valence: [1, 9]}         # the lowest and highest answer of each rating, and of `intensity`
    columns: {valence: V_mean, valence_sd: V_SD, valence_n: N, subtype: kind, theme: scene}
    raters: {arousal: "rater_*"}      # columns with the answers of one rater each: a pattern or a list
    values: {emotion: {"0": neutral, "9": null}}    # the meaning of codes; other codes are rejected
    separator: "|"                    # of several labels in a cell of emotion; lists need none
    emotions: {joy: Joy, sadness: Sad}    # shares of raters; "13 %" is 0.13
    percent: true                     # numbers under `emotions` are percentages,
    counts: true                      # or numbers of votes
    intensities: {joy: Joy_intensity}     # graded emotions
    split_by_table: true              # the tables are named train, val, test
    subtypes: {A: {name: animals, sign: -1, upright: true, tags: [animal_cruelty]}}
    groups: [theme]                   # equal values stay in one split
    estimated: [age, gender]          # estimated by a machine
    title: My norms                   # and license, citation, bibtex, url, evidence (seen | unverified)

`columns` may also have arousal and dominance with _sd and _n, emotion, agreement, subject_id, artist, age,
age_group, gender, ethnicity, split, license, attribution and url. `affectdata download` fetches images from
their `url`, or with `urls: {table: links.csv, path: file, url: address}` from a table of addresses. Columns
that are not in the map go into `extra`. A row without any label is rejected, and so are different rows for
one image.

JSON may be a list of objects, an object per line, an object whose keys are file names (the column that `key`
names), an object of columns, or COCO (`key: file_name`; the categories are the column `category`). A Parquet
table or a webdataset shard may contain its images; `key` is then needed and not used. Without `table`, labels
are parsed from paths by `file`: `file: "{emotion}_{number}"` with `columns: {emotion: emotion}`. A part may
have a width or a regular expression: `file: "{session:1}{person:3}{emotion:2}{view:S|HL|HR|FL|FR}"` reads
`AF01ANHL.JPG`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from affectdata.column_map.columns import MAP_FILE, ColumnMap
from affectdata.column_map.embedded import read_embedded
from affectdata.column_map.read import find_mapped_links, find_tables, read_mapped
from affectdata.config import parse_model, read_yaml
from affectdata.errors import UsageError
from affectdata.reading.names import find_readmes, slug
from affectdata.reading.protocol import Item, Link, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, SourceInfo
from affectdata.sources.parquet_images import find_image_tables, open_image_table
from affectdata.sources.webdataset import find_shards, open_shard

_STATED = "as the column map states"
INFO = SourceInfo(
    name="table",
    title="A rating table of your own, with a column map",
    scales={},
    license=_STATED,
    citation=_STATED,
    url="",
    layout=f"a table and images anywhere under the root, and a column map ({MAP_FILE} or --map)",
    generic=True,
    takes=("map", "name"),
)
_EXAMPLE = """
    name: my_norms
    table: ratings.csv
    key: image
    file: images/{key}.jpg
    scales: {valence: [1, 9]}
    columns: {valence: V_mean}"""


def detect(tree: Tree) -> str | None:
    """Recognise a tree by the column map at its root."""
    return f"the column map {MAP_FILE}" if MAP_FILE in tree.files else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the tables of the column map.

    Raises:
        UsageError: there is no column map.
        RecipeError: the column map is not valid; all problems are listed.
        SourceError: there is no such table, or it lacks a column.
    """
    path = _find_map(tree, options)
    spec = _read_map(path)
    info = spec.to_info(slug(options.name or "") or spec.name)
    return Reading(info, _read_items(tree, spec, find_tables(tree, spec), path, options.strict))


def find_links(tree: Tree, options: ReadOptions) -> Iterator[Link]:
    """Yield the image addresses in the tables."""
    return find_mapped_links(tree, _read_map(_find_map(tree, options)))


def _read_map(path: Path) -> ColumnMap:
    return parse_model(ColumnMap, read_yaml(path), str(path))


def _find_map(tree: Tree, options: ReadOptions) -> Path:
    if options.map_path is None:
        if MAP_FILE in tree.files:
            return tree.root / MAP_FILE
        raise UsageError(
            "the source `table` needs a column map",
            where=f"neither --map nor {MAP_FILE} in {tree.root}",
            fix="pass --map COLUMNS.yaml; `affectdata sources table` explains every key; a minimal one:"
            + _EXAMPLE,
        )
    return options.map_path


def _read_items(
    tree: Tree, spec: ColumnMap, tables: list[str], map_path: Path, strict: bool
) -> Iterator[Item]:
    documents = {name for name in find_readmes(tree) if name not in tables}
    if map_path.resolve().is_relative_to(tree.root.resolve()):
        documents.add(map_path.resolve().relative_to(tree.root.resolve()).as_posix())
    yield from (Annotation(name) for name in sorted(documents))
    open_as = dict.fromkeys(find_image_tables(tree), open_image_table)
    open_as |= dict.fromkeys(find_shards(tree), open_shard)
    embedded = [path for path in tables if path in open_as]
    for path in embedded:
        yield from read_embedded(open_as[path](tree, path), spec, strict=True)
    if not embedded or len(embedded) < len(tables):
        yield from read_mapped(tree, [path for path in tables if path not in open_as], spec, strict=strict)


_SAMPLE_MAP = """\
# Column map of a generated sample; `affectdata ingest` on this folder uses it.
name: sample_norms
title: Generated norms, no real collection
table: norms.txt
skip_rows: 2
na: ["."]
key: id
file: images/{key}.jpg
scales: {valence: [1, 9], arousal: [1, 9]}
columns: {valence: valmn, valence_sd: valsd, valence_n: n, arousal: aromn, subtype: kind, theme: scene}
emotions: {joy: joy, fear: fear}
percent: true
subtypes: {i: {name: indoors}, o: {name: outdoors, upright: true}}
groups: [theme]
license: CC0 1.0 (generated)
citation: none; generated by affectdata
"""


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 28 generated images, a table with decimal ids, NA cells and a preamble, and its column map.

    One row has no image, one image no row, and one row no rating.
    """
    lines = ["Generated norms", "", "id\tvalmn\tvalsd\taromn\tn\tkind\tscene\tjoy\tfear\tremark"]
    for number in range(28):
        valence, arousal = rng.uniform(1.2, 8.8), rng.uniform(2, 8)
        key = "2375.1" if number == 3 else f"{2000 + 5 * number}"
        suffix = ".JPG" if number % 7 == 6 else ".jpg"
        save_image(root / "images" / (key + suffix), draw_image(rng, (valence - 1) / 8 * 100), "JPEG")
        joy = int(rng.integers(0, 100))
        cells = [f"{key}.0" if number < 3 else key, f"{valence:.2f}", f"{rng.uniform(0.8, 2.4):.2f}"]
        cells += [f"{arousal:.2f}" if number % 9 else ".", str(60 + number % 7), "io"[number % 2]]
        cells += [f"scene {number // 3}", f"{joy} %", str(100 - joy), "as generated"]
        if number == 26:
            cells[1:4] = ["."] * 3
            cells[7:9] = ["."] * 2
        if number < 27:
            lines.append("\t".join(cells))
    lines.append("9999\t5.00\t1.00\t5.00\t60\ti\tscene 0\t50 %\t50\tno picture")
    (root / "norms.txt").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    (root / MAP_FILE).write_text(_SAMPLE_MAP, encoding="utf-8", newline="\n")
    (root / "readme.txt").write_text("Generated pictures and ratings.\n", encoding="utf-8", newline="\n")
