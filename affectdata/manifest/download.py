"""Download images of which a source ships only the URLs, to the paths of its layout.

In: a tree with the tables of the source. Out: the images, and `download.parquet` beside them: a row per
requested image. A second run requests only missing images and temporary failures; without `download.parquet`
it requests every missing image again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypedDict

import pyarrow as pa

from affectdata.errors import SourceError
from affectdata.manifest.fetch import TEMPORARY, Fetcher, FetchResult, Limits, Status
from affectdata.manifest.ingest import recognise
from affectdata.reading.protocol import Link, ReadOptions, check_options, find_source_links, read_source
from affectdata.reading.tree import DOWNLOADED, is_image_name, read_tree
from affectdata.records import SourceInfo, count_text
from affectdata.registry import load_plugin
from affectdata.schema import DOWNLOADS
from affectdata.store.atomic import locked_folder, write_bytes
from affectdata.store.files import read_regular
from affectdata.store.parquet import read_table, write_table

_KIND = "downloads"
_SAVE_EVERY = 500  # images after which the log is written, in case the run is killed
_MAX_NAME_BYTES = 240  # file systems allow 255, and a temporary file has 14 more
_MAX_PATH_BYTES = 800  # macOS allows 1024, including the folder


class Row(TypedDict, total=False):
    """A row of `schema.DOWNLOADS`."""

    path: str
    url: str
    status: str
    bytes: int | None
    sha256: str | None
    error: str | None
    attempts: int


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """Result of `download`: counts that add up to `n_listed`, and the rows that failed."""

    info: SourceInfo
    notes: Path
    counts: dict[str, int]
    failures: list[Row]

    @property
    def n_listed(self) -> int:
        """Number of images that have a URL."""
        return sum(self.counts.values())

    @property
    def n_temporary(self) -> int:
        """Number of failures that may succeed in another run."""
        return sum(row["status"] in TEMPORARY for row in self.failures)


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
    """Fetch the images that a source tree has URLs of into `out`, by default the tree itself.

    `limit` is the maximum number of images to request in this run. `announce` is called before the first
    request, `progress` with the number of images done and of all images. Existing files are not replaced.

    Raises:
        SourceError: the folder does not exist, no source recognises it, or it has no URLs.
        UsageError: another run is writing to `out`, or the source does not support an option.
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
            f"{root} contains no image URLs",
            where=f"read as source {name}",
            fix=f"`affectdata sources {name}` shows its tables and where to get them",
        )
    with locked_folder(out, wait=False):
        rows = _read_log(out / DOWNLOADED)
        n_recovered = _recover(rows, out)
        existing = {path for path in urls if not _why_refused(out, path) and (out / path).exists()}
        todo = [path for path in urls if path not in existing and not _is_settled(rows.get(path), urls[path])]
        todo = todo[:limit]
        if todo and announce:
            announce(f"fetching {count_text(len(todo), 'image')} over the network into {out}")
        if todo:
            rows |= {path: _pending(path, urls[path][0], rows.get(path)) for path in todo}
            _write_log(rows, out / DOWNLOADED)
        try:
            asyncio.run(_fetch_all(out, {path: urls[path] for path in todo}, rows, limits, progress))
        finally:
            if todo or n_recovered:
                _write_log(rows, out / DOWNLOADED)
    n_fetched = sum(rows[path]["status"] == Status.FETCHED for path in todo)
    missing = [rows[path] for path in urls if path in rows and path not in existing]
    failures = [row for row in missing if row["status"] != Status.FETCHED]
    counts = {"there already": len(existing), "fetched": n_fetched, "failed": len(failures)}
    counts["left for later"] = len(urls) - sum(counts.values())
    return DownloadResult(info, out / DOWNLOADED, counts, failures)


def _pending(path: str, url: str, before: Row | None) -> Row:
    """Return a row to write before the request, so that a killed run leaves no image without a row."""
    attempts = before["attempts"] if before else 0
    return {
        "path": path,
        "url": url,
        "status": Status.PENDING,
        "attempts": attempts,
        "bytes": None,
        "sha256": None,
    }


def _recover(rows: dict[str, Row], out: Path) -> int:
    """Complete the rows that a killed run left: what it fetched is there, the rest was not requested."""
    pending = [path for path, row in rows.items() if row["status"] == Status.PENDING]
    for path in pending:
        try:
            data = None if _why_refused(out, path) else read_regular(out / path)
        except OSError:
            data = None
        if data is None:
            rows.pop(path)
            continue
        row = rows[path] = {**rows[path], "status": Status.FETCHED, "attempts": rows[path]["attempts"] + 1}
        row |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return len(pending)


def _by_path(links: Iterable[Link]) -> dict[str, list[str]]:
    urls: dict[str, list[str]] = {}
    for link in links:
        known = urls.setdefault(link.path, [])
        if link.url not in known:
            known.append(link.url)
    return dict(sorted(urls.items()))


def _is_settled(row: Row | None, urls: list[str]) -> bool:
    """Return whether an earlier run had a final answer for these URLs."""
    return row is not None and row["url"] in urls and row["status"] not in {*TEMPORARY, Status.FETCHED}


def _why_refused(out: Path, path: str) -> str | None:
    """Return why an image must not be written to `path`, which is untrusted; None if it may."""
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in parts or "\\" in path or not path.isprintable():
        return "not a path inside the folder"
    if not is_image_name(path):
        return "not an image file name"
    if max(len(part.encode()) for part in parts) > _MAX_NAME_BYTES or len(path.encode()) > _MAX_PATH_BYTES:
        return f"a name of more than {_MAX_NAME_BYTES} bytes, or {_MAX_PATH_BYTES} with its folders"
    if not (out / path).parent.resolve().is_relative_to(out.resolve()):
        return "a link leads outside the folder"
    return None


async def _fetch_all(
    out: Path,
    todo: dict[str, list[str]],
    rows: dict[str, Row],
    limits: Limits | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fetch the images in `todo` and add each outcome to `rows`."""
    limits = limits or Limits()
    fetcher, waiting, n_done = Fetcher(limits), iter(todo.items()), 0

    async def work() -> None:
        nonlocal n_done
        for path, urls in waiting:
            rows[path] = await _fetch_one(fetcher, out, path, urls, rows[path]["attempts"])
            n_done += 1
            if n_done % _SAVE_EVERY == 0:
                _write_log(rows, out / DOWNLOADED)
            if progress:
                progress(n_done, len(todo))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limits.connections):
                group.create_task(work())
    except ExceptionGroup as errors:  # such as a full disk: raise the first
        raise errors.exceptions[0] from None
    finally:
        await fetcher.close()


async def _fetch_one(fetcher: Fetcher, out: Path, path: str, urls: list[str], attempts: int) -> Row:
    """Fetch one image from the first of its URLs that has it."""
    refused = _why_refused(out, path)
    row: Row = {"path": path, "url": urls[-1], "bytes": None, "sha256": None, "attempts": attempts}
    if refused:
        return {**row, "status": Status.REFUSED, "error": refused}
    failed: list[FetchResult] = []
    for url in urls:
        result = await fetcher.fetch(url)
        row["attempts"] += result.n_tries
        if result.status is Status.FETCHED:
            await asyncio.to_thread(write_bytes, out / path, result.data)
            sha256 = hashlib.sha256(result.data).hexdigest()
            return {**row, "url": url, "status": result.status, "bytes": len(result.data), "sha256": sha256}
        failed.append(result)
    decisive = next((result for result in failed if result.status in TEMPORARY), failed[-1])
    error = "; ".join(
        result.error if len(urls) == 1 else f"{url}: {result.error}"
        for url, result in zip(urls, failed, strict=True)
    )
    return {**row, "status": decisive.status, "error": error}


def _read_log(path: Path) -> dict[str, Row]:
    if not path.exists():
        return {}
    table, _ = read_table(path, _KIND)
    return {row["path"]: row for row in table.to_pylist()}


def _write_log(rows: dict[str, Row], path: Path) -> None:
    ordered = [rows[key] for key in sorted(rows)]
    write_table(pa.Table.from_pylist(ordered, schema=DOWNLOADS), path, _KIND)
