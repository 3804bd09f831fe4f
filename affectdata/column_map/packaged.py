"""The column maps in `sources/maps/` as sources, with the interface of source modules.

The first comment of a map is its data sheet.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path

import numpy as np

from affectdata.column_map.columns import ColumnMap
from affectdata.column_map.read import find_mapped_links, find_tables, read_mapped, recognise_map
from affectdata.column_map.sample import write_map_sample
from affectdata.config import parse_model, read_yaml
from affectdata.reading.names import is_readme
from affectdata.reading.protocol import Item, Link, Reading, ReadOptions
from affectdata.reading.tree import Tree
from affectdata.records import Annotation


class MapSource:
    """A packaged column map; see `reading.protocol.Source`."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text(encoding="utf-8").splitlines()
        self.__doc__ = "\n".join(line[2:] for line in takewhile(lambda line: line.startswith("#"), lines))
        self.__name__ = path.stem
        self.spec = parse_model(ColumnMap, read_yaml(path), str(path))
        self.INFO = self.spec.to_info(self.spec.name)

    def detect(self, tree: Tree) -> str | None:
        """Recognise a tree by the name and columns of a table, or by the names of all images."""
        return recognise_map(tree, self.spec)

    def read(self, tree: Tree, options: ReadOptions) -> Reading:
        """Read the tables of the map, or the file names.

        Raises:
            SourceError: there is no such table, or it lacks a column.
        """
        return Reading(self.INFO, self._read_items(tree, find_tables(tree, self.spec)))

    def _read_items(self, tree: Tree, tables: list[str]) -> Iterator[Item]:
        readmes = [path for path in tree.files if is_readme(path) and path not in tables]
        yield from (Annotation(path) for path in readmes)
        yield from read_mapped(tree, tables, self.spec)

    def find_links(self, tree: Tree, options: ReadOptions) -> Iterator[Link]:
        """Yield the image addresses in the tables."""
        return find_mapped_links(tree, self.spec)

    def write_sample(self, root: Path, rng: np.random.Generator) -> None:
        """Write generated images and tables in the layout of the map."""
        write_map_sample(self.spec, root, rng)


@cache
def load_map(path: Path) -> MapSource:
    """Read a packaged map; cached."""
    return MapSource(path)
