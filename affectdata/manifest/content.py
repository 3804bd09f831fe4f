"""Join by content: an image in the index of its source gets the labels of its content, not of its file name.

In: a tree, the source's items joined by name, the probed images, the index. Out: the items that the source
yields when every indexed image has its path in the index; images are matched by bytes, then by pixels. The
source reads the tree a second time for that, only if names and contents disagree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.manifest.items import Items, add_unnamed_files, out_of_range
from affectdata.manifest.memo import Memo
from affectdata.reading.indexes import IndexedImage
from affectdata.reading.names import fold_stem
from affectdata.reading.protocol import ReadOptions, Source, read_source
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Finding, Reason, Record, Reject

_SHOWN = 3  # examples in a finding
_COLUMNS = ["path", "image_id", "pixel_id", "reason", "detail"]


def join_by_content(
    plugin: Source, tree: Tree, options: ReadOptions, items: Items, memo: Memo, index: Iterable[IndexedImage]
) -> Items:
    """Return `items` with the labels of indexed images by content; `memo` has all images of the tree.

    An image that is not indexed keeps the labels of its name, unless the indexed image of that name exists.
    """
    contents = _Contents(index, memo)
    joined = items
    if not contents.agree:
        ids = _ids_of(items, [*contents.index_name, *contents.left_out])
        joined = Items(items.info)
        for item in contents.read(plugin, tree, options, ids, joined):
            joined.add(item)
        add_unnamed_files(tree, joined)
        joined.findings += _find_renamed(contents.index_name, ids, joined)
    joined.findings += _find_different(contents.unindexed, joined)
    return joined


class _Unindexed(NamedTuple):
    """An image that is not indexed, at the path of an indexed one; `reason` is why it is unreadable."""

    path: str
    name: str
    reason: str | None
    detail: str | None


class _Claim(NamedTuple):
    """An image whose content is indexed; the smallest claim on a content wins."""

    is_elsewhere: bool
    by_pixels: bool
    is_renamed: bool
    path: str


class _Contents:
    """Maps images of a tree to indexed images; names are paths in the index, paths are in the tree.

    `index_name` has the images whose path differs from that in the index. `left_out` is hidden from the
    source: further images with the content of a name, and images that are not indexed ("") at the path of
    an existing indexed image. `unindexed` are the other images that are not indexed but have an indexed name.
    """

    def __init__(self, index: Iterable[IndexedImage], memo: Memo) -> None:
        names = _IndexedNames(index)
        claims: dict[str, list[_Claim]] = defaultdict(list)
        unindexed = []
        for part, _ in memo.read():
            for row in part.select(_COLUMNS).to_pylist():
                path, name, by_pixels = row["path"], *names.find_content(row)
                if name:
                    is_renamed = fold_stem(path) != fold_stem(name)
                    claims[name].append(_Claim(path != name, by_pixels, is_renamed, path))
                elif name := names.find_path(path):
                    unindexed.append(_Unindexed(path, name, row["reason"], row["detail"]))
        self._first = {name: min(same) for name, same in claims.items()}
        self._copies = {name: sorted(same)[1:] for name, same in claims.items() if len(same) > 1}
        self._displaced = [image for image in unindexed if image.name in self._first]
        self.index_name = {first.path: name for name, first in self._first.items() if first.path != name}
        self.left_out = {copy.path: name for name, copies in self._copies.items() for copy in copies}
        self.left_out |= {image.path: "" for image in self._displaced}
        self.unindexed = [
            image.path
            for image in unindexed
            if claims and not image.reason and image.path not in self.left_out
        ]

    @property
    def agree(self) -> bool:
        """Whether every indexed image is at its path in the index, and no other image claims its name."""
        return not self.index_name and not self.left_out

    def read(
        self, plugin: Source, tree: Tree, options: ReadOptions, ids: dict[str, str], items: Items
    ) -> Iterator[Any]:
        """Yield the items of the source when indexed images have their names in the index.

        `ids` is the source_id of each path, by name. Merged copies are added to `items`.
        """
        files = (self.index_name.get(path, path) for path in tree.files if path not in self.left_out)
        owners = {source_id: path for path, source_id in ids.items()}
        renamed = Tree(tree.root, files, tree.links, tree.bad_names)
        for item in read_source(plugin, renamed, options).items:
            if isinstance(item, Record | Reject | Annotation) and item.path in self._first:
                yield from self._add_copies(item, items)
                yield replace(item, path=self._first[item.path].path)
            elif isinstance(item, Reject) and item.reason == Reason.MISSING_IMAGE:
                yield self._explain(item, owners)
            else:
                yield item
        for image in self._displaced:
            path = self._first[image.name].path
            detail = f"the index has another image under this name, {image.name}, which is {path}"
            yield Reject(image.path, Reason(image.reason or Reason.MISSING_RATING), image.detail or detail)

    def _add_copies(self, item: Record | Reject | Annotation, items: Items) -> Iterator[Any]:
        """Treat the copies of an image like the image: merge them with its row, or reject them too."""
        first = self._first[item.path]
        for copy in self._copies.get(item.path, []):
            if isinstance(item, Record) and not out_of_range(item, items.info):
                same = "pixels" if first.by_pixels or copy.by_pixels else "bytes"
                items.merge(copy.path, f"the same {same} as {first.path}")
            else:
                yield replace(item, path=copy.path)

    def _explain(self, reject: Reject, owners: dict[str, str]) -> Reject:
        """Add to the reject of a missing rated image which image has its name."""
        path = owners.get(reject.path.rpartition("#")[2], "")
        name = self.index_name.get(path) or self.left_out.get(path)
        if not name:
            return reject
        return replace(
            reject, detail=f"{reject.detail}; {path} contains the image that is {name} in the index"
        )


class _IndexedNames:
    """The names of an index by content and by path."""

    def __init__(self, index: Iterable[IndexedImage]) -> None:
        self._by_bytes, self._by_pixels, self._by_stem = (defaultdict[str, set[str]](set) for _ in range(3))
        self._all = set()
        for image in index:
            self._all.add(image.file)
            self._by_bytes[image.sha256].add(image.file)
            self._by_pixels[image.pixel_id].add(image.file)
            self._by_stem[fold_stem(image.file)].add(image.file)

    def find_content(self, row: dict[str, Any]) -> tuple[str | None, bool]:
        """Return the name of an image's content, None if it has no single one, and whether pixels decided."""
        if row["reason"] is not None:
            return None, False
        by_bytes = self._by_bytes.get(row["image_id"])
        names = by_bytes or self._by_pixels.get(row["pixel_id"], set())
        if len(names) > 1:
            names = names & {self.find_path(row["path"])}
        return (next(iter(names)) if len(names) == 1 else None), not by_bytes

    def find_path(self, path: str) -> str | None:
        """Return the indexed name of a path, ignoring folder and suffix; None if there is no single one."""
        names = {path} if path in self._all else self._by_stem.get(fold_stem(path), set())
        return next(iter(names)) if len(names) == 1 else None


def _ids_of(items: Items, paths: Iterable[str]) -> dict[str, str]:
    """Return the source_id of the records at some paths."""
    wanted, ids = pa.array(paths, pa.string()), dict[str, str]()
    for part in items.labels.read(["path", "source_id"]):
        part = part.filter(pc.is_in(part["path"], wanted))
        ids.update(zip(part["path"].to_pylist(), part["source_id"].to_pylist(), strict=True))
    return ids


def _find_renamed(index_name: dict[str, str], ids: dict[str, str], items: Items) -> Iterator[Finding]:
    """Find the images whose labels by content differ from those by name."""
    rated = _ids_of(items, index_name)
    texts = [
        f"{path} contains the image that is {name} in the index; it gets the ratings of {name}"
        for path, name in sorted(index_name.items())
        if path in rated and rated[path] != ids.get(path)
    ]
    if texts:
        yield Finding("renamed", f"images with another name than in the index: {_list(texts)}")


def _find_different(unindexed: list[str], items: Items) -> Iterator[Finding]:
    """Find the rows whose image differs from the indexed image of that name."""
    paths = sorted(_ids_of(items, unindexed)) if unindexed else []
    if paths:
        text = "images that differ from the indexed image of the same name, whose ratings they get"
        yield Finding("differs", f"{text}: {_list(paths)}")


def _list(texts: list[str]) -> str:
    more = len(texts) - _SHOWN
    return f"{len(texts)}: {'; '.join(texts[:_SHOWN])}" + (f"; and {more} more" if more > 0 else "")
