"""A second ingest without any change returns the cached result; after any change it runs in full."""

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

CACHE = ".gaped.ending.json"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One entry per full run."""
    full_runs: list[int] = []
    write_tables = ingest_module.write_tables

    def counting(*arguments: object) -> object:
        full_runs.append(1)
        return write_tables(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ingest_module, "write_tables", counting)
    yield full_runs


@pytest.fixture
def mixed(gaped_copy: Path) -> Path:
    """A tree with rejects, findings and a merged image."""
    first, second, third, *_ = sorted(gaped_copy.glob("A/*.bmp"))
    second.write_bytes(first.read_bytes())
    third.unlink()
    (gaped_copy / "link.bmp").symlink_to(first)
    return gaped_copy


def written(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def contents(result: IngestResult) -> list[object]:
    """Return everything in a result, in a form that can be compared."""
    fields = [getattr(result, field.name) for field in dataclasses.fields(result)]
    return [*fields, list(result.counts.items()), result.path, result.digest, result.manifest.metadata]


def test_a_second_run_returns_and_writes_the_same(mixed: Path, tmp_path: Path, runs: list[int]) -> None:
    first = ingest(mixed, out=tmp_path / "out")
    before = written(tmp_path / "out")
    assert first.counts["merged"] and first.counts["rejected"] and first.findings
    for root in (mixed, mixed / ".." / mixed.name):
        second = ingest(root, out=tmp_path / "out", workers=1, replace=True)
        assert len(runs) == 1 and contents(second) == contents(first)
    assert written(tmp_path / "out") == before
    assert contents(ingest(mixed, out=tmp_path / "out", rehash=True)) == contents(first) and len(runs) == 2


def corrupt(path: Path) -> None:
    """Change the bytes of a file, but not its size, modification time and inode."""
    stamp = path.stat()
    path.write_bytes(b"x" * stamp.st_size)
    os.utime(path, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))


def replace_by_another(path: Path) -> None:
    """Replace a file by another one of the same size and modification time."""
    stamp, copy = path.stat(), path.with_name("copy")
    data = path.read_bytes()
    copy.write_bytes(data[:61] + bytes(255 - byte for byte in data[61:]))
    os.utime(copy, ns=(stamp.st_mtime_ns, stamp.st_mtime_ns))
    copy.replace(path)


# Each change is called with the tree and the folder of the manifest.
CHANGES: dict[str, Callable[[Path, Path], object]] = {
    "image": lambda root, out: next(root.glob("P/*.bmp")).write_bytes(b""),
    "time": lambda root, out: os.utime(next(root.glob("P/*.bmp")), ns=(1, 1)),
    "inode": lambda root, out: replace_by_another(next(root.glob("P/*.bmp"))),
    "table": lambda root, out: (root / "P.txt").write_bytes((root / "P.txt").read_bytes() + b"\n"),
    "readme": lambda root, out: (root / "readme.txt").unlink(),
    "new": lambda root, out: (root / "notes.docx").touch(),
    "link": lambda root, out: (root / "another.bmp").symlink_to("P.txt"),
    "name": lambda root, out: Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.bmp")).touch(),
    "manifest": lambda root, out: (out / "gaped.parquet").unlink(),
    "rejects": lambda root, out: (out / "gaped.rejects.parquet").write_bytes(b"PAR1"),
    "edges": lambda root, out: (out / "gaped.edges.parquet").unlink(),
    "memo": lambda root, out: (out / ".gaped.memo").unlink(),
    "no cache": lambda root, out: (out / CACHE).unlink(),
    "text": lambda root, out: (out / CACHE).write_text("text"),
    "list": lambda root, out: (out / CACHE).write_text("[]"),
    "object": lambda root, out: (out / CACHE).write_text("{}"),
    "less": lambda root, out: (out / CACHE).write_text((out / CACHE).read_text().replace('"why"', '"whi"')),
    "more": lambda root, out: (out / CACHE).write_text((out / CACHE).read_text().replace('"kind"', '"sort"')),
    "corrupt": lambda root, out: corrupt(out / "gaped.rejects.parquet"),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_every_change_is_detected(change: str, mixed: Path, tmp_path: Path, runs: list[int]) -> None:
    out = tmp_path / "out"
    ingest(mixed, out=out)
    CHANGES[change](mixed, out)
    result = ingest(mixed, out=out)
    assert len(runs) == 2
    fresh = ingest(mixed, out=tmp_path / "fresh")
    assert written(out) == written(tmp_path / "fresh")
    assert (result.counts, result.findings) == (fresh.counts, fresh.findings)
    n = len(runs)
    assert contents(ingest(mixed, out=out)) == contents(result) and len(runs) == n


def test_arguments_and_code_are_part_of_the_fingerprint(
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
        patch.setattr(unchanged, "has_outside", lambda group: True)
        ingest(mixed, out=out, strict=True, source="gaped")
    assert len(runs) == 5


def test_every_file_of_the_package_is_part_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_column_map_outside_the_tree_is_part_of_the_fingerprint(tmp_path: Path, runs: list[int]) -> None:
    root, map_path = tmp_path / "root", tmp_path / "columns.yaml"
    table.write_sample(root, np.random.default_rng(0))
    text = (root / "columns.yaml").read_text()
    options = ReadOptions(map_path=map_path)
    map_path.write_text(text)
    for _ in range(2):
        result = ingest(root, out=tmp_path / "out", source="table", options=options)
    map_path.write_text(text.replace("title: Generated", "title: Other"))
    changed = ingest(root, out=tmp_path / "out", source="table", options=options)
    assert len(runs) == 2 and result.info.title.startswith("Generated")
    assert changed.info.title.startswith("Other")
    assert changed.manifest.metadata["title"] == changed.info.title


def test_splits_that_were_written_since_are_kept_and_reported_each_time(
    small_gaped: Path, tmp_path: Path, runs: list[int]
) -> None:
    first = ingest(small_gaped, out=tmp_path).manifest
    column = first.table.schema.get_field_index("split")
    split = first.table.set_column(column, "split", [["test"] * len(first)])
    write_manifest(split, first.metadata, first.path)
    second, third = ingest(small_gaped, out=tmp_path), ingest(small_gaped, out=tmp_path)
    assert len(runs) == 2 and contents(second) == contents(third)
    assert any(finding.kind == "splits" for finding in third.findings)
    assert load_manifest(first.path).table["split"].to_pylist() == ["test"] * len(first)


def test_a_corrupt_manifest_is_replaced_and_reported_once(
    small_gaped: Path, tmp_path: Path, runs: list[int]
) -> None:
    first = ingest(small_gaped, out=tmp_path)
    before = written(tmp_path)
    corrupt(first.path)
    second, third, fourth = (ingest(small_gaped, out=tmp_path) for _ in range(3))
    assert written(tmp_path) == before and len(runs) == 3
    replaced = [
        [finding.kind for finding in run.findings].count("replaced") for run in (second, third, fourth)
    ]
    assert replaced == [1, 0, 0]
    assert contents(fourth) == contents(first)


def test_two_manifests_of_one_folder_are_both_cached(tmp_path: Path, runs: list[int]) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    image_folder.write_sample(root, np.random.default_rng(0))
    both = {name: ingest(root, out=out, options=ReadOptions(name=name)) for name in ("one", "other")}
    for name, result in both.items():
        assert contents(ingest(root, out=out, options=ReadOptions(name=name))) == contents(result)
    assert len(runs) == 2
