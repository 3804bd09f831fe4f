"""Join by content: where the index of a source knows an image, its labels follow its content, not its name.

In: a tree, what its source says of it by names, what was seen of its images, the index. Out: what the source
says when every indexed image has the path that the index gives to its content: bytes decide, then pixels. The
source reads the tree once more for that, and only where names and contents disagree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.manifest.items import Items, out_of_range, sweep
from affectdata.manifest.memo import Memo
from affectdata.reading.indexes import IndexedImage
from affectdata.reading.names import fold_stem
from affectdata.reading.protocol import ReadOptions, Source, read_source
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Finding, Reason, Record, Reject

_NAMED = 3  # examples in a finding
_COLUMNS = ["path", "image_id", "pixel_id", "reason", "detail"]


def join_by_content(
    plugin: Source, tree: Tree, options: ReadOptions, items: Items, memo: Memo, index: Iterable[IndexedImage]
) -> Items:
    """Return `items` with the labels of indexed images by their content; `memo` has all images of the tree.

    An image that is not indexed keeps the labels of its name, unless the indexed image of that name is there.
    """
    found = _Contents(index, memo)
    joined = items
    if not found.agree:
        ids = _ids_of(items, [*found.index_name, *found.left_out])
        joined = Items(items.info)
        for item in found.read(plugin, tree, options, ids, joined):
            joined.add(item)
        sweep(tree, joined)
        joined.findings += _describe_renamed(found.index_name, ids, joined)
    joined.findings += _describe_different(found.unindexed, joined)
    return joined


class _Unindexed(NamedTuple):
    """An image that is not indexed, at a path that names an indexed one; `reason` is why it is unreadable."""

    path: str
    name: str
    reason: str | None
    detail: str | None


class _Claim(NamedTuple):
    """An image whose content is indexed; of several with one content the smallest stands for it."""

    is_elsewhere: bool
    by_pixels: bool
    is_called_otherwise: bool
    path: str


class _Contents:
    """Which images of a tree are which indexed ones; names are paths in the index, paths are in the tree.

    `index_name` has the images that lie at another path than in the index. `left_out` is not offered to the
    source: further images with the content of a name, and images that are not indexed ("") at the path of
    one that is there. `unindexed` are the others that are not, but have a name of the index.
    """

    def __init__(self, index: Iterable[IndexedImage], memo: Memo) -> None:
        names = _Names(index)
        claims: dict[str, list[_Claim]] = defaultdict(list)
        unindexed = []
        for part, _ in memo.read():
            for row in part.select(_COLUMNS).to_pylist():
                path, name, by_pixels = row["path"], *names.find_content(row)
                if name:
                    otherwise = fold_stem(path) != fold_stem(name)
                    claims[name].append(_Claim(path != name, by_pixels, otherwise, path))
                elif name := names.find_path(path):
                    unindexed.append(_Unindexed(path, name, row["reason"], row["detail"]))
        self._first = {name: min(same) for name, same in claims.items()}
        self._copies = {name: sorted(same)[1:] for name, same in claims.items() if len(same) > 1}
        self._displaced = [each for each in unindexed if each.name in self._first]
        self.index_name = {first.path: name for name, first in self._first.items() if first.path != name}
        self.left_out = {each.path: name for name, same in self._copies.items() for each in same}
        self.left_out |= {each.path: "" for each in self._displaced}
        self.unindexed = [
            each.path for each in unindexed if claims and not each.reason and each.path not in self.left_out
        ]

    @property
    def agree(self) -> bool:
        """Whether every indexed image is where the index has it, and no other image claims its name."""
        return not self.index_name and not self.left_out

    def read(
        self, plugin: Source, tree: Tree, options: ReadOptions, ids: dict[str, str], items: Items
    ) -> Iterator[Any]:
        """Yield what the source says of the tree when indexed images have their names in the index.

        `ids` are the source_id that paths have by name. Copies that are merged go to `items`.
        """
        files = (self.index_name.get(path, path) for path in tree.files if path not in self.left_out)
        owners = {source_id: path for path, source_id in ids.items()}
        renamed = Tree(tree.root, files, tree.links, tree.bad_names)
        for item in read_source(plugin, renamed, options).items:
            if isinstance(item, Record | Reject | Annotation) and item.path in self._first:
                yield from self._take_copies(item, items)
                yield replace(item, path=self._first[item.path].path)
            elif isinstance(item, Reject) and item.reason == Reason.MISSING_IMAGE:
                yield self._explain(item, owners)
            else:
                yield item
        for each in self._displaced:
            there = self._first[each.name].path
            detail = f"the index has another image under this name, {each.name}, which is {there}"
            yield Reject(each.path, Reason(each.reason or Reason.MISSING_RATING), each.detail or detail)

    def _take_copies(self, item: Record | Reject | Annotation, items: Items) -> Iterator[Any]:
        """Let the copies of an image go where it goes: they are merged with its row, or rejected as it is."""
        first = self._first[item.path]
        for copy in self._copies.get(item.path, []):
            if isinstance(item, Record) and not out_of_range(item, items.info):
                same = "pixels" if first.by_pixels or copy.by_pixels else "bytes"
                items.merge(copy.path, f"the same {same} as {first.path}")
            else:
                yield replace(item, path=copy.path)

    def _explain(self, reject: Reject, owners: dict[str, str]) -> Reject:
        """Say of a rated image that is not there which image has its name."""
        path = owners.get(reject.path.rpartition("#")[2], "")
        name = self.index_name.get(path) or self.left_out.get(path)
        if not name:
            return reject
        return replace(reject, detail=f"{reject.detail}; {path} holds the image that the index calls {name}")


class _Names:
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
        """Return the name that a path has, in whatever folder and with whatever suffix, if it is one."""
        names = {path} if path in self._all else self._by_stem.get(fold_stem(path), set())
        return next(iter(names)) if len(names) == 1 else None


def _ids_of(items: Items, paths: Iterable[str]) -> dict[str, str]:
    """Return the source_id of the records at some paths."""
    wanted, found = pa.array(paths, pa.string()), dict[str, str]()
    for part in items.labels.read(["path", "source_id"]):
        part = part.filter(pc.is_in(part["path"], wanted))
        found.update(zip(part["path"].to_pylist(), part["source_id"].to_pylist(), strict=True))
    return found


def _describe_renamed(index_name: dict[str, str], ids: dict[str, str], items: Items) -> Iterator[Finding]:
    """Name the images whose labels are others than by their names."""
    rated = _ids_of(items, index_name)
    texts = [
        f"{path} holds the image that the index calls {name}; it gets the ratings of {name}"
        for path, name in sorted(index_name.items())
        if path in rated and rated[path] != ids.get(path)
    ]
    if texts:
        yield Finding("renamed", f"images under another name than in the index: {_count(texts)}")


def _describe_different(unindexed: list[str], items: Items) -> Iterator[Finding]:
    """Name the rows whose image is not the indexed one of its name."""
    paths = sorted(_ids_of(items, unindexed)) if unindexed else []
    if paths:
        text = "images whose content differs from the indexed image of their name, by which they are rated"
        yield Finding("differs", f"{text}: {_count(paths)}")


def _count(texts: list[str]) -> str:
    more = len(texts) - _NAMED
    return f"{len(texts)}: {'; '.join(texts[:_NAMED])}" + (f"; and {more} more" if more > 0 else "")
