"""What a source module offers. To add a source, write one module in `sources/`; nothing else changes.

INFO            the data sheet, `records.SourceInfo`
detect(tree)    words that say why the tree is this source, or None
read(tree, options)       the tree as records, rejects, annotations and findings
write_sample(root, rng)   a small fake tree in the true layout, with its true quirks; no real image

and, where tables have the addresses of images that are not shipped,

find_links(tree, options) every address, and where the layout wants its image (`affectdata download`)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from affectdata.errors import UsageError
from affectdata.reading.tree import Tree
from affectdata.records import Annotation, Finding, Record, Reject, SourceInfo

Item: TypeAlias = Record | Reject | Annotation | Finding


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a user says about a tree: `map_path` a column map for `table`, `name` for sources without one.

    `variant` is one of the source's `variants`; None is the first.
    """

    map_path: Path | None = None
    name: str | None = None
    variant: str | None = None


def check_options(info: SourceInfo, options: ReadOptions) -> None:
    """Refuse what the source would not heed.

    Raises:
        UsageError: an option that it does not take, or a variant that it does not have.
    """
    for name, given in (("map", options.map_path), ("name", options.name)):
        if given is not None and name not in info.takes:
            raise UsageError(f"{info.name} takes no --{name}", where=str(given), fix="leave it out")
    if options.variant is not None and options.variant not in info.variants:
        raise UsageError(
            f"{info.name} has no variant {options.variant!r}",
            fix=f"its variants: {', '.join(info.variants) or 'none'}",
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What a tree says: the source as found (`info`), and every item of it.

    Files that no item names are sorted out by `ingest`: junk, or an image without a rating.
    """

    info: SourceInfo
    items: Iterable[Item]


@dataclass(frozen=True, slots=True)
class Link:
    """The address of an image, and its `path`: where it lies in the tree, or else where it is wanted.

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
