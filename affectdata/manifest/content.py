"""Join by content: an image in the index of its source gets the labels of its content, not of its file name.

In: a tree, the source's items joined by name, the probed images, the index. Out: the items that the source
yields when every indexed image has its path in the index, and findings. Images are matched by bytes, then by
pixels, then by their look (`look`). The source reads the tree a second time for that, only if names and
contents disagree.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.images.duplicates import hash_views
from affectdata.manifest.findings import list_examples
from affectdata.manifest.items import Items, add_unnamed_files, out_of_range
from affectdata.manifest.look import IndexedLooks, Look
from affectdata.manifest.memo import Memo
from affectdata.manifest.rating_changes import compare_ratings
from affectdata.reading.indexes import Index, IndexedImage
from affectdata.reading.names import fold_stem
from affectdata.reading.protocol import ReadOptions, Source, read_source
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Finding, Reason, Record, Reject, count_text

_COLUMNS = ["path", "image_id", "pixel_id", "phash", "phash_views", "reason", "detail"]
_BY = ("the same bytes", "the same pixels", "the same look")  # how an image was matched, the surest first
_LOOK = _BY.index("the same look")


def join_by_content(
    plugin: Source,
    tree: Tree,
    options: ReadOptions,
    items: Items,
    memo: Memo,
    index: Index,
    trust_names: bool = False,
) -> Items:
    """Return `items` with the labels of indexed images by content; `memo` has all images of the tree.

    An image that is not indexed keeps the labels of its name, unless the indexed image of that name exists or
    looks different. `trust_names`: it may look different.
    """
    contents = _Contents(index.images, memo, trust_names)
    joined = items
    if not contents.agree:
        ids = _ids_of(items, [*contents.index_name, *contents.left_out])
        joined = Items(items.info)
        for item in contents.read(plugin, tree, options, ids, joined):
            joined.add(item)
        add_unnamed_files(tree, joined)
        joined.findings += _find_renamed(contents, ids, joined)
    joined.findings += _find_different(contents.unindexed, joined)
    joined.findings += contents.find_undecided()
    joined.findings.append(contents.summarise(index))
    joined.findings += compare_ratings(plugin, tree, options, joined, index, contents.is_copy)
    return joined


class _Unindexed(NamedTuple):
    """An image of which neither bytes nor pixels are indexed; `reason` is why it is unreadable.

    `name` is the indexed image of that name, if any.
    """

    path: str
    name: str | None
    reason: str | None
    detail: str | None
    look: Look


class _Claim(NamedTuple):
    """An image whose content is indexed; the smallest claim on a content wins."""

    by_look: bool
    is_elsewhere: bool
    by: int
    is_renamed: bool
    path: str


class _Contents:
    """Maps images of a tree to indexed images; names are paths in the index, paths are in the tree.

    `index_name` has the images whose path differs from that in the index. `left_out` is hidden from the
    source: further images with the content of a name, and images that must not have the labels of their names
    (""): `rejects` says why. `unindexed` are the other images that are not indexed but have an indexed name.
    """

    def __init__(self, images: tuple[IndexedImage, ...], memo: Memo, trust_names: bool) -> None:
        self._names, self._looks = _IndexedNames(images), IndexedLooks(images)
        self._claims: dict[str, list[_Claim]] = defaultdict(list)
        self.n_images = 0
        unindexed = list(self._match(memo))
        n_alike = sum(bool(image.look.alike) for image in unindexed)
        self.is_copy = bool(self._claims) or 2 * n_alike > self.n_images  # else likenesses are coincidences
        self._undecided: list[_Unindexed] = []
        self.rejects: dict[str, Reject] = {}
        rest = []
        for image in unindexed if self.is_copy else ():
            if not self._decide_by_look(image, trust_names):
                rest.append(image)
        self._first = {name: min(same) for name, same in self._claims.items()}
        self._copies = {name: sorted(same)[1:] for name, same in self._claims.items() if len(same) > 1}
        self.index_name = {first.path: name for name, first in self._first.items() if first.path != name}
        self.rejects |= {image.path: self._displace(image) for image in rest if image.name in self._first}
        self.left_out = {copy.path: name for name, copies in self._copies.items() for copy in copies}
        self.left_out |= dict.fromkeys(self.rejects, "")
        self.unindexed = [
            image.path for image in rest if image.name and not image.reason and image.path not in self.rejects
        ]

    def _match(self, memo: Memo) -> Iterator[_Unindexed]:
        """Match images by bytes and pixels; yield the others."""
        for part, _ in memo.read():
            part = part.select(_COLUMNS)
            for number, row in enumerate(part.to_pylist()):
                self.n_images += 1
                path = row["path"]
                name, by = self._names.find_content(row)
                if name:
                    self._claim(path, name, by)
                    continue
                name, look = self._names.find_path(path), Look((), None)
                if row["reason"] is None:
                    look = self._looks.compare(hash_views(part.slice(number, 1))[0], name)
                if name or look.alike:
                    yield _Unindexed(path, name, row["reason"], row["detail"], look)

    def _claim(self, path: str, name: str, by: int) -> None:
        is_renamed = fold_stem(path) != fold_stem(name)
        self._claims[name].append(_Claim(by == _LOOK, path != name, by, is_renamed, path))

    def _decide_by_look(self, image: _Unindexed, trust_names: bool) -> bool:
        """Claim the indexed image that an image looks like, or reject the image; return whether it did."""
        path, name, look = image.path, image.name, image.look
        if len(look.alike) == 1:
            self._claim(path, look.alike[0], _LOOK)
        elif name in look.alike:
            self._undecided.append(image)
            self._claim(path, name, _LOOK)
        elif look.alike:
            detail = (
                f"it looks like several indexed images and has the name of none: {list_examples(look.alike)}"
            )
            self.rejects[path] = Reject(path, Reason.AMBIGUOUS_CONTENT, detail)
        elif look.apart is not None and not trust_names:
            detail = f"{name} in the index looks different ({look.apart} of 64 bits); --trust-names keeps it"
            self.rejects[path] = Reject(path, Reason.CONTENT_MISMATCH, detail)
        else:
            return False
        return True

    def _displace(self, image: _Unindexed) -> Reject:
        """Reject an image at the path of an indexed image that is elsewhere."""
        path = self._first[image.name or ""].path
        detail = f"the index has another image under this name, {image.name}, which is {path}"
        return Reject(image.path, Reason(image.reason or Reason.MISSING_RATING), image.detail or detail)

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
        yield from self.rejects.values()

    def _add_copies(self, item: Record | Reject | Annotation, items: Items) -> Iterator[Any]:
        """Treat the copies of an image like the image: merge them with its row, or reject them too."""
        first = self._first[item.path]
        for copy in self._copies.get(item.path, []):
            if isinstance(item, Record) and not out_of_range(item, items.info):
                by = max(first.by, copy.by)
                reason = Reason.LOOK_ALIKE if by == _LOOK else Reason.EXACT_DUPLICATE
                items.merge(copy.path, f"{_BY[by]} as {first.path}", reason)
            else:
                yield replace(item, path=copy.path)

    def describe(self, path: str) -> str:
        """Say which indexed image an image is, or why it is rejected; "" if it has its name in the index."""
        name = self.index_name.get(path) or self.left_out.get(path)
        if not name:
            return f"{path} is rejected: {self.rejects[path].reason}" if path in self.rejects else ""
        by_look = any(claim.path == path and claim.by_look for claim in self._claims[name])
        if by_look:
            return f"{path} looks like {name} in the index"
        return f"{path} contains the image that is {name} in the index"

    def _explain(self, reject: Reject, owners: dict[str, str]) -> Reject:
        """Add to the reject of a missing rated image which image has its name."""
        described = self.describe(owners.get(reject.path.rpartition("#")[2], ""))
        return replace(reject, detail=f"{reject.detail}; {described}") if described else reject

    def find_undecided(self) -> Iterator[Finding]:
        """Find the images that look like several indexed images, of which their names chose one."""
        texts = [f"{image.path} ({', '.join(image.look.alike)})" for image in self._undecided]
        if texts:
            text = "images that look like several indexed images, so that their names decide"
            yield Finding("look_alikes", f"{text}: {list_examples(texts)}")

    def summarise(self, index: Index) -> Finding:
        """Count how many of the indexed images the tree has."""
        if not self.is_copy:
            text = f"none of the {len(index.images)} indexed files: another copy, or not {index.source}"
            return Finding("index", text)
        counts = Counter(first.by for first in self._first.values())
        texts = [f"{counts[0]} of {len(index.images)} files identical to the indexed copy"]
        texts += [f"{counts[by]} with {_BY[by]}" for by in (1, 2) if counts[by]]
        missing = sorted({image.file for image in index.images} - self._first.keys())
        if missing:
            texts.append(f"missing {list_examples(missing)}")
        n_others = self.n_images - sum(map(len, self._claims.values()))
        if n_others:
            texts.append(count_text(n_others, "image", "are") + " not in the index")
        return Finding("index", "; ".join(texts))


class _IndexedNames:
    """The names of an index by content and by path."""

    def __init__(self, images: Iterable[IndexedImage]) -> None:
        self._by_bytes, self._by_pixels, self._by_stem = (defaultdict[str, set[str]](set) for _ in range(3))
        self._all = set()
        for image in images:
            self._all.add(image.file)
            self._by_bytes[image.sha256].add(image.file)
            self._by_pixels[image.pixel_id].add(image.file)
            self._by_stem[fold_stem(image.file)].add(image.file)

    def find_content(self, row: dict[str, Any]) -> tuple[str | None, int]:
        """Return the name of an image's content, None if it has no single one, and what decided (`_BY`)."""
        if row["reason"] is not None:
            return None, 0
        by_bytes = self._by_bytes.get(row["image_id"])
        names = by_bytes or self._by_pixels.get(row["pixel_id"], set())
        if len(names) > 1:
            names = names & {self.find_path(row["path"])}
        return (next(iter(names)) if len(names) == 1 else None), 0 if by_bytes else 1

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


def _find_renamed(contents: _Contents, ids: dict[str, str], items: Items) -> Iterator[Finding]:
    """Find the images whose labels by content differ from those by name."""
    rated = _ids_of(items, contents.index_name)
    texts = [
        f"{contents.describe(path)}; it gets the ratings of {name}"
        for path, name in sorted(contents.index_name.items())
        if path in rated and rated[path] != ids.get(path)
    ]
    if texts:
        yield Finding("renamed", f"images with another name than in the index: {list_examples(texts)}")


def _find_different(unindexed: list[str], items: Items) -> Iterator[Finding]:
    """Find the rows whose image differs from the indexed image of that name."""
    paths = sorted(_ids_of(items, unindexed)) if unindexed else []
    if paths:
        text = "images that differ from the indexed image of the same name, whose ratings they get"
        yield Finding("differs", f"{text}: {list_examples(paths)}")
