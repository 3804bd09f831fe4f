"""Addresses in a bucket. Imports no client."""

from __future__ import annotations

import re
from typing import TypeGuard

from affectdata.errors import IntegrityError, UsageError

SCHEMES = ("s3", "gs", "az")
_ADDRESS = re.compile(rf"(?:{'|'.join(SCHEMES)})://[A-Za-z0-9][A-Za-z0-9._-]*(?:/[^?#]*)?\Z")


def is_address(path: object) -> TypeGuard[str]:
    """Return whether this is an address in a bucket rather than a path."""
    return isinstance(path, str) and path.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def check_address(address: str) -> str:
    """Return an address without a slash at its end.

    Raises:
        UsageError: it is not an address, or it has more than a bucket and a path, such as credentials.
    """
    found = address.rstrip("/")
    if not _ADDRESS.match(address) or "//" in found.partition("://")[2]:
        raise UsageError(
            "the address of a bucket must be SCHEME://BUCKET/PATH, without credentials, a query or //",
            fix=f"schemes: {', '.join(SCHEMES)}; credentials belong to the configuration of the store",
        )
    return found


def check_name(name: str, where: str) -> str:
    """Return the file name for an object.

    Raises:
        IntegrityError: it would be outside its folder, or it is not a valid file name.
    """
    if "\0" in name or {"", ".", ".."} & {*name.split("/")}:
        raise IntegrityError(f"{name!r} cannot be the name of a file", where=where, fix="rename the object")
    return name
