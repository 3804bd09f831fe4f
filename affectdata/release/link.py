"""A symbolic link to a release: a name that stays when the release changes."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from affectdata.errors import InputError, UsageError


def check_link(link: Path) -> None:
    """Check that a link can be made here, before a release is rendered.

    Raises:
        UsageError: something other than a link has this name.
    """
    if link.exists() and not link.is_symlink():
        raise UsageError(f"{link} exists and is not a link", fix="choose another --link, or move it")


def link_release(release: Path, link: Path) -> None:
    """Make `link` point to a release, in place of an earlier link; nobody finds it missing meanwhile.

    Raises:
        InputError: the folder of the link cannot be written.
    """
    check_link(link)
    temporary = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary.symlink_to(os.path.relpath(release.resolve(), link.parent.resolve()))
        temporary.replace(link)
    except OSError as error:
        raise InputError(f"cannot write {link}: {error.strerror}", fix="choose another --link") from error
