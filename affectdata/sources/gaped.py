"""GAPED, the Geneva Affective PicturE Database: 730 images of six categories, rated by 60 students.

Dan-Glauser & Scherer (2011). Valence and arousal on 0–100, neutral 50, with standard deviations; the
images of animal mistreatment and of human-rights violations also have ratings of internal (moral) and
external (legal) norms. The number of raters per image is not given.

The tree as shipped:

    readme.txt                   cp1252
    A.txt H.txt N.txt P.txt Sn.txt Sp.txt               tab-separated means; A and H with norms
    A_with SD.txt …                                     the same with columns of "(5.43)", all named "(SD)"
    A/A001.bmp …  H/ N/ P/ Sn/ Sp/                      the tables name A001.jpg, the files are .bmp

If a folder is missing, its images are found by name in any other folder.

Means are from `X.txt` (full precision), SDs from `X_with SD.txt`. Gaps in the numbering are not missing
files. The category of an image does not determine its valence: snakes reach 64, human rights 61.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import basename, splitext

import numpy as np

from affectdata.errors import SourceError
from affectdata.reading.delimited import parse_delimited, parse_number, require_columns
from affectdata.reading.join import Row, join_rows
from affectdata.reading.protocol import Item, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tables import read_head
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Finding, Rating, Reason, Record, Reject, Scale, SourceInfo, Subtype

# Published numbers of images per interval of 5 POMP units, [0, 5) … [95, 100]: no rating of an image.
_COUNTS = {
    "A": {
        "valence": (8, 10, 31, 18, 14, 13, 11, 5, 8, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        "arousal": (0, 0, 0, 0, 0, 1, 1, 3, 9, 12, 15, 15, 21, 18, 17, 5, 6, 1, 0, 0),
    },
    "H": {
        "valence": (10, 10, 8, 14, 11, 6, 8, 7, 7, 10, 7, 6, 1, 0, 0, 0, 0, 0, 0, 0),
        "arousal": (0, 0, 0, 0, 0, 0, 2, 12, 10, 9, 14, 10, 8, 12, 10, 8, 7, 1, 2, 0),
    },
    "N": {
        "valence": (0, 0, 0, 0, 0, 0, 0, 0, 3, 11, 30, 22, 16, 7, 0, 0, 0, 0, 0, 0),
        "arousal": (0, 0, 9, 14, 25, 22, 9, 4, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    },
    "P": {
        "valence": (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 10, 11, 26, 47, 24),
        "arousal": (0, 11, 26, 24, 19, 23, 7, 6, 1, 0, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0),
    },
    "Sn": {
        "valence": (0, 0, 0, 8, 4, 10, 12, 21, 22, 17, 28, 9, 2, 0, 0, 0, 0, 0, 0, 0),
        "arousal": (0, 0, 0, 0, 0, 0, 6, 12, 16, 14, 21, 22, 18, 20, 4, 0, 0, 0, 0, 0),
    },
    "Sp": {
        "valence": (0, 1, 10, 6, 15, 11, 33, 35, 18, 8, 16, 5, 0, 0, 0, 0, 0, 0, 0, 0),
        "arousal": (0, 0, 0, 0, 0, 0, 0, 6, 17, 12, 28, 24, 23, 29, 15, 4, 0, 0, 0, 0),
    },
}
INFO = SourceInfo(
    name="gaped",
    title="Geneva Affective PicturE Database",
    scales={"valence": Scale(0, 100), "arousal": Scale(0, 100)},
    license="CC BY-NC-SA 3.0; research only, must not be broadcast",
    citation=(
        "Dan-Glauser, E. S., & Scherer, K. R. (2011). The Geneva affective picture database (GAPED): a new "
        "730-picture database focusing on valence and normative significance. Behavior Research Methods, "
        "43(2), 468–477. https://doi.org/10.3758/s13428-011-0064-1"
    ),
    bibtex="""\
@article{danglauser2011gaped,
  author  = {Dan-Glauser, Elise S. and Scherer, Klaus R.},
  title   = {The {Geneva} affective picture database ({GAPED}): a new 730-picture database focusing on valence
             and normative significance},
  journal = {Behavior Research Methods},
  volume  = {43},
  number  = {2},
  pages   = {468--477},
  year    = {2011},
  doi     = {10.3758/s13428-011-0064-1},
}""",
    url="https://www.unige.ch/cisa/research/materials-and-online-research/research-material/",
    layout="{A,H,N,P,Sn,Sp}/*.bmp, {A,H,N,P,Sn,Sp}.txt, '{A,H,N,P,Sn,Sp}_with SD.txt'",
    subtypes={
        "A": Subtype("animal mistreatment", -1, upright=True, tags=("animal_cruelty",), counts=_COUNTS["A"]),
        "H": Subtype("human rights", -1, upright=True, tags=("violence",), counts=_COUNTS["H"]),
        "N": Subtype("neutral", 0, upright=True, counts=_COUNTS["N"]),
        "P": Subtype("positive", 1, upright=True, counts=_COUNTS["P"]),
        "Sn": Subtype("snakes", -1, upright=False, tags=("snakes",), counts=_COUNTS["Sn"]),
        "Sp": Subtype("spiders", -1, upright=False, tags=("spiders",), counts=_COUNTS["Sp"]),
    },
    # found by `affectdata groups`; pHash does not see them
    same_images=(("N068", "N076"), ("Sn101", "Sn110"), ("Sp133", "Sp135")),
)
_MEASURES = {"valence": "Valence", "arousal": "Arousal"}
_NAME = re.compile(rf"({'|'.join(INFO.subtypes)})\d{{3}}", re.IGNORECASE)


def detect(tree: Tree) -> str | None:
    """Recognise GAPED by a table `X.txt` beside images named `X001`, in a folder `X` or elsewhere."""
    for code in INFO.subtypes:
        table = f"{code}.txt"
        if table in tree.files and set(_MEASURES.values()) <= set(read_head(tree, table).split("\t")):
            named = [path for path in _images(tree, code) if _category(path)]
            if named:
                return f"{table} beside images such as {named[0]}"
    return None


def _images(tree: Tree, code: str) -> list[str]:
    """List the images of a category: those in its folder, else those with its code in their names."""
    images = tree.images()
    return list(images.inside(f"{code}/")) or [path for path in images if _category(path) == code]


def _category(path: str) -> str | None:
    """Return the code of the category that an image's name starts with."""
    match = _NAME.fullmatch(_stem(path))
    return match and match[1].capitalize()


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the tables; a folder of images without its table is an error."""
    return Reading(INFO, _read_items(tree))


def _read_items(tree: Tree) -> Iterator[Item]:
    for code in INFO.subtypes:
        images = _images(tree, code)
        table = f"{code}.txt"
        if table in tree.files:
            yield from _read_subtype(tree, code, images)
        elif images:
            raise SourceError(
                f"there are {len(images)} images such as {images[0]}, but no table {table}",
                where=str(tree.root / table),
                fix=f"restore {table} from the original archive",
            )
        else:
            yield Finding(
                "partial",
                f"neither {code}/ nor {table}: this copy has no images of {INFO.subtypes[code].name}",
            )
    if "readme.txt" in tree.files:
        yield Annotation("readme.txt")


def _read_subtype(tree: Tree, code: str, images: list[str]) -> Iterator[Item]:
    table, sd_table = f"{code}.txt", f"{code}_with SD.txt"
    header, rows = parse_delimited(tree.read_bytes(table), "\t", table)
    require_columns(header, list(_MEASURES.values()), table)
    yield Annotation(table)
    spreads: dict[str, dict[str, str]] = {}
    if sd_table in tree.files:
        spreads = _read_spreads(tree.read_bytes(sd_table), sd_table)
        yield Annotation(sd_table)
    else:
        yield Finding("partial", f"{sd_table} is missing: no standard deviations for {code}")
    cells = (dict(zip(header, row, strict=True)) for row in rows)
    by_name = (Row(table, _stem(row[""]), _stem(row[""]), row) for row in cells)
    for item in join_rows(by_name, images, lambda path: _stem(path).lower()):
        yield _record(code, *item, spreads) if isinstance(item, tuple) else item


def _stem(name: str) -> str:
    return splitext(basename(name))[0]


def _record(code: str, row: Row, path: str, all_spreads: dict[str, dict[str, str]]) -> Record | Reject:
    spreads = all_spreads.get(row.key, {})
    ratings = {}
    for measure, column in _MEASURES.items():
        spread = spreads.get(column)
        try:
            mean, sd = parse_number(row.cells[column]), parse_number(spread) if spread else None
        except ValueError as error:
            return Reject(path, Reason.BAD_RATING, f"{row.where}, {column}: {error}")
        ratings[measure] = Rating(mean, sd)
    used = {"", *_MEASURES.values()}
    norms = {column: cell for column, cell in row.cells.items() if column not in used}
    norm_spreads = {f"{column} (SD)": cell for column, cell in spreads.items() if column not in used}
    return Record(
        path=path,
        source_id=row.key,
        subtype=code,
        ratings=ratings,
        content_tags=INFO.subtypes[code].tags,
        extra={**norms, **norm_spreads},
        together=INFO.together(row.key),
    )


def _read_spreads(data: bytes, name: str) -> dict[str, dict[str, str]]:
    """Return the "(SD)" cell after each measure, by image and measure."""
    header, rows = parse_delimited(data, "\t", name)
    require_columns(header, [*_MEASURES.values(), "(SD)"], name)
    columns = {header[index - 1]: index for index, title in enumerate(header) if title == "(SD)"}
    return {_stem(row[0]): {title: row[index] for title, index in columns.items()} for row in rows}


# The generated sample: a third of GAPED's counts, and its means and spreads of valence and arousal.
_SAMPLE = {
    "A": (41, (21.3, 12.4), (60.6, 12.0)),
    "H": (35, (28.0, 17.5), (58.7, 15.0)),
    "N": (30, (55.8, 6.1), (24.9, 7.8)),
    "P": (40, (89.6, 6.2), (21.6, 10.7)),
    "Sn": (44, (41.5, 11.2), (53.6, 10.7)),
    "Sp": (53, (35.1, 11.4), (58.2, 10.3)),
}


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 243 generated images in GAPED's layout, with its imbalance and its quirks."""
    root.mkdir(parents=True, exist_ok=True)
    for code, (count, valences, arousals) in _SAMPLE.items():
        numbers = np.sort(rng.permutation(np.arange(1, count + 6))[:count])  # with gaps
        rows = []
        for number in numbers:
            valence, arousal = (float(np.clip(rng.normal(*spec), 0.5, 99.5)) for spec in (valences, arousals))
            rows.append((f"{code}{number:03d}", round(valence, 3), round(arousal, 3)))
        _write_sample_tables(root, code, rows, rng)
        images = [draw_image(rng, valence) for _, valence, _ in rows]
        if code == "Sn":  # a near-duplicate of the first, with its own ratings
            images[1] = np.clip(images[0].astype(np.int16) + 6, 0, 255).astype(np.uint8)
        for index, (key, _, _) in enumerate(rows):
            save_image(root / code / f"{key}.bmp", images[index], "BMP", palette=index % 4 == 3)
        (root / code / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0 no picture")
    readme = "GAPED layout, generated pictures and ratings \x97 not the database.\r\n"
    (root / "readme.txt").write_bytes(readme.encode("latin-1"))


def _write_sample_tables(
    root: Path, code: str, rows: list[tuple[str, float, float]], rng: np.random.Generator
) -> None:
    norms = code in ("A", "H")
    means = ["\tValence\tArousal" + "\tInternal norms\tExternal norms" * norms]
    spreads = [
        "\tValence\t(SD)\t\tArousal\t(SD)" + "\t\tInternal norms\t(SD)\t\tExternal norms\t(SD)" * norms
    ]
    for key, valence, arousal in rows:
        inner, outer = rng.uniform(10, 60, 2) if norms else (0.0, 0.0)
        means.append(f"{key}.jpg\t{valence:.3f}\t{arousal:.3f}" + f"\t{inner:.8f}\t{outer:.8f}" * norms)
        sds = [f"({sd:.2f})" for sd in rng.uniform(5, 30, 4)]
        line = f"{key}.jpg\t{valence:g}\t{sds[0]}\t\t{arousal:g}\t{sds[1]}"
        spreads.append(line + f"\t\t{inner:.3g}\t{sds[2]}\t\t{outer:.3g}\t{sds[3]}" * norms)
    if code == "A":
        spreads += ["\t" * 11] * 5
    (root / f"{code}.txt").write_text("\n".join(means), encoding="ascii", newline="\n")
    (root / f"{code}_with SD.txt").write_text("\n".join(spreads) + "\n", encoding="ascii", newline="\n")
