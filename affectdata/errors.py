"""The exceptions of the package, one tree; each leaf knows its exit code.

AffectdataError              what is wrong, where, what to do
├── UsageError           2   the command line contradicts itself
├── InputError           3   something handed in cannot be used
│   ├── SourceError          a source tree, or a table in it
│   ├── ManifestError        a manifest, plan or release file
│   ├── RecipeError          a recipe or a column map
│   ├── ImagesNotFound     the images of a manifest are not where they should be
│   └── DecodeError          one image; inside `ingest` it becomes a reject
├── IntegrityError       4   a hash does not match, or a split leaks
└── MissingError         5   an extra, weights or a device is not there
"""

from __future__ import annotations

import copyreg
from typing import Any


class AffectdataError(Exception):
    """Say what is wrong (with the value), where (file, row, key) and what to do about it."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields, not a call of `__init__`: a worker in another process may raise any of these."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


class PluginWarning(UserWarning):
    """A plugin of another package is broken and not used."""


class UsageError(AffectdataError):
    """The options given do not go together."""

    exit_code = 2


class InputError(AffectdataError):
    """Something handed in cannot be used as it is."""

    exit_code = 3


class SourceError(InputError):
    """A source tree is not what its layout says, or no source recognises it."""


class ManifestError(InputError):
    """A manifest, plan or release file cannot be read as one."""


class RecipeError(InputError):
    """A recipe or a column map asks for what cannot be done."""


class ImagesNotFound(InputError):
    """The images that a manifest describes are not where they were looked for."""


class DecodeError(InputError):
    """One image cannot be decoded; `reason` is a value of `records.Reason`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class IntegrityError(AffectdataError):
    """A file is not the one that was recorded, or a release breaks a promise it makes."""

    exit_code = 4


class MissingError(AffectdataError):
    """An optional dependency, model weights or a device is not there."""

    exit_code = 5
