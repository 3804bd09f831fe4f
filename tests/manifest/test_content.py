"""An indexed image gets the labels of its content, whatever its file name."""

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

from affectdata.errors import UsageError
from affectdata.manifest import unchanged
from affectdata.manifest.ingest import IngestResult, ingest
from affectdata.reading import indexes
from affectdata.reading.indexes import write_index
from affectdata.reading.protocol import ReadOptions
from affectdata.reading.sample import draw_image, save_image
from affectdata.sources import gaped

N_IMAGES = 18  # of `small_gaped`
NO_FILE, FOREIGN = -1, N_IMAGES  # contents of a file besides an indexed image
OF_THE_FILE = {"path", "image_id", "bytes", "format", "group_id"}


class Truth:
    """The untouched tree: its image names, and the labels by pixel hash."""

    def __init__(self, root: Path, rows: list[dict[str, Any]], index: Path) -> None:
        self.root, self.index = root, index
        self.names = sorted(row["path"] for row in rows)
        self.ids = {row["path"]: row["source_id"] for row in rows}
        self.look_the_same = [name for name in self.names if name.startswith("Sn/")][:2]  # as planted
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
    """The same, with its index instead of the published one."""
    for module in (indexes, unchanged):
        monkeypatch.setattr(module, "find_index", {"gaped": truth.index}.get)
    return truth


def rename(root: Path, names: list[str], new_names: list[str]) -> None:
    """Rename the files `names` to `new_names`, which may overlap."""
    contents = [(root / name).read_bytes() for name in names]
    for name in names:
        (root / name).unlink()
    for new_name, data in zip(new_names, contents, strict=True):
        (root / new_name).parent.mkdir(exist_ok=True)
        (root / new_name).write_bytes(data)


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


# The new names of images, and how many of them are names of another image.
RENAMED: dict[str, Callable[[list[str]], tuple[dict[str, str], int]]] = {
    "two are swapped": lambda names: ({names[0]: names[1], names[1]: names[0]}, 2),
    "three are rotated": lambda names: (dict(zip(names[:3], rotated(names[:3]), strict=True)), 3),
    "all are rotated": lambda names: (dict(zip(names, rotated(names), strict=True)), N_IMAGES),
    "two subtypes are exchanged": lambda names: ({names[0]: names[-1], names[-1]: names[0]}, 2),
    "one is in the folder of another subtype": lambda names: ({names[0]: "P/" + names[0].split("/")[1]}, 1),
    "one has a name that no row has": lambda names: ({names[4]: "holiday.bmp"}, 1),
    "one has another suffix in another case": lambda names: ({names[4]: names[4][:-3] + "JPG"}, 0),
    "all are in one folder": lambda names: ({name: f"all/{name.split('/')[1]}" for name in names}, 0),
    "all are in one folder, rotated": lambda names: (
        {
            name: f"all/{new_name.split('/')[1].lower()}"
            for name, new_name in zip(names, rotated(names), strict=True)
        },
        N_IMAGES,
    ),
    "all are numbered": lambda names: ({name: f"{index}.bmp" for index, name in enumerate(names)}, N_IMAGES),
}


@pytest.mark.parametrize("renamed", RENAMED.values(), ids=RENAMED)
def test_labels_follow_the_content(
    renamed: Callable[[list[str]], tuple[dict[str, str], int]],
    indexed: Truth,
    gaped_copy: Path,
    run: Callable[..., IngestResult],
) -> None:
    names, n_renamed = renamed(indexed.names)
    rename(gaped_copy, list(names), list(names.values()))
    result = run(gaped_copy, source="gaped")
    ids = indexed.check(result)
    assert ids == {names.get(name, name): indexed.ids[name] for name in indexed.names}
    assert not reasons(result) and result.counts["annotation"] == 13
    texts = findings(result, "renamed")
    assert len(texts) == bool(n_renamed)
    if texts:
        assert texts[0].startswith(f"images with another name than in the index: {n_renamed}: ")
        assert texts[0].count(" it gets the ratings of ") == min(n_renamed, 3)
        assert (f" and {n_renamed - 3} more" in texts[0]) == (n_renamed > 3)


def test_a_finding_names_both_names(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    first, second = indexed.names[:2]
    rename(gaped_copy, [first, second], [second, first])
    [text] = findings(run(gaped_copy), "renamed")
    assert (
        f"{first} contains the image that is {second} in the index; it gets the ratings of {second}; " in text
    )
    assert f"{second} contains the image that is {first} in the index; it gets the ratings of {first}" in text


def save_as_png(root: Path, name: str, new_name: str) -> None:
    with Image.open(root / name) as image:
        save_image(root / new_name, np.asarray(image.convert("RGB")), "PNG")
    (root / name).unlink()


def test_an_image_saved_losslessly_is_matched_by_its_pixels(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    first, second, third = indexed.names[:3]
    for name, new_name in ((first, second), (second, first), (third, third)):
        save_as_png(gaped_copy, name, new_name[:-3] + "png")
    result = run(gaped_copy)
    ids = indexed.check(result)
    assert ids[first[:-3] + "png"] == indexed.ids[second] and ids[second[:-3] + "png"] == indexed.ids[first]
    assert len(ids) == N_IMAGES and not reasons(result)
    [text] = findings(result, "renamed")
    assert ": 2: " in text and third[:-4] not in text


def test_a_copy_under_another_name_is_merged_and_its_row_has_no_image(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    first, second, third = indexed.names[3:6]
    shutil.copy(gaped_copy / second, gaped_copy / first)
    shutil.copy(gaped_copy / second, gaped_copy / "A/ of it.bmp")
    save_as_png(gaped_copy, third, "again.png")
    shutil.copy(indexed.root / third, gaped_copy / third)
    result = run(gaped_copy)
    assert set(indexed.check(result)) == set(indexed.names) - {first}
    row = f"{first.split('/')[0]}.txt#{indexed.ids[first]}"
    rejects = reasons(result)
    assert rejects.pop(row) == (
        "missing_image",
        f"rated, but there is no image {indexed.ids[first]!r}; "
        f"{first} contains the image that is {second} in the index",
    )
    assert rejects == {
        first: ("exact_duplicate", f"the same bytes as {second}"),
        "A/ of it.bmp": ("exact_duplicate", f"the same bytes as {second}"),
        "again.png": ("exact_duplicate", f"the same pixels as {third}"),
    }
    assert result.counts["merged"] == 3 and not findings(result, "renamed")


def test_a_bad_rating_rejects_its_image_and_all_copies(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    first, second = indexed.names[:2]
    rename(gaped_copy, [first, second], [second, first])
    shutil.copy(gaped_copy / first, gaped_copy / "copy.bmp")
    for cell, reason in (("n/a", "bad_rating"), ("101", "rating_out_of_range")):
        table = indexed.root / "A.txt"
        lines = [line.split("\t") for line in table.read_text().splitlines()]
        edited = [
            [line[0], cell, *line[2:]] if line[0].startswith(indexed.ids[second]) else line for line in lines
        ]
        (gaped_copy / "A.txt").write_text("\n".join("\t".join(line) for line in edited))
        result = run(gaped_copy)
        assert indexed.check(result)[second] == indexed.ids[first]
        assert {path: rejected for path, (rejected, _) in reasons(result).items()} == {
            first: reason,
            "copy.bmp": reason,
        }


def save_foreign(path: Path, number: int) -> None:
    save_image(path, draw_image(np.random.default_rng(number), 50.0), "BMP")


def test_an_image_that_looks_different_is_rejected_unless_names_are_trusted(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    for number, name in enumerate(indexed.names[:4]):
        save_foreign(gaped_copy / name, number)
    result = run(gaped_copy)
    assert set(indexed.check(result)) == set(indexed.names[4:]) and not findings(result, "differs")
    rejects = reasons(result)
    for name in indexed.names[:4]:
        reason, detail = rejects.pop(name)
        assert reason == "content_mismatch" and detail.startswith(f"{name} in the index looks different (")
        reason, detail = rejects.pop(f"{name[0]}.txt#{indexed.ids[name]}")
        assert reason == "missing_image" and detail.endswith(f"; {name} is rejected: content_mismatch")
    assert not rejects
    trusting = run(gaped_copy, trust_names=True)
    assert indexed.check(trusting) == indexed.ids and not reasons(trusting)
    [text] = findings(trusting, "differs")
    assert text == (
        "images that differ from the indexed image of the same name, whose ratings they get: "
        f"4: {'; '.join(indexed.names[:3])} and 1 more"
    )


def test_another_collection_keeps_its_names(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    """That single images look like indexed ones is no evidence."""
    for number, name in enumerate(indexed.names):
        save_foreign(gaped_copy / name, number)
    save_jpeg(indexed.root / indexed.names[0], gaped_copy / indexed.names[1])
    result = run(gaped_copy)
    assert indexed.check(result) == indexed.ids and not reasons(result)
    assert findings(result, "index") == ["none of the 18 indexed files: another copy, or not gaped"]


def save_jpeg(source: Path, path: Path, quality: int = 30, scale: float = 1) -> None:
    with Image.open(source) as image:
        size = (round(image.width * scale), round(image.height * scale))
        image.convert("RGB").resize(size).save(path, "JPEG", quality=quality)


def test_one_re_encoded_image(indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]) -> None:
    save_jpeg(indexed.root / indexed.names[0], gaped_copy / indexed.names[0])
    result = run(gaped_copy)
    assert indexed.check(result) == indexed.ids
    assert findings(result, "index") == ["17 of 18 files identical to the indexed copy; 1 with the same look"]
    assert not findings(result, "renamed") and not findings(result, "differs") and not reasons(result)


@pytest.mark.parametrize(("quality", "scale"), [(95, 1.0), (80, 0.5), (30, 1.0)])
def test_all_images_re_encoded_and_moved(
    quality: int, scale: float, indexed: Truth, tmp_path: Path, run: Callable[..., IngestResult]
) -> None:
    """All names are rotated within their subtype, except those of the two images that look the same."""
    root = tmp_path / "gaped"
    (root / "all").mkdir(parents=True)
    for path in indexed.root.glob("*.txt"):
        shutil.copy(path, root)
    alone = [name for name in indexed.names if name not in indexed.look_the_same]
    new_names = dict(zip(alone, rotated(alone), strict=True)) | {name: name for name in indexed.look_the_same}
    paths = {name: f"all/{Path(new_name).stem.lower()}.jpg" for name, new_name in new_names.items()}
    for name, path in paths.items():
        save_jpeg(indexed.root / name, root / path, quality, scale)
    result = run(root)
    assert indexed.check(result) == {path: indexed.ids[name] for name, path in paths.items()}
    assert not reasons(result)
    assert findings(result, "index") == ["0 of 18 files identical to the indexed copy; 18 with the same look"]
    [text] = findings(result, "renamed")
    assert f": 16: {paths[alone[-1]]} looks like {alone[-1]} in the index; it gets" in text
    [text] = findings(result, "look_alikes")
    a, b = indexed.look_the_same
    assert text.endswith(f"names decide: 2: {paths[a]} ({a}, {b}); {paths[b]} ({a}, {b})")


def test_an_image_that_looks_like_two_indexed_ones_needs_one_of_their_names(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    a, b = indexed.look_the_same
    save_jpeg(gaped_copy / a, gaped_copy / "Sn/holiday.jpg")
    for name in indexed.look_the_same:
        (gaped_copy / name).unlink()
    result = run(gaped_copy)
    assert set(indexed.check(result)) == set(indexed.names) - {a, b}
    assert reasons(result)["Sn/holiday.jpg"] == (
        "ambiguous_content",
        f"it looks like several indexed images and has the name of none: 2: {a}; {b}",
    )
    assert result.counts["rejected"] == 3  # and two rows without an image


def test_a_re_encoded_copy_beside_its_image_is_merged(
    indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    (gaped_copy / "thumbs").mkdir()
    first, second = indexed.names[:2]
    save_jpeg(gaped_copy / first, gaped_copy / "thumbs/1.jpg", scale=0.5)
    save_jpeg(gaped_copy / first, gaped_copy / second)
    result = run(gaped_copy)
    assert set(indexed.check(result)) == set(indexed.names) - {second}
    rejects = reasons(result)
    assert {path: rejects[path] for path in ("thumbs/1.jpg", second)} == dict.fromkeys(
        ("thumbs/1.jpg", second), ("look_alike", f"the same look as {first}")
    )
    assert result.counts["merged"] == 2
    assert rejects[f"A.txt#{indexed.ids[second]}"][1].endswith(f"; {second} looks like {first} in the index")


@pytest.mark.parametrize("data", [None, b"no image"], ids=["another image", "no image"])
def test_a_file_with_the_name_of_a_moved_image_does_not_get_its_labels(
    data: bytes | None, indexed: Truth, gaped_copy: Path, run: Callable[..., IngestResult]
) -> None:
    first, second = indexed.names[:2]
    rename(gaped_copy, [first], ["moved.bmp"])
    for name in (first, f"{second[:-3]}jpg"):
        save_foreign(gaped_copy / name, 0)
        if data:
            (gaped_copy / name).write_bytes(data)
    result = run(gaped_copy)
    ids = indexed.check(result)
    assert ids["moved.bmp"] == indexed.ids[first] and ids[second] == indexed.ids[second]
    assert len(ids) == N_IMAGES and not findings(result, "differs")
    for name in (first, f"{second[:-3]}jpg"):
        assert reasons(result)[name][0] == ("unreadable" if data else "content_mismatch")
    trusting = run(gaped_copy, trust_names=True)
    assert indexed.check(trusting) == ids
    for name, holder in () if data else ((first, "moved.bmp"), (f"{second[:-3]}jpg", second)):
        reason, detail = reasons(trusting)[name]
        assert reason == "missing_rating" and detail.endswith(f"which is {holder}")


@pytest.mark.slow
@settings(max_examples=25)
@given(st.lists(st.integers(NO_FILE, FOREIGN), min_size=N_IMAGES, max_size=N_IMAGES))
def test_whatever_the_files_contain(
    truth: Truth, tmp_path_factory: pytest.TempPathFactory, contents: list[int]
) -> None:
    """Every file is any indexed image, a foreign one or missing; the first file always exists."""
    contents[0] = max(contents[0], 0)
    root = Path(shutil.copytree(truth.root, tmp_path_factory.mktemp("tree") / "gaped"))
    for index, content in enumerate(contents):
        (root / truth.names[index]).unlink()
        if content == FOREIGN:
            save_foreign(root / truth.names[index], index)
        elif content != NO_FILE:
            shutil.copy(truth.root / truth.names[content], root / truth.names[index])
    known = {content for content in contents if 0 <= content < N_IMAGES}
    own = {index for index, content in enumerate(contents) if content == FOREIGN and not known}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexes, "find_index", {"gaped": truth.index}.get)
        result = ingest(root, source="gaped", out=root.parent / "out", workers=1)
    ids = truth.check(result)
    assert Counter(ids.values()) == Counter(truth.ids[truth.names[index]] for index in known | own)
    assert all(ids[truth.names[index]] == truth.ids[truth.names[index]] for index in own)
    counts = Counter(reason for reason, _ in reasons(result).values())
    n_known = sum(0 <= content < N_IMAGES for content in contents)
    assert counts == +Counter(
        exact_duplicate=n_known - len(known),
        missing_image=N_IMAGES - len(known | own),
        content_mismatch=contents.count(FOREIGN) - len(own),
    )


def test_trust_names_needs_an_index(small_gaped: Path, run: Callable[..., IngestResult]) -> None:
    with pytest.raises(UsageError, match="--trust-names has no effect: there is no index of image_folder"):
        run(small_gaped, source="image_folder", options=ReadOptions(name="x"), trust_names=True)


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


def test_a_changed_index_is_detected(
    indexed: Truth, gaped_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    first, second = indexed.names[:2]
    rename(gaped_copy, [first, second], [second, first])
    index = Path(shutil.copy(indexed.index, tmp_path / "other.csv"))
    for module in (indexes, unchanged):
        monkeypatch.setattr(module, "find_index", {"gaped": index}.get)
    assert indexed.check(run(gaped_copy))[first] == indexed.ids[second]
    again = run(gaped_copy)
    assert findings(again, "renamed")
    index.write_text("# nothing is known\nfile,sha256\n")
    assert {
        row["path"]: row["source_id"] for row in run(gaped_copy).manifest.table.to_pylist()
    } == indexed.ids
