"""Ratings of a copy are compared with digests of the published ones, and a finding says what differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from affectdata.manifest.ingest import IngestResult, ingest
from affectdata.reading import indexes
from affectdata.reading.indexes import write_index
from affectdata.reading.sample import draw_image, save_image
from affectdata.sources import oasis

Lines = list[list[str]]
ALL = ("A", "H", "N", "P", "Sn", "Sp")
LARGE = ("A", "N", "P", "Sn")  # subtypes with at least three rows
MEANS = "valence_raw, arousal_raw"  # of `X.txt`; SDs are in `X_with SD.txt`


@pytest.fixture(scope="session")
def index(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ratings")
    write_index(ingest(small_gaped, out=folder).manifest.table, "a generated tree", folder / "gaped.csv")
    return folder / "gaped.csv"


@pytest.fixture
def run(index: Path, gaped_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Ingest the copy and return the findings about its ratings, a line each."""
    monkeypatch.setattr(indexes, "find_index", {"gaped": index}.get)
    return lambda: describe(ingest(gaped_copy, out=tmp_path / "out", workers=1))


def describe(result: IngestResult) -> str:
    return "\n".join(finding.text for finding in result.findings if finding.kind.startswith("ratings"))


def edit(root: Path, table: str, change: Callable[[Lines], None]) -> None:
    """Change the rows of a table of GAPED, without its header."""
    header, *lines = [line.split("\t") for line in (root / table).read_text().splitlines()]
    change(lines)
    (root / table).write_text("\n".join("\t".join(line) for line in [header, *lines]))


def differ(change: str, *subtypes: str) -> str:
    shown = "; ".join(subtypes[:3]) + (f" and {len(subtypes) - 3} more" if len(subtypes) > 3 else "")
    return f"subtypes with ratings that differ from the indexed ones, {change}: {len(subtypes)}: {shown}"


def same(n: int) -> str:
    return f"ratings identical to the indexed ones in {n} of 6 subtypes"


def move(lines: Lines, by: int, wrap: bool) -> None:
    """Move all cells but the name down by one row (`by` 1), or up (-1)."""
    values = [line[1:] for line in lines]
    moved = values[-1:] + values[:-1] if by == 1 else values[1:] + values[:1]
    if not wrap:
        moved[0 if by == 1 else -1] = ["50"] * len(values[0])
    for line, cells in zip(lines, moved, strict=True):
        line[1:] = cells


def test_equal_ratings_are_reported(run: Callable[[], str]) -> None:
    assert run() == same(6)


@pytest.mark.parametrize("wrap", [True, False], ids=["rotated", "one value lost"])
@pytest.mark.parametrize(("by", "direction"), [(1, "down"), (-1, "up")])
def test_a_table_shifted_by_a_row(
    by: int, direction: str, wrap: bool, run: Callable[[], str], gaped_copy: Path
) -> None:
    edit(gaped_copy, "P.txt", lambda lines: move(lines, by, wrap))
    assert run() == f"{same(5)}\n{differ(f'shifted {direction} by one row', f'P ({MEANS})')}"


@pytest.mark.parametrize("by", [1, -1])
def test_a_shift_that_leaves_a_row_empty(by: int, run: Callable[[], str], gaped_copy: Path) -> None:
    def shift(lines: Lines) -> None:
        move(lines, by, wrap=True)
        lines[0 if by == 1 else -1][1:3] = ["", ""]

    edit(gaped_copy, "P.txt", shift)
    # The row without ratings is rejected with its SDs.
    first, *others = run().splitlines()
    assert first == same(5)
    assert others[0] == differ(f"shifted {'down' if by == 1 else 'up'} by one row", f"P ({MEANS})")
    assert others[1:] == [
        differ("in the number of rows", "P (valence_sd 3 instead of 4, arousal_sd 3 instead of 4)")
    ]


def test_all_tables_shifted_and_images_missing(run: Callable[[], str], gaped_copy: Path) -> None:
    """Ratings of missing images are compared too."""
    for subtype in LARGE:
        edit(gaped_copy, f"{subtype}.txt", lambda lines: move(lines, 1, wrap=True))
        next((gaped_copy / subtype).glob("*.bmp")).unlink()
    next((gaped_copy / "H").glob("*.bmp")).unlink()
    changed = differ("shifted down by one row", *(f"{subtype} ({MEANS})" for subtype in LARGE))
    assert run() == f"{same(2)}\n{changed}"


@pytest.mark.parametrize(("a", "b"), [("A", "N"), ("H", "P")], ids=["equal size", "2 and 4 rows"])
def test_two_subtypes_exchanged(a: str, b: str, run: Callable[[], str], gaped_copy: Path) -> None:
    tables = {
        name: [line.split("\t")[1:3] for line in (gaped_copy / f"{name}.txt").read_text().splitlines()[1:]]
        for name in (a, b)
    }

    def take(values: Lines) -> Callable[[Lines], None]:
        def change(lines: Lines) -> None:
            for line, cells in zip(lines, values, strict=False):
                line[1:3] = cells

        return change

    edit(gaped_copy, f"{a}.txt", take(tables[b]))
    edit(gaped_copy, f"{b}.txt", take(tables[a]))
    changed = [differ(f"the values of {other}", f"{own} ({MEANS})") for own, other in ((a, b), (b, a))]
    assert run() == "\n".join([same(4), *changed])


def test_valence_and_arousal_exchanged(run: Callable[[], str], gaped_copy: Path) -> None:
    def exchange(lines: Lines) -> None:
        for line in lines:
            line[1:3] = line[2], line[1]

    edit(gaped_copy, "Sn.txt", exchange)
    assert set(run().splitlines()) == {
        same(5),
        differ("the values of arousal_raw", "Sn (valence_raw)"),
        differ("the values of valence_raw", "Sn (arousal_raw)"),
    }


def test_a_reversed_scale(run: Callable[[], str], gaped_copy: Path) -> None:
    def reverse(lines: Lines) -> None:
        for line in lines:
            line[1] = f"{100 - float(line[1]):.3f}"

    for subtype in ALL:
        edit(gaped_copy, f"{subtype}.txt", reverse)
    assert run() == differ("reversed", *(f"{subtype} (valence_raw)" for subtype in ALL))


def test_ratings_of_other_rows_and_other_ratings(run: Callable[[], str], gaped_copy: Path) -> None:
    def exchange_rows(lines: Lines) -> None:
        lines[0][1], lines[2][1] = lines[2][1], lines[0][1]

    def change(lines: Lines) -> None:
        lines[0][1] = f"{float(lines[0][1]) + 3:.3f}"

    edit(gaped_copy, "P.txt", exchange_rows)
    edit(gaped_copy, "H.txt", change)
    first, means, rows = run().splitlines()
    assert first == same(4)
    assert rows == differ("the same values on other rows", "P (valence_raw)")
    assert means.startswith(differ("other values", "H (valence_raw with the mean ")[:-1])
    new, old = (
        float(number) for number in means.split(" mean ")[1].split(",")[0].rstrip(")").split(" instead of ")
    )
    assert round(new - old, 2) == 1.5


def test_the_order_of_rows_and_the_spelling_of_numbers_do_not_matter(
    run: Callable[[], str], gaped_copy: Path
) -> None:
    def respell(lines: Lines) -> None:
        lines.reverse()
        for line in lines:
            line[1] += "0"

    edit(gaped_copy, "P.txt", respell)
    assert run() == same(6)


def test_a_missing_table_and_missing_columns(run: Callable[[], str], gaped_copy: Path) -> None:
    (gaped_copy / "H.txt").unlink()
    shutil.rmtree(gaped_copy / "H")
    (gaped_copy / "N_with SD.txt").unlink()
    absent = "N (valence_sd 0 instead of 3, arousal_sd 0 instead of 3)"
    assert run() == f"{same(4)}\n{differ('in the number of rows', absent)}"


def test_columns_that_no_subtype_has(run: Callable[[], str], gaped_copy: Path) -> None:
    for subtype in ALL:
        (gaped_copy / f"{subtype}_with SD.txt").unlink()
    sizes = {"A": 3, "H": 2, "N": 3, "P": 4, "Sn": 4, "Sp": 2}
    texts = (
        f"{code} (valence_sd 0 instead of {n}, arousal_sd 0 instead of {n})" for code, n in sizes.items()
    )
    assert run() == differ("in the number of rows", *texts)


def test_another_collection_is_not_compared(run: Callable[[], str], gaped_copy: Path) -> None:
    for number, path in enumerate(sorted(gaped_copy.glob("*/*.bmp"))):
        save_image(path, draw_image(np.random.default_rng(number), 50.0), "BMP")
    edit(gaped_copy, "A.txt", lambda lines: lines.pop())
    assert run() == ""


def test_a_shift_of_a_table_with_all_subtypes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of subtypes lie between each other, and the first rows of a subtype get ratings of another one."""
    root, out = tmp_path / "oasis", tmp_path / "out"
    oasis.write_sample(root, np.random.default_rng(0))
    header, *lines = (root / "OASIS.csv").read_text().split("\n")
    rows = [line.split(",") for line in lines]
    order = [f"I{number}" for number in np.random.default_rng(1).permutation(len(rows)) + 1]
    rows = sorted(
        ([key, *row[1:]] for key, row in zip(order, rows, strict=True)), key=lambda row: int(row[0][1:])
    )
    save_image(root / "images/Fjord 4.jpg", draw_image(np.random.default_rng(2), 50.0), "JPEG")
    write = (root / "OASIS.csv").write_text
    write("\n".join([header, *(",".join(row) for row in rows)]))
    write_index(ingest(root, out=out).manifest.table, "a generated tree", tmp_path / "oasis.csv")
    monkeypatch.setattr(indexes, "find_index", {"oasis": tmp_path / "oasis.csv"}.get)
    shifted = [[*row[:4], *before[4:]] for row, before in zip(rows[1:], rows, strict=False)]
    write("\n".join([header, *(",".join(row) for row in [rows[0], *shifted])]))
    columns = "valence_raw, valence_sd, valence_n, arousal_raw, arousal_sd, arousal_n"
    texts = [f"{subtype} ({columns})" for subtype in ("Animal", "Object", "Person", "Scenery")]
    assert describe(ingest(root, out=out)) == differ("shifted down by one row", *texts)
