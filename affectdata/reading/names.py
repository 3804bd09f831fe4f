"""Normalise names: of files for comparison without case and suffix, of splits, and of manifests."""

from __future__ import annotations

import re
import unicodedata
from posixpath import basename

from affectdata.reading.delimited import clean_cell
from affectdata.reading.tree import Tree, is_image_name

_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
_README = re.compile(r"(readme|licen[cs]e|citation)[^/]*?(\.(txt|md|rst|rtf|pdf|html|cff))?", re.IGNORECASE)


def spell_split(word: str) -> str | None:
    """Normalise a word for a split to train, val or test; None for any other word.

    >>> spell_split("Validation"), spell_split("fold1")
    ('val', None)
    """
    return _SPLITS.get(word.strip().lower())


def slug(text: str) -> str:
    """Return a name of lower-case letters, digits and underscores; it may be empty.

    >>> slug("My Norms (2024)")
    'my_norms_2024'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "_", plain).strip("_")


def fold_path(path: str) -> str:
    """Return a path for comparison: without an image's suffix or zero-width characters, NFC, case-folded.

    >>> fold_path("images/2375.1.JPG"), fold_path("images/2375.1")
    ('images/2375.1', 'images/2375.1')
    """
    stem = path.rpartition(".")[0] if is_image_name(path) else path
    return unicodedata.normalize("NFC", clean_cell(stem)).casefold()


def fold_stem(path: str) -> str:
    """Return the letters and digits of a file's stem: `Acorns 1.jpg`, `Acorns_1.jpg` and `acorns1` are equal.

    >>> fold_stem("images/Acorns_1.jpg")
    'acorns1'
    """
    return "".join(letter for letter in fold_path(path).rpartition("/")[2] if letter.isalnum())


def natural_key(text: str) -> list[str | int]:
    """Return a key that sorts numbers by their size, and ignores case.

    >>> sorted(["Lake 10", "lake 2"], key=natural_key)
    ['lake 2', 'Lake 10']
    """
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", text.lower()))]


def is_readme(path: str) -> bool:
    """Return whether a file is a readme or a licence, judging by its name, in any folder."""
    return _README.fullmatch(basename(path)) is not None


def find_readmes(tree: Tree, folder: str = "") -> list[str]:
    """List the readmes and licences at the root, or in `folder`, which ends in a slash."""
    return [path for path in tree.files if _README.fullmatch(path.removeprefix(folder))]
