"""CAP-D, the Categorized Affective Pictures Database: 526 images of four databases in ten categories.

Moyal, Henik & Anholt (2018). Students chose one of ten emotional categories for each image; its category is
the one chosen most often, and the agreement is the share of that choice. Other students rated intensity and
arousal. There are no images: CAP-D is a table of labels for images of other databases.

    affectdata ingest gaped/
    affectdata ingest capd.xlsx --onto manifests/gaped.parquet --onto manifests/naps.parquet

The layout was not checked on a real table. Columns are recognised by words in the first row: the image
(picture, image, stimulus, file, id), its database (database, source), the category (category, dominant), the
agreement (agreement), and the shares of categories (columns named like those of the table, such as Sad or
Sad (%)); shares may be 0–1 or percentages. All other columns go into `extra`, intensity and arousal too, as
their scales are not known. If a column is not recognised, use a column map (--source capd
--map COLUMNS.yaml) as for `table`, with `file: "{Database}/{key}"`; it can also give the scale of arousal,
and shares for all categories. Images are identified by the id in their own source, as in `source_id`:
GAPED/Sp004. Rows without an image are rejects.
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
from affectdata.labels import spell_emotion
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
_OVERRIDDEN_BY = {"key": ("database",), "emotion": ("agreement",)}  # in a title with the words of both
_LABELS = {"key": "image", "database": "database", "emotion": "category", "agreement": "agreement"}
_SPREAD = r"\b(sd|std|se|n)\b|deviation|second"


def detect(tree: Tree) -> str | None:
    """Recognise a single table by its name."""
    matches = len(tree.files) == 1 and _TABLE.fullmatch(tree.files[0])
    return f"the name of {tree.files[0]}" if matches else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the table at the root of a tree with images of other sources, `<source>/<source_id>`.

    Raises:
        UsageError: the tree has no images; `ingest --onto` adds them.
        SourceError: a column is not recognised, and there is no column map.
    """
    tables = [path for path in tree.files if "/" not in path]
    sources = sorted({path.split("/")[0] for path in tree.files} - set(tables))
    if len(tables) != 1 or not sources:
        raise UsageError(
            "CAP-D has no images of its own",
            where=str(tree.root),
            fix="ingest the databases that have the images, then: affectdata ingest TABLE --onto MANIFEST",
        )
    document = read_yaml(options.map_path) if options.map_path else _map_columns(tree, tables[0], sources)
    spec = parse_model(ColumnMap, document, str(options.map_path or tables[0]))
    scales = {rating: Scale(low, high) for rating, (low, high) in spec.scales.items()}
    return Reading(replace(INFO, scales=scales), read_mapped(tree, tables, spec))


def _map_columns(tree: Tree, table: str, sources: list[str]) -> dict[str, Any]:
    """Build the column map from the words in the header."""
    header, lines = read_table(tree, table)
    matches = {name: [title for title in header if _matches(title, name)] for name in _WORDS}
    missing = [name for name in ("key", "emotion") if not matches[name]]
    if not matches["database"] and len(sources) > 1:
        missing.append("database")
    unclear = [name for name, columns in matches.items() if len(columns) > 1]
    if missing or unclear:
        problems = [f"no column for the {_LABELS[name]}" for name in missing]
        problems += [
            f"{len(matches[name])} for the {_LABELS[name]}: {', '.join(matches[name])}" for name in unclear
        ]
        raise SourceError(
            f"{table}: {'; '.join(problems)}",
            where=f"{table}, first row: {', '.join(map(repr, header))}",
            fix="name the columns in a column map: --source capd --map COLUMNS.yaml",
        )
    column = {name: columns[0] for name, columns in matches.items() if columns}
    index = header.index(column["agreement"]) if "agreement" in column else None
    rows = list(lines)
    shares = _share_columns(header, {row[header.index(column["emotion"])] for row in rows})
    return {
        "name": INFO.name,
        "table": table,
        "key": column["key"],
        "file": f"{{{column['database']}}}/{{key}}" if "database" in column else f"{sources[0]}/{{key}}",
        "columns": {name: column[name] for name in ("emotion", "agreement") if name in column},
        **({"emotions": shares} if shares else {}),
        "percent": index is not None and any(_over_one(row[index]) for row in rows),
    }


def _share_columns(header: list[str], categories: set[str]) -> dict[str, str]:
    """Return the columns of shares by category; none unless at least two categories have one."""
    titles = {re.sub(r"[\s%()]+", " ", title).strip().casefold(): title for title in header}
    known = sorted(name for name in categories - {""} if name.casefold() in titles)
    return {spell_emotion(name): titles[name.casefold()] for name in known} if len(known) > 1 else {}


def _matches(title: str, name: str) -> bool:
    """Return whether a column title is that of `name`, and not of its spread or of another column."""
    others = [_WORDS[other] for other in _OVERRIDDEN_BY.get(name, ())]
    return bool(re.search(_WORDS[name], title, re.IGNORECASE)) and not any(
        re.search(words, title, re.IGNORECASE) for words in (_SPREAD, *others)
    )


def _over_one(cell: str) -> bool:
    try:
        return parse_number(cell) > 1
    except ValueError:
        return False


_SAMPLE_CATEGORIES = ("Disgust", "Sad", "Happy", "Fear")


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write a table of 14 rows and, under gaped/, 12 generated images; two rows have no image."""
    titles = ";".join(f"{category} (%)" for category in _SAMPLE_CATEGORIES)
    lines = [f"Picture ID;Database;Category;Agreement (%);Intensity;Arousal;{titles}"]
    for number in range(1, 13):
        valence = float(rng.uniform(45, 65))
        save_image(root / "gaped" / "N" / f"N{number:03d}.bmp", draw_image(rng, valence, 96, 72), "BMP")
        category = _SAMPLE_CATEGORIES[number % 4]
        rates = f"{rng.uniform(1, 7):.2f};{rng.uniform(1, 9):.2f}"
        lines.append(_sample_line(f"N{number:03d};GAPED", category, rng.uniform(30, 99), rates))
    lines.append(_sample_line("N999;GAPED", "Fear", 61, "4.10;5.20"))
    lines.append(_sample_line("1050;IAPS", "Fear", 88, "5.20;7.10"))
    (root / "capd.csv").write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")
    rated = [
        f"N{number:03d}.jpg\t{rng.uniform(45, 65):.3f}\t{rng.uniform(10, 40):.3f}" for number in range(1, 13)
    ]
    table = "\n".join(["\tValence\tArousal", *rated])
    (root / "gaped" / "N.txt").write_text(table, encoding="ascii", newline="\n")


def _sample_line(image: str, category: str, agreement: float, rates: str) -> str:
    rest = (100 - round(agreement, 1)) / (len(_SAMPLE_CATEGORIES) - 1)
    shares = (agreement if each == category else rest for each in _SAMPLE_CATEGORIES)
    texts = [f"{share:.1f}" if share == agreement else f"{share:.2f}" for share in shares]
    return ";".join([image, category, f"{agreement:.1f}", rates, *texts])
