"""Links that are not followed: why, and what to do about a tree that consists of them."""

from __future__ import annotations

import os
from pathlib import Path

from affectdata.errors import SourceError
from affectdata.reading.tree import Tree, is_image_name
from affectdata.store.files import kind_of

_OUTSIDE = "a link that leads out of the folder; not followed"
_MISSING = "a link without a file behind it"
_MIN_DEPTH = 3  # of a folder that is worth naming: not /, not /home


def explain_link(root: Path, path: str) -> str:
    """Return why an entry of `Tree.links` is not listed as a file."""
    kind = kind_of(root / path)
    if kind != "a link":
        return f"{kind or 'a missing file'}, not a file or a folder"
    try:
        target = Path(os.path.realpath(root / path, strict=True))
    except OSError:
        return _MISSING
    if not target.is_relative_to(root.resolve()):
        return _OUTSIDE
    return "a link to a folder around it, or inside a linked folder; not followed"


def check_links(tree: Tree) -> None:
    """Refuse a tree with at least as many unusable links as images.

    Raises:
        SourceError: with the first link, and how to get at the files.
    """
    why = {path: explain_link(tree.root, path) for path in tree.links}
    for problem, what in ((_OUTSIDE, "lead{s} out of it"), (_MISSING, "ha{ve} no file behind {it}")):
        bad = [path for path in tree.links if why[path] == problem and _may_be_images(path)]
        if not bad or len(bad) < len(tree.images()):
            continue
        one = len(bad) == 1
        reason = what.format(s="s" * one, ve="s" if one else "ve", it="it" if one else "them")
        raise SourceError(
            f"{len(bad)} link{'' if one else 's'} in {tree.root} {reason}, and only files inside it are read",
            where=f"{tree.root / bad[0]} -> {Path(tree.root / bad[0]).readlink()}",
            fix=_way_out(tree.root, bad)
            if problem == _OUTSIDE
            else "fetch the files first (such as `git "
            "annex get .`, `dvc pull` or `git lfs pull`), or download the collection again",
        )


def _may_be_images(path: str) -> bool:
    """Return whether a link is called like an image or a folder."""
    return is_image_name(path) or not Path(path).suffix


def _way_out(root: Path, links: list[str]) -> str:
    copy = f"copy the files in place of the links: cp -rL '{root}' COPY; then ingest COPY"
    targets = [os.path.realpath(root / path) for path in links]
    whole = Path(os.path.commonpath([root.resolve(), *targets]))
    if len(whole.parts) <= _MIN_DEPTH:
        return copy
    return f"ingest a folder that contains the files too: affectdata ingest '{whole}'; or {copy}"
