"""Tables and label files beside class folders: what they say, compared with the folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from affectdata.errors import SourceError
from affectdata.labels import spell_emotion
from affectdata.reading.names import fold_path, is_readme
from affectdata.reading.tables import TABLE_SUFFIXES, read_table
from affectdata.reading.tree import Tree
from affectdata.records import Finding, count_text, shorten

CLASS_COLUMNS = (
    "emotion",
    "label",
    "class",
    "category",
)  # what a column of classes is called, the best first
_MORE_CLASS_COLUMNS = (*CLASS_COLUMNS, "labels", "classes", "expression", "emotions", "sentiment", "target")
_LABEL_SUFFIXES = {*TABLE_SUFFIXES, ".json", ".xml", ".yaml", ".yml", ".npy", ".pkl", ".pickle"}
_HEAD = 100  # rows in which the column of image names is searched
_MOST = 0.8  # of these rows name an image
_TABLES = 20  # compared with the folders


def find_label_files(tree: Tree) -> list[str]:
    """List the files that may have labels, judging by their suffixes; readmes are none."""
    return [
        path
        for path in tree.others()
        if PurePosixPath(path).suffix.lower() in _LABEL_SUFFIXES and not is_readme(path)
    ]


def is_own_table(columns: Container[str]) -> bool:
    """Return whether this package wrote the table: its `emotion` is the class, whatever else there is."""
    return "pixel_id" in columns and "emotion" in columns


def find_class_column(
    header: Sequence[str], rows: Sequence[Sequence[str]], called: Sequence[str] = _MORE_CLASS_COLUMNS
) -> str | None:
    """Return the column with the classes; of several, one with words rather than numbers."""
    names = {name.lower(): name for name in reversed(header)}
    columns = [names[name] for name in called if name in names]
    in_words = (name for name in columns if any(row[header.index(name)].isalpha() for row in rows))
    return next(in_words, columns[0] if columns else None)


@dataclass(frozen=True, slots=True)
class LabelTable:
    """A table with the classes of images: its columns, and the class of each image by path."""

    path: str
    key: str
    column: str
    match_parts: int | None
    labels: Mapping[str, str]

    @property
    def way_in(self) -> str:
        """How to ingest the table."""
        lines = ["name: my_images", f"table: '{self.path}'", f"key: '{self.key}'"]
        lines += [f"match_parts: {self.match_parts}"] if self.match_parts else []
        lines += [f"columns: {{emotion: '{self.column}'}}"]
        listed = "".join(f"    {line}\n" for line in lines)
        return f"write a file columns.yaml:\n{listed}  and ingest with --source table --map columns.yaml"

    def differences(self, words: Mapping[str, str]) -> list[str]:
        """Return the images whose label differs from the word for their folder.

        Labels in another vocabulary (numbers, say) differ where they are not the most frequent label of the
        folder, or where that is also the most frequent one of another folder.
        """
        pairs = [(path, words[path], spell_emotion(label)) for path, label in self.labels.items()]
        if not {label for _, _, label in pairs}.isdisjoint(words.values()):
            return [path for path, word, label in pairs if word != label]
        counts = Counter((word, label) for _, word, label in pairs)
        usual: dict[str, str] = {}
        for (word, label), _ in counts.most_common():
            if word not in usual and label not in usual.values():
                usual[word] = label
        return [path for path, word, label in pairs if usual.get(word) != label]


def read_label_table(tree: Tree, path: str, images: Sequence[str]) -> LabelTable | None:
    """Return the classes in a table, if it has a column of them and one with names of `images`."""
    try:
        header, rows = read_table(tree, path)
        head = list(islice(rows, _HEAD))
        column = find_class_column(header, head)
        if column is None or not head:
            return None
        for parts, paths in ((None, _by_ending(images, None)), (1, _by_ending(images, 1))):
            for at, key in enumerate(header):
                if key != column and sum(_find(paths, row[at]) is not None for row in head) >= _MOST * len(
                    head
                ):
                    found = ((_find(paths, row[at]), row[header.index(column)]) for row in rows)
                    labels = {image: label for image, label in found if image is not None and label}
                    return LabelTable(path, key, column, parts, labels)
    except SourceError:  # no table of images, whatever it is
        return None
    return None


def _by_ending(images: Sequence[str], parts: int | None) -> dict[str, str | None]:
    """Return images by path, or by the last parts of it; None for several images."""
    paths: dict[str, str | None] = {}
    for image in images:
        ending = "/".join(fold_path(image).split("/")[-parts:]) if parts else fold_path(image)
        paths[ending] = None if ending in paths else image
    return paths


def _find(paths: Mapping[str, str | None], cell: str) -> str | None:
    return paths.get(fold_path(cell.replace("\\", "/").removeprefix("./").lstrip("/")))


def compare_with_folders(tree: Tree, paths: Sequence[str], words: Mapping[str, str]) -> Iterator[Finding]:
    """Compare label files with the words of the folders, by image.

    Raises:
        SourceError: a table contradicts the folders.
    """
    notes = []
    for path in paths[:_TABLES]:
        table = read_label_table(tree, path, list(words))
        if table is None:
            continue
        wrong = table.differences(words)
        if wrong:
            raise _contradiction(tree.root, table, wrong, words)
        notes.append(f"{path} agrees with the folders on {count_text(len(table.labels), 'image')}")
    if paths:
        text = "not read, as the classes are those of the folders: "
        yield Finding("unread_table", text + "; ".join([shorten(paths), *notes]))


def _contradiction(root: Path, table: LabelTable, wrong: list[str], words: Mapping[str, str]) -> SourceError:
    examples = [f"{path}: folder {words[path]}, table {table.labels[path]}" for path in wrong]
    return SourceError(
        f"{table.path} contradicts the folders for {len(wrong)} of {len(table.labels)} images "
        f"(column {table.column!r})",
        where=shorten(examples, separator="; "),
        fix=f"to use the table, {table.way_in}; to use the folders, move the table out of {root}",
    )
