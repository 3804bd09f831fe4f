"""WikiArt Emotions: 4,105 works of Western art, with the share of raters who felt each of 20 emotions.

Mohammad & Kiritchenko (2018). About ten people per work marked the emotions that it evokes, for the image
with its title, the image alone and the title alone; a work may have several emotions. There is no valence.
The ratings of the art itself (-3 to 3: liking) are in `extra`.

The tables as shipped; images are not shipped, and are saved as `<ID>.jpg` whatever their format:

    README.txt                       of an older release: its list of columns does not match the tables
    WikiArt-Emotions-All.tsv         4,105 rows, 69 columns, CRLF, cells with a comma quoted; shares 0–1
    WikiArt-Emotions-Ag3.tsv …       0 and 1: All at 0.3, 0.4, 0.5 (`neutral` only without another emotion)
    WikiArt-info.tsv                 4,119 rows, unquoted: titles, years and URLs; 14 works are not rated
    WikiArt-annotations.csv          the answers of single raters

Shares are read from All; Ag3, Ag4 and Ag5 follow from it and are not read. A recipe gets the authors' Ag4
with `labels: {at_least: 0.4}`. With --variant image or title the shares are those for the image or the title
alone; the other shares and columns are in `extra`. Titles are from the info table, as a spreadsheet turned
five of the others into dates. Older releases have URLs in the rating tables. If two emotions have the largest
share, `emotion` is empty. `subtype` is the style; eight works have two.
"""

from __future__ import annotations

import html
import string
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import numpy as np

from affectdata.errors import SourceError
from affectdata.labels import dominant_emotion, spell_emotion
from affectdata.reading.delimited import parse_delimited, parse_share, require_columns
from affectdata.reading.join import Row, join_rows
from affectdata.reading.names import find_readmes, fold_stem
from affectdata.reading.protocol import Item, Link, Reading, ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.reading.tables import read_head
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Finding, Reason, Record, Reject, SourceInfo, Subtype, shorten

_VARIANTS = {"art": "Art (image+title): ", "image": "ImageOnly: ", "title": "TitleOnly: "}
_STYLES = ("Renaissance Art", "Post Renaissance Art", "Modern Art", "Contemporary Art")
INFO = SourceInfo(
    name="wikiart_emotions",
    title="WikiArt Emotions",
    scales={},
    license="annotations © NRC Canada, research only, not to be redistributed; pictures: see WikiArt.org",
    citation=(
        "Mohammad, S. M., & Kiritchenko, S. (2018). WikiArt Emotions: An annotated dataset of emotions "
        "evoked by art. Proceedings of the 11th Language Resources and Evaluation Conference (LREC)."
    ),
    bibtex="""\
@inproceedings{mohammad2018wikiart,
  author    = {Mohammad, Saif M. and Kiritchenko, Svetlana},
  title     = {{WikiArt Emotions}: An Annotated Dataset of Emotions Evoked by Art},
  booktitle = {Proceedings of the 11th Language Resources and Evaluation Conference ({LREC})},
  year      = {2018},
}""",
    url="http://saifmohammad.com/WebPages/wikiartemotions.html",
    layout="WikiArt-Emotions-All.tsv, WikiArt-info.tsv, and images named <ID>.jpg in any folder",
    subtypes={style: Subtype(style.lower()) for style in _STYLES},
    variants=tuple(_VARIANTS),
)
_TABLE, _INFO_TABLE = "WikiArt-Emotions-All.tsv", "WikiArt-info.tsv"
_URL = "Image URL"


def detect(tree: Tree) -> str | None:
    """Recognise the collection by the header of a table of emotions."""
    tables = _rating_tables(tree)
    return f"the header of {tables[0]}" if tables else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the table of shares and the one of URLs.

    Raises:
        SourceError: the table of shares is missing.
    """
    table, prefix = _find_table(tree), _VARIANTS[options.variant or "art"]
    return Reading(replace(INFO, title=f"{INFO.title}, {prefix[:-2]}"), _read_items(tree, table, prefix))


def find_links(tree: Tree, options: ReadOptions) -> Iterator[Link]:
    """Yield the addresses of the rated works."""
    paths = {fold_stem(path): path for path in tree.images()}
    table = _find_table(tree)
    works = _find_works(tree, table)[1]
    for row in _read_rows(tree, table):
        url = _work_url(row, works.get(row["ID"], {}))
        if url:
            yield Link(paths.get(fold_stem(row["ID"]), f"images/{row['ID']}.jpg"), url)


def _find_table(tree: Tree) -> str:
    tables = _rating_tables(tree)
    table = next((path for path in tables if _name(path) == _TABLE), None)
    named = [path for path in tree.others() if _name(path) == _TABLE]
    if table is None and named:
        raise SourceError(
            f"{named[0]} has no column {_VARIANTS['art']!r}…",
            where=str(tree.root / named[0]),
            fix="restore the original table",
        )
    if table is None:
        raise SourceError(
            f"{_TABLE} is missing: only this table has the shares of raters",
            where=f"{tree.root}: {', '.join(tables) or 'no table of WikiArt Emotions'}",
            fix=f"put the original {_TABLE} beside the images",
        )
    return table


def _name(path: str) -> str:
    return PurePosixPath(path).name


def _rating_tables(tree: Tree) -> list[str]:
    """List the tables of shares and of labels, the one of shares first."""
    tables = [path for path in tree.others() if path.endswith(".tsv")]
    rating_tables = [path for path in tables if _VARIANTS["art"] in read_head(tree, path)]
    return sorted(rating_tables, key=lambda path: _name(path) != _TABLE)


def _read_items(tree: Tree, table: str, prefix: str) -> Iterator[Item]:
    folder = table.removesuffix(_name(table))
    works_table, works = _find_works(tree, table)
    shipped = {path for path in tree.others() if fnmatchcase(path, f"{folder}WikiArt-*.[ct]sv")}
    unread = sorted({*_rating_tables(tree), *shipped} - {table, works_table})
    readmes = {*find_readmes(tree), *find_readmes(tree, folder)}
    yield from map(Annotation, [table, *unread, *sorted(readmes), *([works_table] if works else [])])
    if unread:
        yield Finding("unread_table", f"not read, as the shares are from {table}: {shorten(unread)}")
    rows = _read_rows(tree, table)
    if unrated := sorted(works.keys() - {row["ID"] for row in rows}):
        yield Finding("unrated", f"in {works_table}, but not rated ({len(unrated)}): {shorten(unrated)}")
    if not works and not any(_URL in row for row in rows):
        yield Finding("partial", f"{works_table} is missing: no URLs, and some titles were turned into dates")
    by_id = (Row(table, row["ID"], row["ID"], row) for row in rows)
    for item in join_rows(by_id, tree.images(), fold_stem):
        yield _record(*item, works, prefix) if isinstance(item, tuple) else item


def _read_rows(tree: Tree, table: str) -> list[dict[str, str]]:
    header, lines = parse_delimited(tree.read_bytes(table), "\t", table)
    require_columns(header, ["ID", "Style", "Artist", "Title", "Year"], table)
    return [dict(zip(header, line, strict=True)) for line in lines]


def _find_works(tree: Tree, rating_table: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Return the table of works beside the rating table, and its rows by ID; empty if it is missing."""
    table = rating_table.removesuffix(_name(rating_table)) + _INFO_TABLE
    if table not in tree.files:
        return table, {}
    header, lines = parse_delimited(tree.read_bytes(table), "\t", table)
    require_columns(header, ["ID", "Title", _URL], table)
    rows = (dict(zip(header, line, strict=True)) for line in lines)
    return table, {row["ID"]: row for row in rows}


def _record(row: Row, path: str, works: dict[str, dict[str, str]], prefix: str) -> Record | Reject:
    try:
        shares = {
            spell_emotion(name.removeprefix(prefix)): parse_share(cell)
            for name, cell in row.cells.items()
            if name.startswith(prefix)
        }
    except ValueError as error:
        return Reject(path, Reason.BAD_RATING, f"{row.where}: {error}")
    work = works.get(row.key, {})
    rest = {name: cell for name, cell in row.cells.items() if not name.startswith(prefix)}
    moved = {f"{name} ({_TABLE})": rest[name] for name in work if name in rest and rest[name] != work[name]}
    cells = {**rest, **work, **moved}
    artist, title = html.unescape(cells["Artist"]).strip(), html.unescape(cells["Title"])
    return Record(
        path=path,
        source_id=row.key,
        subtype=cells["Style"] or None,
        emotion=dominant_emotion(shares),
        emotions=shares,
        artist=artist or None,
        attribution=f"{artist}: {title} ({cells['Year']}), WikiArt.org",
        url=_work_url(row.cells, work),
        extra={name: cell for name, cell in cells.items() if name not in ("ID", "Style")},
    )


def _work_url(row: Mapping[str, str], work: Mapping[str, str]) -> str | None:
    """Return the URL of a work in ASCII, on the current host."""
    url = row.get(_URL) or work.get(_URL, "")
    return quote(url.replace("use2-", ""), safe=string.punctuation) or None


# The generated sample: emotions in the order of the tables, and artists with the quirks of real cells.
_EMOTIONS = (
    *("agreeableness", "anger", "anticipation", "arrogance", "disagreeableness", "disgust", "fear"),
    *("gratitude", "happiness", "humility", "love", "optimism", "pessimism", "regret", "sadness", "shame"),
    *("shyness", "surprise", "trust", "neutral"),
)
_ARTISTS = ("Ada Vermilion", "Pat O&#39;Quill ", "Jos\u00e9 Umbra", "Workshop of the Blue Door", "Mira Lind")
_INFO_COLUMNS = ("ID", "Category", "Artist", "Title", "Year", _URL, "Painting Info URL", "Artist Info URL")
_COLUMNS = (
    *("ID", "Style", "Category", "Artist", "Title", "Year", "Is painting", "Face/body", "Ave. art rating"),
)
_N_IMAGES = 40


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 40 generated images and the five tables; one rated work has no image, two are not rated."""
    works = [_draw_work(rng, number) for number in range(_N_IMAGES + 3)]
    shares = [_draw_shares(rng) for _ in range(_N_IMAGES + 1)]
    for number, work in enumerate(works[:_N_IMAGES]):
        image = draw_image(rng, rng.uniform(5, 95), 112, 84)
        save_image(root / "images" / f"{work['ID']}.jpg", image, "PNG" if number == 5 else "JPEG")
    emotions = [prefix + emotion for prefix in _VARIANTS.values() for emotion in _EMOTIONS]
    for name, threshold in (("All", None), ("Ag3", 0.3), ("Ag4", 0.4), ("Ag5", 0.5)):
        lines = ["\t".join([*_COLUMNS, *emotions])]
        for number, (work, work_shares) in enumerate(zip(works, shares, strict=False)):
            cells = {**work, "Title": "1-Aug-48" if number == 3 else work["Title"]}
            quoted = [f'"{cells[name]}"' if "," in cells[name] else cells[name] for name in _COLUMNS]
            lines.append("\t".join(quoted + _share_cells(work_shares, threshold)))
        _write_crlf(root / f"WikiArt-Emotions-{name}.tsv", lines)
    info = ["\t".join(work[name] for name in _INFO_COLUMNS) for work in works]
    _write_crlf(root / _INFO_TABLE, ["\t".join(_INFO_COLUMNS), *info])
    (root / "README.txt").write_text("Generated works and shares.\n", encoding="utf-8", newline="\n")


def _draw_work(rng: np.random.Generator, number: int) -> dict[str, str]:
    site = f"https://uploads{number % 9}.wikiart.org/images/no-such-artist/no-such-work-{number}"
    return {
        "ID": rng.bytes(12).hex(),
        "Style": "Contemporary Art,Modern Art" if number == 8 else _STYLES[number % 4],
        "Category": "Cubism,Expressionism" if number == 9 else "Made Up",
        "Artist": dict(enumerate(_ARTISTS)).get(number % 14, f"Painter {number % 14}"),
        "Title": ("Still Life", "Harbour, at Night", "The Miller&#39;s Gate", "1 August 1948")[number % 4],
        "Year": ("1893", "XVIII-XIX cent.", "1481-1482")[number % 3],
        "Is painting": "yes",
        "Face/body": ("face", "none", "body")[number % 3],
        "Ave. art rating": f"{rng.uniform(-2, 2.8):.1f}",
        _URL: site + {2: "-caf\u00e9.jpg", 4: ".JPG"}.get(number, ".jpg"),
        "Painting Info URL": site,
        "Artist Info URL": "https://www.wikiart.org/no-such-artist",
    }


def _draw_shares(rng: np.random.Generator) -> np.ndarray:
    """Draw the shares of 10–12 raters, shape (3 questions, 20 emotions); a work has few emotions."""
    n = int(rng.integers(10, 13))
    felt = np.clip(2 * rng.dirichlet(np.full(len(_EMOTIONS), 0.2)), 0, 0.95)
    return np.round(rng.binomial(n, felt, (3, len(_EMOTIONS))) / n, 3)


def _share_cells(shares: np.ndarray, threshold: float | None) -> list[str]:
    if threshold is None:
        return [f"{share:g}" for share in shares.ravel()]
    chosen = shares >= threshold
    chosen[:, -1] &= ~chosen[:, :-1].any(axis=1)
    return [str(int(cell)) for cell in chosen.ravel()]


def _write_crlf(path: Path, lines: list[str]) -> None:
    path.write_bytes(("\r\n".join(lines) + "\r\n").encode())
