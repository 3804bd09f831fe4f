"""CAP-D, the Categorized Affective Pictures Database: 526 images of four databases in ten categories.

Moyal, Henik & Anholt (2018). Students chose one of ten emotional categories for each image; an image is of
the category that most of them chose, and the agreement is their share. Others rated intensity and arousal.
There are no images: CAP-D is a table onto images that their own owners ship.

    affectdata ingest gaped/
    affectdata ingest capd.xlsx --onto manifests/gaped.parquet --onto manifests/naps.parquet

No real table was seen. Columns are recognised by words in the first row: the image (image, image,
stimulus, id), its database (database, source), the category (category, dominant), the agreement (agreement);
shares may be 0–1 or percentages. Everything else, intensity and arousal too, goes into `extra`, as their
scales are not known. What is not recognised, a column map (--source capd --map COLUMNS.yaml) says, as for
`table`, with `file: "{Database}/{key}"`; it can also give arousal its scale, and shares for all categories.
An image is known by its source's own id, as in `source_id`: GAPED/Sp004. Rows without an image are rejects.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from affectdata.column_map.columns import ColumnMap
from affectdata.column_map.read import read_mapped
from affectdata.config import parse_model, read_yaml
from affectdata.errors import SourceError, UsageError
from affectdata.reading.delimited import parse_number
from affectdata.reading.protocol import Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tables import read_table
from affectdata.reading.tree import Tree
from affectdata.records import Scale, SourceInfo

INFO = SourceInfo(
    name="capd",
    title="Categorized Affective Pictures Database",
    scales={},
    license="norms as the article's supplement states; pictures on the terms of their own databases",
    citation=(
        "Moyal, N., Henik, A., & Anholt, G. E. (2018). Categorized Affective Pictures Database (CAP-D). "
        "Journal of Cognition, 1(1), 41. https://doi.org/10.5334/joc.47"
    ),
    bibtex="""\
@article{moyal2018capd,
  author  = {Moyal, Natali and Henik, Avishai and Anholt, Gideon E.},
  title   = {Categorized Affective Pictures Database ({CAP-D})},
  journal = {Journal of Cognition},
  volume  = {1},
  number  = {1},
  pages   = {41},
  year    = {2018},
  doi     = {10.5334/joc.47},
}""",
    url="https://doi.org/10.5334/joc.47",
    layout="one table, capd*.xlsx or .csv; `ingest` takes it with --onto the manifests of the images",
    evidence="unverified",
    overlay=True,
    takes=("map",),
)
_TABLE = re.compile(r"[^/]*cap[-_ ]?d[^/]*", re.IGNORECASE)
_WORDS = {
    "key": r"picture|image|stimul|file|\bid\b",
    "database": r"data ?base|source",
    "emotion": r"categor|dominant",
    "agreement": r"agreement",
}
_BEFORE = {"key": ("database",), "emotion": ("agreement",)}  # of a title with both words, the latter holds
_MEANING = {"key": "image", "database": "database", "emotion": "category", "agreement": "agreement"}
_SPREAD = r"\b(sd|std|se|n)\b|deviation|second"


def detect(tree: Tree) -> str | None:
    """Recognise a table alone by its name; what is in it, nobody has seen."""
    alone = len(tree.files) == 1 and _TABLE.fullmatch(tree.files[0])
    return f"the name of {tree.files[0]}" if alone else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the table at the root of a tree of other sources' images, `<source>/<source_id>`.

    Raises:
        UsageError: there is no such tree: `ingest --onto` makes it.
        SourceError: a column is not recognised, and no column map says which it is.
    """
    tables = [path for path in tree.files if "/" not in path]
    sources = sorted({path.split("/")[0] for path in tree.files} - set(tables))
    if len(tables) != 1 or not sources:
        raise UsageError(
            "CAP-D has no images of its own",
            where=str(tree.root),
            fix="ingest the databases that have them, then: affectdata ingest TABLE --onto MANIFEST",
        )
    document = read_yaml(options.map_path) if options.map_path else _map_columns(tree, tables[0], sources)
    spec = parse_model(ColumnMap, document, str(options.map_path or tables[0]))
    scales = {rating: Scale(low, high) for rating, (low, high) in spec.scales.items()}
    return Reading(replace(INFO, scales=scales), read_mapped(tree, tables, spec))


def _map_columns(tree: Tree, table: str, sources: list[str]) -> dict[str, Any]:
    """Make the column map that the words of the header amount to."""
    header, rows = read_table(tree, table)
    found = {name: [each for each in header if _says(each, name)] for name in _WORDS}
    missing = [name for name in ("key", "emotion") if not found[name]]
    if not found["database"] and len(sources) > 1:
        missing.append("database")
    unclear = [name for name, columns in found.items() if len(columns) > 1]
    if missing or unclear:
        said = [f"no column for the {_MEANING[name]}" for name in missing]
        said += [f"{len(found[name])} for the {_MEANING[name]}: {', '.join(found[name])}" for name in unclear]
        raise SourceError(
            f"{table}: {'; '.join(said)}",
            where=f"{table}, first row: {', '.join(map(repr, header))}",
            fix="say which is which in a column map: --source capd --map COLUMNS.yaml",
        )
    column = {name: columns[0] for name, columns in found.items() if columns}
    at = header.index(column["agreement"]) if "agreement" in column else None
    return {
        "name": INFO.name,
        "table": table,
        "key": column["key"],
        "file": f"{{{column['database']}}}/{{key}}" if "database" in column else f"{sources[0]}/{{key}}",
        "columns": {name: column[name] for name in ("emotion", "agreement") if name in column},
        "percent": at is not None and any(_over_one(row[at]) for row in rows),
    }


def _says(title: str, name: str) -> bool:
    """Say whether a column's title names this thing, and neither its spread nor something more special."""
    special = [_WORDS[each] for each in _BEFORE.get(name, ())]
    return bool(re.search(_WORDS[name], title, re.IGNORECASE)) and not any(
        re.search(words, title, re.IGNORECASE) for words in (_SPREAD, *special)
    )


def _over_one(cell: str) -> bool:
    try:
        return parse_number(cell) > 1
    except ValueError:
        return False


_SAMPLE_CATEGORIES = ("Disgust", "Sad", "Happy", "Fear")


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write a table of 14 rows and, under gaped/, 12 generated images; two rows have no image."""
    lines = ["Picture ID;Database;Category;Agreement (%);Intensity;Arousal"]
    for number in range(1, 13):
        valence = float(rng.uniform(45, 65))
        save_image(root / "gaped" / "N" / f"N{number:03d}.bmp", draw_image(rng, valence, 96, 72), "BMP")
        category = _SAMPLE_CATEGORIES[number % 4]
        rates = f"{rng.uniform(1, 7):.2f};{rng.uniform(1, 9):.2f}"
        lines.append(f"N{number:03d};GAPED;{category};{rng.uniform(30, 99):.1f};{rates}")
    lines += ["N999;GAPED;Fear;61.0;4.10;5.20", "1050;IAPS;Fear;88.0;5.20;7.10"]
    (root / "capd.csv").write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")
    rated = [
        f"N{number:03d}.jpg\t{rng.uniform(45, 65):.3f}\t{rng.uniform(10, 40):.3f}" for number in range(1, 13)
    ]
    table = "\n".join(["\tValence\tArousal", *rated])
    (root / "gaped" / "N.txt").write_text(table, encoding="ascii", newline="\n")
