"""Exceptions of a source name the source and the file, wherever the package calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from affectdata.errors import SourceError
from affectdata.manifest import ingest as ingest_module
from affectdata.manifest.download import download
from affectdata.manifest.overlay import overlay
from affectdata.reading.protocol import (
    Reading,
    ReadOptions,
    detect_source,
    find_source_links,
    read_source,
)
from affectdata.reading.tree import Tree, read_tree
from affectdata.records import Annotation, SourceInfo

INFO = SourceInfo("broken", "Broken", {}, "none", "none", "", "a.csv")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "tree" / name).write_text("x")
    return tmp_path / "tree"


def broken(error: BaseException, during: str = "items") -> Any:
    """Return a source that raises an error in one of its functions, or between its items."""

    def fail(part: str) -> None:
        if part == during:
            raise error

    def detect(tree: Tree) -> str | None:
        tree.read_bytes("b.csv")
        fail("detect")
        return None

    def items(tree: Tree) -> Iterator[Annotation]:
        yield Annotation("a.csv")
        tree.read_bytes("a.csv")
        fail("items")

    def read(tree: Tree, options: ReadOptions) -> Reading:
        fail("read")
        return Reading(INFO, items(tree))

    def find_links(tree: Tree, options: ReadOptions) -> Iterator[Any]:
        fail("find_links")
        yield from ()

    return SimpleNamespace(INFO=INFO, detect=detect, read=read, find_links=find_links)


CALLS: dict[str, Callable[[Any, Tree], object]] = {
    "detect": detect_source,
    "read": lambda source, tree: read_source(source, tree, ReadOptions()),
    "items": lambda source, tree: list(read_source(source, tree, ReadOptions()).items),
    "find_links": lambda source, tree: find_source_links(source, tree, ReadOptions()),
}


@pytest.mark.parametrize(
    ("during", "file"), [("detect", "b.csv"), ("read", None), ("items", "a.csv"), ("find_links", None)]
)
def test_an_exception_of_a_source_names_the_source_and_the_file_read_last(
    during: str, file: str | None, root: Path
) -> None:
    error, tree = KeyError("valence"), read_tree(root)
    detect_source(broken(ValueError(), "nowhere"), tree)  # its file is not that of the next source
    with pytest.raises(SourceError, match="the source broken raised KeyError: 'valence'") as caught:
        CALLS[during](broken(error, during), tree)
    assert caught.value.where == (f"{root / file}, the file read last" if file else str(root))
    assert "affectdata sources broken" in caught.value.fix and "-vv" in caught.value.fix
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [SourceError("own words"), MemoryError(), OSError(5), KeyboardInterrupt()])
@pytest.mark.parametrize("during", CALLS)
def test_errors_with_a_meaning_of_their_own_stay(error: BaseException, during: str, root: Path) -> None:
    with pytest.raises(type(error)) as caught:
        CALLS[during](broken(error, during), read_tree(root))
    assert caught.value is error


def test_an_exception_of_the_caller_stays_as_it_is(root: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        for _ in read_source(broken(ValueError()), read_tree(root), ReadOptions()).items:
            raise ZeroDivisionError


def test_a_source_without_links_has_none(root: Path) -> None:
    assert find_source_links(SimpleNamespace(INFO=INFO), read_tree(root), ReadOptions()) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", [(), ("-vv",)])
@pytest.mark.parametrize("during", ["detect", "read", "items"])
def test_ingest_reports_it_as_bad_input_with_a_traceback_on_request(
    during: str, flags: tuple[str, ...], root: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = broken(KeyError("valence"), during)
    monkeypatch.setattr(ingest_module, "load_usable", lambda group: {"broken": source})
    monkeypatch.setattr(ingest_module, "load_plugin", lambda group, name: source)
    named = () if during == "detect" else ("--source", "broken")
    ran = cli("ingest", str(root), *named, "--out", str(root.parent / "out"), *flags)
    assert ran.code == 3 and "error: the source broken raised KeyError" in ran.err
    assert ("Traceback" in ran.err) == bool(flags) and "bug in affectdata" not in ran.err


@pytest.mark.parametrize("during", ["items", "find_links"])
def test_download_and_overlay_report_it_too(during: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = broken(KeyError("valence"), during)
    for module in ("download", "overlay"):
        monkeypatch.setattr(f"affectdata.manifest.{module}.load_plugin", lambda group, name: source)
    with pytest.raises(SourceError, match="the source broken raised KeyError"):
        if during == "find_links":
            download(root, source="broken")
        else:
            overlay(root / "a.csv", [], source="broken")
