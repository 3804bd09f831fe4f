"""Where an index knows an image's content, its labels follow the content, whatever the file is called."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from affectdata.manifest import unchanged
from affectdata.manifest.ingest import IngestResult, ingest
from affectdata.reading import indexes
from affectdata.reading.indexes import write_index
from affectdata.reading.sample import draw_image, save_image
from affectdata.sources import gaped

N_IMAGES = 18  # of `small_gaped`
NO_FILE, FOREIGN = -1, N_IMAGES  # what a name may hold beside an indexed image
OF_THE_FILE = {"path", "image_id", "bytes", "format", "group_id"}


class Truth:
    """The untouched tree: its images by name, and the labels of each by its pixels."""

    def __init__(self, root: Path, rows: list[dict[str, Any]], index: Path) -> None:
        self.root, self.index = root, index
        self.names = sorted(row["path"] for row in rows)
        self.ids = {row["path"]: row["source_id"] for row in rows}
        self._labels = {row["pixel_id"]: labels(row) for row in rows}

    def check(self, result: IngestResult) -> dict[str, str]:
        """Check labels, files and counts of a result; return the source_id of each path."""
        rows = result.manifest.table.to_pylist()
        for row in rows:
            if row["pixel_id"] in self._labels:
                assert labels(row) == self._labels[row["pixel_id"]], row["path"]
        accounted = Counter([row["path"] for row in [*rows, *result.rejects.to_pylist()]])
        assert max(accounted.values()) == 1
        assert result.n_seen == len(accounted) + result.counts["annotation"]
        return {row["path"]: row["source_id"] for row in rows}


def labels(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in OF_THE_FILE}


@pytest.fixture(scope="session")
def truth(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """The small GAPED tree and an index of it."""
    folder = tmp_path_factory.mktemp("index")
    rows = ingest(small_gaped, out=folder / "out").manifest.table
    write_index(rows, "a generated tree", folder / "gaped.csv")
    return Truth(small_gaped, rows.to_pylist(), folder / "gaped.csv")


@pytest.fixture
def indexed(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> Truth:
    """The same, with its index in the place of the published one."""
    for module in (indexes, unchanged):
        monkeypatch.setattr(module, "find_index", {"gaped": truth.index}.get)
    return truth


def exchange(root: Path, names: list[str], others: list[str]) -> None:
    """Give the files `names` the names `others`."""
    held = [(root / name).read_bytes() for name in names]
    for name in names:
        (root / name).unlink()
    for other, data in zip(others, held, strict=True):
        (root / other).parent.mkdir(exist_ok=True)
        (root / other).write_bytes(data)


def reasons(result: IngestResult) -> dict[str, tuple[str, str]]:
    rows = result.rejects.to_pylist()
    return {row["path"]: (row["reason"], row["detail"]) for row in rows if row["reason"] != "junk"}


def findings(result: IngestResult, kind: str) -> list[str]:
    return [finding.text for finding in result.findings if finding.kind == kind]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., IngestResult]:
    return lambda root, **options: ingest(root, out=tmp_path / "out", workers=1, **options)


def rotated(names: list[str]) -> list[str]:
    return names[1:] + names[:1]


# Which names the images get, and how many of them bear another image's name.
RENAMED: dict[str, Callable[[list[str]], tuple[dict[str, str], int]]] = {
    "two are swapped": lambda names: ({names[0]: names[1], names[1]: names[0]}, 2),
    "three are rotated": lambda names: (dict(zip(names[:3], rotated(names[:3]), strict=True)), 3),
    "all are rotated": lambda names: (dict(zip(names, rotated(names), strict=True)), N_IMAGES),
    "two subtypes are exchanged": lambda names: ({names[0]: names[-1], names[-1]: names[0]}, 2),
    "one lies with another subtype": lambda names: ({names[0]: "P/" + names[0].split("/")[1]}, 1),
    "one has a name that no row has": lambda names: ({names[4]: "holiday.bmp"}, 1),
    "one has another suffix in another case": lambda names: ({names[4]: names[4][:-3] + "JPG"}, 0),
    "all lie in one folder": lambda names: ({name: f"all/{name.split('/')[1]}" for name in names}, 0),
    "all lie in one folder, rotated": lambda names: (
        {
            name: f"all/{other.split('/')[1].lower()}"
            for name, other in zip(names, rotated(names), strict=True)
        },
        N_IMAGES,
    ),
    "all are numbered": lambda names: ({name: f"{at}.bmp" for at, name in enumerate(names)}, N_IMAGES),
}


@pytest.mark.parametrize("renamed", RENAMED.values(), ids=RENAMED)
def test_labels_follow_the_content(
    renamed: Callable[[list[str]], tuple[dict[str, str], int]],
    indexed: Truth,
    gaped_copy: Path,
    run: Callable[..., IngestResult],
) -> None:
    names, n_other = renamed(indexed.names)
    exchange(gaped_copy, list(names), list(names.values()))
    result = run(gaped_copy, source="gaped")
    found = indexed.check(result)
    assert found == {names.get(name, name): indexed.ids[name] for name in indexed.names}
    assert not reasons(result) and result.counts["annotation"] == 13
    texts = findings(result, "renamed")
    assert len(texts) == bool(n_other)
    if texts:
        assert texts[0].startswith(f"images under another name than in the index: {n_other}: ")
        assert texts[0].count(" it gets the ratings of ") == min(n_other, 3)
        assert (f"; and {n_other - 3} more" in texts[0]) == (n_other > 3)


def test_a_finding_names_both_names(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    one, other = indexed.names[:2]
    exchange(gaped_copy, [one, other], [other, one])
    [text] = findings(run(gaped_copy), "renamed")
    assert f"{one} holds the image that the index calls {other}; it gets the ratings of {other}; " in text
    assert f"{other} holds the image that the index calls {one}; it gets the ratings of {one}" in text


def save_as_png(root: Path, name: str, other: str) -> None:
    with Image.open(root / name) as image:
        save_image(root / other, np.asarray(image.convert("RGB")), "PNG")
    (root / name).unlink()


def test_an_image_saved_without_loss_is_known_by_its_pixels(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    one, other, third = indexed.names[:3]
    for name, called in ((one, other), (other, one), (third, third)):
        save_as_png(gaped_copy, name, called[:-3] + "png")
    result = run(gaped_copy)
    found = indexed.check(result)
    assert found[one[:-3] + "png"] == indexed.ids[other] and found[other[:-3] + "png"] == indexed.ids[one]
    assert len(found) == N_IMAGES and not reasons(result)
    [text] = findings(result, "renamed")
    assert ": 2: " in text and third[:-4] not in text


def test_a_copy_under_another_name_is_merged_and_its_row_has_no_image(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    one, other, third = indexed.names[3:6]
    shutil.copy(gaped_copy / other, gaped_copy / one)
    shutil.copy(gaped_copy / other, gaped_copy / "A/ of it.bmp")
    save_as_png(gaped_copy, third, "again.png")
    shutil.copy(indexed.root / third, gaped_copy / third)
    result = run(gaped_copy)
    assert set(indexed.check(result)) == set(indexed.names) - {one}
    row = f"{one.split('/')[0]}.txt#{indexed.ids[one]}"
    found = reasons(result)
    assert found.pop(row) == (
        "missing_image",
        f"rated, but there is no image {indexed.ids[one]!r}; "
        f"{one} holds the image that the index calls {other}",
    )
    assert found == {
        one: ("exact_duplicate", f"the same bytes as {other}"),
        "A/ of it.bmp": ("exact_duplicate", f"the same bytes as {other}"),
        "again.png": ("exact_duplicate", f"the same pixels as {third}"),
    }
    assert result.counts["merged"] == 3 and not findings(result, "renamed")


def test_a_rating_that_is_none_stays_with_its_image_and_all_copies_of_it(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    one, other = indexed.names[:2]
    exchange(gaped_copy, [one, other], [other, one])
    shutil.copy(gaped_copy / one, gaped_copy / "copy.bmp")
    for cell, reason in (("n/a", "bad_rating"), ("101", "rating_out_of_range")):
        table = indexed.root / "A.txt"
        lines = [line.split("\t") for line in table.read_text().splitlines()]
        edited = [
            [each[0], cell, *each[2:]] if each[0].startswith(indexed.ids[other]) else each for each in lines
        ]
        (gaped_copy / "A.txt").write_text("\n".join("\t".join(line) for line in edited))
        result = run(gaped_copy)
        assert indexed.check(result)[other] == indexed.ids[one]
        assert {path: found for path, (found, _) in reasons(result).items()} == {
            one: reason,
            "copy.bmp": reason,
        }


def test_an_image_that_is_not_indexed_keeps_the_labels_of_its_name_with_a_finding(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    for number, name in enumerate(indexed.names[:4]):
        save_image(gaped_copy / name, draw_image(np.random.default_rng(number), 50.0), "BMP")
    result = run(gaped_copy)
    found = indexed.check(result)
    assert {name: found[name] for name in indexed.names[:4]} == {
        name: indexed.ids[name] for name in indexed.names[:4]
    }
    [text] = findings(result, "differs")
    assert text == (
        "images whose content differs from the indexed image of their name, by which they are rated: "
        f"4: {'; '.join(indexed.names[:3])}; and 1 more"
    )


@pytest.mark.parametrize("data", [None, b"no image"], ids=["another image", "no image"])
def test_what_bears_the_name_of_an_image_that_is_elsewhere_does_not_get_its_labels(
    data: bytes | None, indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    one, other = indexed.names[:2]
    exchange(gaped_copy, [one], ["moved.bmp"])
    for name in (one, f"{other[:-3]}jpg"):
        save_image(gaped_copy / name, draw_image(np.random.default_rng(0), 50.0), "BMP")
        if data:
            (gaped_copy / name).write_bytes(data)
    result = run(gaped_copy)
    found = indexed.check(result)
    assert found["moved.bmp"] == indexed.ids[one] and found[other] == indexed.ids[other]
    assert len(found) == N_IMAGES and not findings(result, "differs")
    for name, holder in ((one, "moved.bmp"), (f"{other[:-3]}jpg", other)):
        reason, detail = reasons(result)[name]
        assert reason == ("unreadable" if data else "missing_rating")
        assert data or detail.endswith(f"which is {holder}")


@settings(max_examples=25)
@given(st.lists(st.integers(NO_FILE, FOREIGN), min_size=N_IMAGES, max_size=N_IMAGES))
def test_whatever_the_files_hold(
    truth: Truth, tmp_path_factory: pytest.TempPathFactory, held: list[int]
) -> None:
    """Every name holds any indexed image, a foreign one or none; the first file always holds something."""
    held[0] = max(held[0], 0)
    root = Path(shutil.copytree(truth.root, tmp_path_factory.mktemp("held") / "gaped"))
    for at, content in enumerate(held):
        (root / truth.names[at]).unlink()
        if content == FOREIGN:
            save_image(root / truth.names[at], draw_image(np.random.default_rng(at), 50.0), "BMP")
        elif content != NO_FILE:
            shutil.copy(truth.root / truth.names[content], root / truth.names[at])
    there = {content for content in held if 0 <= content < N_IMAGES}
    own = {at for at, content in enumerate(held) if content == FOREIGN and at not in there}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexes, "find_index", {"gaped": truth.index}.get)
        result = ingest(root, source="gaped", out=root.parent / "out", workers=1)
    found = truth.check(result)
    assert Counter(found.values()) == Counter(truth.ids[truth.names[at]] for at in there | own)
    assert all(found[truth.names[at]] == truth.ids[truth.names[at]] for at in own)
    counts = Counter(reason for reason, _ in reasons(result).values())
    n_known = sum(0 <= content < N_IMAGES for content in held)
    assert counts == +Counter(
        exact_duplicate=n_known - len(there),
        missing_image=N_IMAGES - len(there | own),
        missing_rating=held.count(FOREIGN) - len(own),
    )


# --- cost


def test_where_names_and_contents_agree_the_source_is_read_once(
    indexed: Truth, run: Callable[..., IngestResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = [], gaped.read

    def counted(*arguments: Any) -> Any:
        reads.append(1)
        return read(*arguments)

    monkeypatch.setattr(gaped, "read", counted)
    result = run(indexed.root)
    assert len(reads) == 1 and not findings(result, "renamed") and not findings(result, "differs")
    monkeypatch.setattr(indexes, "find_index", lambda source: None)
    assert run(indexed.root, rehash=True).digest == result.digest


def test_a_changed_index_is_noticed(
    indexed: Truth, gaped_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    one, other = indexed.names[:2]
    exchange(gaped_copy, [one, other], [other, one])
    index = Path(shutil.copy(indexed.index, tmp_path / "other.csv"))
    for module in (indexes, unchanged):
        monkeypatch.setattr(module, "find_index", {"gaped": index}.get)
    assert indexed.check(run(gaped_copy))[one] == indexed.ids[other]
    again = run(gaped_copy)
    assert findings(again, "renamed")
    index.write_text("# nothing is known\nfile,sha256\n")
    assert {
        row["path"]: row["source_id"] for row in run(gaped_copy).manifest.table.to_pylist()
    } == indexed.ids
