"""What to do about a tree without usable images: by the most frequent reason, or by where the images are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.errors import SourceError
from affectdata.reading.archives import find_archives
from affectdata.reading.tree import Tree, read_tree
from affectdata.reading.unread import name_unread_layout
from affectdata.records import Reason, count_text, shorten
from affectdata.registry import load_plugin

# Given a tree, the name of the source that recognises it, whether that is generic, and why.
Detect = Callable[[Tree], "tuple[str, bool] | None"]

_FIXES: dict[str, str] = {
    Reason.MISSING_IMAGE: "file names in a table must be relative to the root; in a column map, "
    "`match_parts: 1` compares them without folders; rows about no image, such as totals, do no harm",
    Reason.MISSING_RATING: "compare the names of these images with those in the table, without folders by "
    "`match_parts: 1` of a column map, fill in empty cells, or move the images into class folders",
    Reason.BAD_RATING: "correct these cells, or the columns and missing values (`na`) of the column map",
    Reason.RATING_OUT_OF_RANGE: "correct these ratings, or `scales` of the column map (lowest and highest "
    "possible answer)",
    Reason.CONFLICTING_RATING: "keep one row per image, or take the means: `repeated: mean` in a column map",
    Reason.BAD_NAME: "rename these files, or describe their names in a column map (`file`, `match_parts`)",
    Reason.UNREADABLE: "these files are damaged or no images: download or unpack them again",
    Reason.UNSUPPORTED_FORMAT: "convert these images to PNG or JPEG",
    Reason.CONTENT_MISMATCH: "the index of the source has other images under these names; to keep the labels "
    "of the names: --trust-names",
    Reason.AMBIGUOUS_CONTENT: "give these images their names in the source, by which they can be told apart",
    Reason.TRUNCATED: "these files are incomplete: download or unpack them again",
    Reason.TOO_LARGE: "make these images smaller",
    Reason.DECODE_WARNING: "ingest without --strict, which rejects images that a decoder warns about",
    Reason.LINK: "copy the files in place of the links: cp -rL ROOT COPY; then ingest COPY",
    Reason.PLACEHOLDER: "these are placeholders for missing images: get the images from elsewhere",
}
_INSIDE_FILES = ("parquet_images", "webdataset")  # a folder of images is not part of these
_N_PARENTS = 2
_MAX_FILES = 50_000  # of a parent folder that is searched for a source


def most_frequent_reason(rejects: pa.Table) -> str | None:
    """Return the most frequent reason that is neither junk nor merged; of equals the first by name."""
    ignored = pa.array([Reason.JUNK, Reason.EXACT_DUPLICATE, Reason.LOOK_ALIKE], pa.string())
    reasons = rejects["reason"].filter(pc.invert(pc.is_in(rejects["reason"], ignored)))
    counts = {row["values"]: row["counts"] for row in reasons.value_counts().to_pylist()}
    return min(counts, key=lambda reason: (-counts[reason], reason), default=None)


def fix_for(rejects: pa.Table) -> str | None:
    """Return what to do about the most frequent reason; None if there is none."""
    reason = most_frequent_reason(rejects)
    return _FIXES.get(reason) if reason else None


@contextmanager
def explain(tree: Tree, detect: Detect) -> Iterator[None]:
    """Add to the error of a tree that its images are in archives, or that a parent folder is the source."""
    try:
        yield
    except SourceError as error:
        shards = load_plugin("sources", "webdataset").detect(tree)
        if name_unread_layout(tree) or shards or detect(tree):  # the error itself is more specific
            raise
        archives = [] if tree.images() else find_archives(tree)
        if archives:
            raise SourceError(
                f"{tree.root} contains no image, but {count_text(len(archives), 'archive')}, not unpacked: "
                f"{shorten(archives)}",
                where="an archive is unpacked only if it is passed itself",
                fix=f"unpack them there (`unzip`, `tar -xf`), then: affectdata ingest '{tree.root}'",
            ) from error
        parent = _find_parent(tree, detect) if tree.images() else None
        if parent:
            raise SourceError(
                f"{tree.root} is a part of {parent[1]}, whose tables or other classes are outside of it",
                where=error.what,
                fix=f"affectdata ingest '{parent[0]}'",
            ) from error
        raise


def _find_parent(tree: Tree, detect: Detect) -> tuple[Path, str] | None:
    """Return the parent folder that is a source, and its name; a parent of that only if both are generic.

    A generic source is a folder of classes, say: the tree is a part of it only if it is one folder of images.
    A folder that only has the source as another subfolder does not count.
    """
    found = None
    is_one_folder = all("/" not in path for path in tree.images().one_per_folder())
    for parent in islice(tree.root.resolve().parents, _N_PARENTS):
        try:
            match = detect(read_tree(parent, max_files=_MAX_FILES))
        except SourceError:  # too large or unreadable
            break
        if (
            not match
            or match[0] in _INSIDE_FILES
            or (match[1] and not is_one_folder)
            or (found and not match[1])
            or (not match[1] and _is_beside(parent, tree.root.resolve(), match[0], detect))
        ):
            break
        found = parent, match[0]
        if not match[1]:
            break
    return found


def _is_beside(parent: Path, root: Path, name: str, detect: Detect) -> bool:
    """Return whether a subfolder of `parent` that does not contain `root` is the source on its own."""
    for folder in sorted(path for path in parent.iterdir() if path.is_dir()):
        if root.is_relative_to(folder):
            continue
        try:
            match = detect(read_tree(folder, max_files=_MAX_FILES))
        except SourceError:
            continue
        if match and match[0] == name:
            return True
    return False
