"""A second ingest of the same ends as the first did, at once; whatever else is there, it takes every step."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from affectdata.manifest import ingest as ingest_module
from affectdata.manifest import unchanged
from affectdata.manifest.ingest import IngestResult, ingest
from affectdata.manifest.manifest import load_manifest, write_manifest
from affectdata.reading.protocol import ReadOptions
from affectdata.sources import image_folder, table

NOTE = ".gaped.ending.json"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry for each run that takes every step."""
    found: list[int] = []
    write_tables = ingest_module.write_tables

    def counting(*arguments: object) -> object:
        found.append(1)
        return write_tables(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest_module, "write_tables", counting)
    yield found


@pytest.fixture
def mixed(gaped_copy: Path) -> Path:
    """A tree with rejects, findings and a merged image."""
    one, other, third, *_ = sorted(gaped_copy.glob("A/*.bmp"))
    other.write_bytes(one.read_bytes())
    third.unlink()
    (gaped_copy / "link.bmp").symlink_to(one)
    return gaped_copy


def written(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def told(result: IngestResult) -> list[object]:
    """All that a run says, in a form that can be compared."""
    fields = [getattr(result, field.name) for field in dataclasses.fields(result)]
    return [*fields, list(result.counts.items()), result.path, result.digest, result.manifest.metadata]


def test_the_same_again_says_and_leaves_the_same(mixed: Path, tmp_path: Path, runs: list[int]) -> None:
    first = ingest(mixed, out=tmp_path / "out")
    before = written(tmp_path / "out")
    assert first.counts["merged"] and first.counts["rejected"] and first.findings
    for root in (mixed, mixed / ".." / mixed.name):
        second = ingest(root, out=tmp_path / "out", workers=1, replace=True)
        assert len(runs) == 1 and told(second) == told(first)
    assert written(tmp_path / "out") == before
    assert told(ingest(mixed, out=tmp_path / "out", rehash=True)) == told(first) and len(runs) == 2


def rot(path: Path) -> None:
    """Spoil a file behind the back of its size, its time of modification and its inode."""
    stamp = path.stat()
    path.write_bytes(b"x" * stamp.st_size)
    os.utime(path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))


def other_bytes(path: Path) -> None:
    """Put another file in the place of one, of the same size and time of modification."""
    stamp, other = path.stat(), path.with_name("other")
    other.write_bytes(bytes(255 - byte if at > 60 else byte for at, byte in enumerate(path.read_bytes())))
    os.utime(other, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    other.replace(path)


# Each is given the tree and the folder of the manifest.
CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "picture": lambda root, out: next(root.glob("P/*.bmp")).write_bytes(b""),
    "time": lambda root, out: os.utime(next(root.glob("P/*.bmp")), ns=(1, 1)),
    "inode": lambda root, out: other_bytes(next(root.glob("P/*.bmp"))),
    "table": lambda root, out: (root / "P.txt").write_bytes((root / "P.txt").read_bytes() + b"\n"),
    "readme": lambda root, out: (root / "readme.txt").unlink(),
    "new": lambda root, out: (root / "notes.docx").touch(),
    "link": lambda root, out: (root / "another.bmp").symlink_to("P.txt"),
    "name": lambda root, out: Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.bmp")).touch(),
    "manifest": lambda root, out: (out / "gaped.parquet").unlink(),
    "rejects": lambda root, out: (out / "gaped.rejects.parquet").write_bytes(b"PAR1"),
    "edges": lambda root, out: (out / "gaped.edges.parquet").unlink(),
    "memo": lambda root, out: (out / ".gaped.memo").unlink(),
    "no note": lambda root, out: (out / NOTE).unlink(),
    "text": lambda root, out: (out / NOTE).write_text("text"),
    "list": lambda root, out: (out / NOTE).write_text("[]"),
    "object": lambda root, out: (out / NOTE).write_text("{}"),
    "less": lambda root, out: (out / NOTE).write_text((out / NOTE).read_text().replace('"why"', '"whi"')),
    "more": lambda root, out: (out / NOTE).write_text((out / NOTE).read_text().replace('"kind"', '"sort"')),
    "rot": lambda root, out: rot(out / "gaped.rejects.parquet"),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_whatever_changed_is_noticed(change: str, mixed: Path, tmp_path: Path, runs: list[int]) -> None:
    out = tmp_path / "out"
    ingest(mixed, out=out)
    CHANGES[change](mixed, out)
    result = ingest(mixed, out=out)
    assert len(runs) == 2
    fresh = ingest(mixed, out=tmp_path / "fresh")
    assert written(out) == written(tmp_path / "fresh")
    assert (result.counts, result.findings) == (fresh.counts, fresh.findings)
    n = len(runs)
    assert told(ingest(mixed, out=out)) == told(result) and len(runs) == n


def test_what_is_asked_and_the_code_are_part_of_it(
    mixed: Path, tmp_path: Path, runs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    ingest(mixed, out=out)
    ingest(mixed, out=out, strict=True)
    ingest(mixed, out=out, strict=True, source="gaped")
    assert len(runs) == 3
    with monkeypatch.context() as patch:
        patch.setattr(unchanged, "_code", lambda: ["another"])
        ingest(mixed, out=out, strict=True, source="gaped")
        assert len(runs) == 4
        patch.setattr(unchanged, "has_outside", lambda socket: True)
        ingest(mixed, out=out, strict=True, source="gaped")
    assert len(runs) == 5


def test_the_code_is_every_file_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/a.py").write_text("1")
    monkeypatch.setattr(unchanged, "_PACKAGE", tmp_path)
    states = [unchanged._code.__wrapped__()]
    (tmp_path / "sources/a.py").write_text("2")
    states.append(unchanged._code.__wrapped__())
    (tmp_path / "sources/a.py").rename(tmp_path / "sources/b.py")
    states.append(unchanged._code.__wrapped__())
    (tmp_path / "map.yaml").write_text("a: 1")
    states.append(unchanged._code.__wrapped__())
    assert len({tuple(state) for state in states}) == 4
    monkeypatch.setattr(unchanged, "version", lambda name: "another")
    assert unchanged._code.__wrapped__() != states[-1]


def test_a_column_map_elsewhere_is_part_of_it(tmp_path: Path, runs: list[int]) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "columns.yaml"
    table.write_sample(root, np.random.default_rng(0))
    text = (root / "columns.yaml").read_text()
    options = ReadOptions(map_path=elsewhere)
    elsewhere.write_text(text)
    for _ in range(2):
        result = ingest(root, out=tmp_path / "out", source="table", options=options)
    elsewhere.write_text(text.replace("title: Generated", "title: Other"))
    other = ingest(root, out=tmp_path / "out", source="table", options=options)
    assert len(runs) == 2 and result.info.title.startswith("Generated")
    assert other.info.title.startswith("Other") and other.manifest.metadata["title"] == other.info.title


def test_splits_that_were_written_since_are_kept_and_said_each_time(
    small_gaped: Path, tmp_path: Path, runs: list[int]
) -> None:
    first = ingest(small_gaped, out=tmp_path).manifest
    column = first.table.schema.get_field_index("split")
    split = first.table.set_column(column, "split", [["test"] * len(first)])
    write_manifest(split, first.metadata, first.path)
    second, third = ingest(small_gaped, out=tmp_path), ingest(small_gaped, out=tmp_path)
    assert len(runs) == 2 and told(second) == told(third)
    assert any(each.kind == "splits" for each in third.findings)
    assert load_manifest(first.path).table["split"].to_pylist() == ["test"] * len(first)


def test_a_broken_manifest_is_replaced_and_that_is_said_once(
    small_gaped: Path, tmp_path: Path, runs: list[int]
) -> None:
    first = ingest(small_gaped, out=tmp_path)
    before = written(tmp_path)
    rot(first.path)
    second, third, fourth = (ingest(small_gaped, out=tmp_path) for _ in range(3))
    assert written(tmp_path) == before and len(runs) == 3
    assert [sum(each.kind == "replaced" for each in run.findings) for run in (second, third, fourth)] == [
        1,
        0,
        0,
    ]
    assert told(fourth) == told(first)


def test_two_manifests_of_one_folder_each_end_as_they_did(tmp_path: Path, runs: list[int]) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    image_folder.write_sample(root, np.random.default_rng(0))
    both = {name: ingest(root, out=out, options=ReadOptions(name=name)) for name in ("one", "other")}
    for name, result in both.items():
        assert told(ingest(root, out=out, options=ReadOptions(name=name))) == told(result)
    assert len(runs) == 2
