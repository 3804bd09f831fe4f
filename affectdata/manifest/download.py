"""Images of which a source ships only the addresses: fetched to where its layout wants them.

In: a tree with the source's tables. Out: the images, and `download.parquet` beside them: a row per image
that was asked for. A second run asks for what is missing or failed in a way that may pass, and for nothing
else; without `download.parquet` everything that is not there is asked for again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import pyarrow as pa

from affectdata.errors import SourceError
from affectdata.manifest.fetch import MAY_PASS, Fetched, Fetcher, Limits, Status
from affectdata.manifest.ingest import recognise
from affectdata.reading.protocol import Link, ReadOptions, check_options, find_source_links, read_source
from affectdata.reading.tree import DOWNLOADED, is_image_name, read_tree
from affectdata.records import SourceInfo
from affectdata.registry import load_plugin
from affectdata.schema import DOWNLOADS
from affectdata.store.parquet import locked_folder, read_table, replace_file, write_table

_KIND = "downloads"
_NOTE_EVERY = 500  # images after which the notes are written, for a run that is killed
_MOST_NAME_BYTES = 240  # file systems know 255, and a file that is written has 14 more
_MOST_PATH_BYTES = 800  # macOS knows 1024, with those of the folder

Row: TypeAlias = dict[str, Any]  # of `schema.DOWNLOADS`


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What came of a source's addresses: counts that add up to `n_listed`, and the rows that failed."""

    info: SourceInfo
    notes: Path
    counts: dict[str, int]
    failures: list[Row]

    @property
    def n_listed(self) -> int:
        """Images that the source has an address of."""
        return sum(self.counts.values())

    @property
    def n_may_pass(self) -> int:
        """Failures that another run may mend."""
        return sum(row["status"] in MAY_PASS for row in self.failures)


def download(
    root: Path,
    *,
    source: str | None = None,
    options: ReadOptions | None = None,
    out: Path | None = None,
    limit: int | None = None,
    limits: Limits | None = None,
    announce: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DownloadResult:
    """Fetch the images that a source tree has addresses of into `out`, by default the tree itself.

    `limit` is the most images to ask for in this run; `announce` is told before the first request is made,
    `progress` is called with images done and in all. No file that is there is replaced.

    Raises:
        SourceError: no such folder, no source recognises it, or it has no addresses.
        UsageError: another run is writing to `out`, or the source does not take an option.
    """
    tree, out = read_tree(root), out or root
    name = source or recognise(tree)[0]
    plugin = load_plugin("sources", name)
    options = options or ReadOptions()
    check_options(plugin.INFO, options)
    info = read_source(plugin, tree, options).info
    urls = _by_path(find_source_links(plugin, tree, options))
    if not urls:
        raise SourceError(
            f"{root} holds no addresses of images",
            where=f"as the source {name} reads it",
            fix=f"`affectdata sources {name}` says what its tables are and where they are had",
        )
    with locked_folder(out, wait=False):
        rows = _read_notes(out / DOWNLOADED)
        there = {path for path in urls if not _why_not(out, path) and (out / path).exists()}
        todo = [path for path in urls if path not in there and not _is_settled(rows.get(path), urls[path])]
        todo = todo[:limit]
        if todo and announce:
            announce(f"fetching {len(todo)} images over the network into {out}")
        try:
            asyncio.run(_fetch_all(out, {path: urls[path] for path in todo}, rows, limits, progress))
        finally:
            if todo:
                _write_notes(rows, out / DOWNLOADED)
    n_fetched = sum(rows[path]["status"] == Status.FETCHED for path in todo)
    missing = [rows[path] for path in urls if path in rows and path not in there]
    failures = [row for row in missing if row["status"] != Status.FETCHED]
    counts = {"there already": len(there), "fetched": n_fetched, "failed": len(failures)}
    counts["left for later"] = len(urls) - sum(counts.values())
    return DownloadResult(info, out / DOWNLOADED, counts, failures)


def _by_path(links: Iterable[Link]) -> dict[str, list[str]]:
    urls: dict[str, list[str]] = {}
    for link in links:
        known = urls.setdefault(link.path, [])
        if link.url not in known:
            known.append(link.url)
    return dict(sorted(urls.items()))


def _is_settled(row: Row | None, urls: list[str]) -> bool:
    """Say whether an earlier run had an answer that will be the same today."""
    return row is not None and row["url"] in urls and row["status"] not in {*MAY_PASS, Status.FETCHED}


def _why_not(out: Path, path: str) -> str | None:
    """Return what forbids to write an image there; paths come from tables of others."""
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path or not path.isprintable():
        return "not a path inside the folder"
    if not is_image_name(path):
        return "not called as an image is"
    if max(len(part.encode()) for part in parts) > _MOST_NAME_BYTES or len(path.encode()) > _MOST_PATH_BYTES:
        return f"a name of more than {_MOST_NAME_BYTES} bytes, or {_MOST_PATH_BYTES} with its folders"
    if not (out / path).parent.resolve().is_relative_to(out.resolve()):
        return "a link leads out of the folder"
    return None


async def _fetch_all(
    out: Path,
    todo: dict[str, list[str]],
    rows: dict[str, Row],
    limits: Limits | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fetch what is to do and note each outcome in `rows`."""
    limits = limits or Limits()
    fetcher, waiting, n_done = Fetcher(limits), iter(todo.items()), 0

    async def work() -> None:
        nonlocal n_done
        for path, urls in waiting:
            before = rows.get(path, {}).get("attempts", 0)
            rows[path] = await _fetch_one(fetcher, out, path, urls, before)
            n_done += 1
            if n_done % _NOTE_EVERY == 0:
                _write_notes(rows, out / DOWNLOADED)
            if progress:
                progress(n_done, len(todo))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limits.connections):
                group.create_task(work())
    except ExceptionGroup as errors:  # a full disk, say: what the first one met
        raise errors.exceptions[0] from None
    finally:
        await fetcher.close()


async def _fetch_one(fetcher: Fetcher, out: Path, path: str, urls: list[str], attempts: int) -> Row:
    """Fetch one image from the first of its addresses that has it."""
    why_not = _why_not(out, path)
    row: Row = {"path": path, "url": urls[-1], "bytes": None, "sha256": None, "attempts": attempts}
    if why_not:
        return {**row, "status": Status.REFUSED, "error": why_not}
    failed: list[Fetched] = []
    for url in urls:
        found = await fetcher.fetch(url)
        row["attempts"] += found.n_tries
        if found.status is Status.FETCHED:
            await asyncio.to_thread(_write_image, out / path, found.data)
            sha256 = hashlib.sha256(found.data).hexdigest()
            return {**row, "url": url, "status": found.status, "bytes": len(found.data), "sha256": sha256}
        failed.append(found)
    decisive = next((each for each in failed if each.status in MAY_PASS), failed[-1])
    error = "; ".join(
        each.error if len(urls) == 1 else f"{url}: {each.error}"
        for url, each in zip(urls, failed, strict=True)
    )
    return {**row, "status": decisive.status, "error": error}


def _write_image(path: Path, data: bytes) -> None:
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


def _read_notes(path: Path) -> dict[str, Row]:
    if not path.exists():
        return {}
    table, _ = read_table(path, _KIND)
    return {row["path"]: row for row in table.to_pylist()}


def _write_notes(rows: dict[str, Row], path: Path) -> None:
    ordered = [rows[key] for key in sorted(rows)]
    write_table(pa.Table.from_pylist(ordered, schema=DOWNLOADS), path, _KIND)
