"""What a source module offers. To add a source, write one module in `sources/`; nothing else changes.

INFO            the data sheet, `records.SourceInfo`
detect(tree)    why the tree is this source, in a few words, or None
read(tree, options)       the tree as records, rejects, annotations and findings
write_sample(root, rng)   a small generated tree in the true layout, with its true quirks; no real image

and, where tables have the addresses of images that are not shipped,

find_links(tree, options) every address, and where the layout expects its image (`affectdata download`)

The package calls sources through `read_source`, `detect_source`, `find_source_links` and
`write_source_sample`, so that an exception of a source becomes an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias
from zlib import crc32

import numpy as np

from affectdata.errors import AffectdataError, SourceError, UsageError
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Finding, Record, Reject, SourceInfo

Item: TypeAlias = Record | Reject | Annotation | Finding


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading a tree: `map_path` a column map for `table`, `name` for sources without one.

    `variant` is one of the source's `variants`; None is the first. `strict`: refuse a table with votes that
    cannot be used, instead of leaving them out.
    """

    map_path: Path | None = None
    name: str | None = None
    variant: str | None = None
    strict: bool = False


def check_options(info: SourceInfo, options: ReadOptions) -> None:
    """Refuse options that the source does not take.

    Raises:
        UsageError: an option that it does not take, or a variant that it does not have.
    """
    for name, value in (("map", options.map_path), ("name", options.name)):
        if value is not None and name not in info.takes:
            raise UsageError(
                f"the source {info.name} does not take --{name}", where=str(value), fix="remove it"
            )
    if options.variant is not None and options.variant not in info.variants:
        raise UsageError(
            f"{info.name} has no variant {options.variant!r}",
            fix=f"its variants: {', '.join(info.variants) or 'none'}",
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source reads in a tree: the data sheet of this copy (`info`), and every item.

    `ingest` accounts for the files that no item names: junk, or an image without a rating.
    """

    info: SourceInfo
    items: Iterable[Item]


@dataclass(frozen=True, slots=True)
class Link:
    """The address of an image, and its `path` in the tree: where it is, or where the layout expects it.

    Several links of one path are tried in their order.
    """

    path: str
    url: str


class Source(Protocol):
    """A source module."""

    INFO: SourceInfo

    def detect(self, tree: Tree) -> str | None: ...

    def read(self, tree: Tree, options: ReadOptions) -> Reading: ...

    def write_sample(self, root: Path, rng: np.random.Generator) -> None: ...


def read_source(source: Source, tree: Tree, options: ReadOptions) -> Reading:
    """Call the source's `read`; its items are read while they are iterated.

    Raises:
        SourceError: the tree does not match the layout, or the source raised an exception, which is the
            cause; so from the items.
    """
    tree.note_read(None)
    with _naming_source(source, tree):
        reading = source.read(tree, options)
        return Reading(reading.info, _guard(source, tree, reading.items))


def detect_source(source: Source, tree: Tree) -> str | None:
    """Call the source's `detect`.

    Raises:
        SourceError: the source raised an exception, which is the cause.
    """
    tree.note_read(None)
    with _naming_source(source, tree):
        return source.detect(tree)


def find_source_links(source: Source, tree: Tree, options: ReadOptions) -> list[Link]:
    """Call the source's `find_links`; an empty list for sources without one, as most ship their images.

    Raises:
        SourceError: as for `read_source`.
    """
    find: Callable[[Tree, ReadOptions], Iterable[Link]] | None = getattr(source, "find_links", None)
    tree.note_read(None)
    with _naming_source(source, tree):
        return list(find(tree, options)) if find else []


def write_source_sample(source: Source, root: Path, seed: int) -> None:
    """Call the source's `write_sample`; no image is in the samples of two sources.

    Raises:
        SourceError: the source raised an exception, which is the cause.
    """
    with _naming_source(source):
        source.write_sample(root, np.random.default_rng([seed, crc32(source.INFO.name.encode())]))


def _guard(source: Source, tree: Tree, items: Iterable[Item]) -> Iterator[Item]:
    with _naming_source(source, tree):
        yield from items


@contextmanager
def _naming_source(source: Source, tree: Tree | None = None) -> Iterator[None]:
    """Turn an exception of a source into an error; `where` is the file of `tree` read last, or the module.

    Errors of this package and of the system say themselves what is wrong.
    """
    try:
        yield
    except (AffectdataError, MemoryError, OSError):
        raise
    except Exception as error:
        name = source.INFO.name
        where, fix = (
            str(getattr(source, "__file__", name)),
            "correct the source module; -vv shows the traceback",
        )
        if tree:
            file = tree.last_read
            where = f"{tree.root / file}, the file read last" if file else str(tree.root)
            fix = (
                f"compare the files with the layout (`affectdata sources {name}`); if they are as shipped, "
                "the source module has a bug: -vv shows the traceback"
            )
        raise SourceError(
            f"the source {name} raised {type(error).__name__}: {error}", where=where, fix=fix
        ) from error
