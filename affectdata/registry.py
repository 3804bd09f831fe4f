"""Plugins: the modules of a group's folder, found by file name, and entry points of other packages.

A group may also have plugins that are data: every YAML file in its folder `maps`, which
`column_map.packaged` turns into an object that offers what a module does.

A group is a folder of the package (`sources`, `exports`, `cli`); every module in it whose name
does not start with `_` is one plugin. Nothing is imported before it is needed. Another package adds a
plugin with an entry point in the group `affectdata.<group>` that names a module.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from affectdata.errors import AffectdataError, InputError, PluginWarning, SourceError, UsageError

_PACKAGE = Path(__file__).parent
_INTERFACE = {  # what a module of another package must have
    "sources": ("INFO", "detect", "read", "write_sample"),
    "exports": ("HAS_IMAGES", "HAS_CLASSES", "export"),
    "engines": ("map_ordered", "default_workers"),
}


@cache
def _outside(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"affectdata.{group}")}


@cache
def _built_in(group: str) -> set[str]:
    found = pkgutil.iter_modules([str(_PACKAGE / group)])
    return {module.name for module in found if not module.name.startswith("_")}


@cache
def _maps(group: str) -> dict[str, Path]:
    folder = _PACKAGE / group / "maps"
    files = folder.iterdir() if folder.is_dir() else ()
    return {path.stem: path for path in files if path.suffix == ".yaml"}


def find_plugins(group: str) -> list[str]:
    """List the names of a group's plugins, sorted, without importing any."""
    return sorted(_built_in(group) | _maps(group).keys() | _outside(group).keys())


@dataclass(frozen=True)
class Outside:
    """A plugin of another package: its name, that package with its version, and why it cannot be imported."""

    name: str
    package: str
    error: str | None


def check_outside(group: str) -> list[Outside]:
    """Import the plugins that other packages add to a group, and say what came of it."""
    found = []
    for name, point in sorted(_outside(group).items()):
        try:
            load_plugin(group, name)
            error = None
        except Exception as cause:  # of code that is not ours
            error = cause.what if isinstance(cause, AffectdataError) else f"{type(cause).__name__}: {cause}"
        found.append(Outside(name, _package(point), error))
    return found


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def load_usable(group: str) -> dict[str, Any]:
    """Import all plugins of a group; broken ones of other packages are left out with a `PluginWarning`."""
    broken = {each.name: each.error for each in check_outside(group) if each.error}
    for name, error in broken.items():
        warn_skipped(group, name, error)
    return {name: load_plugin(group, name) for name in find_plugins(group) if name not in broken}


def warn_skipped(group: str, name: str, error: str) -> None:
    """Warn that a plugin of another package is not used, and why."""
    text = f"skipped a plugin of {_package(_outside(group)[name])}: {error}"
    warnings.warn(text, PluginWarning, stacklevel=2)


def has_outside(group: str) -> bool:
    """Say whether other packages add plugins to a group."""
    return bool(_outside(group))


def is_outside(group: str, name: str) -> bool:
    """Say whether a plugin is a module of another package."""
    return name in _outside(group).keys() - _built_in(group) - _maps(group).keys()


def load_plugin(group: str, name: str) -> Any:
    """Import one plugin; a built-in one wins over an entry point of the same name.

    Raises:
        SourceError: a source cannot be imported; the cause is what was raised. InputError: an export.
        UsageError: no plugin has that name; the message names the closest ones.
    """
    try:
        return _load(group, name)
    except (AffectdataError, MemoryError):
        raise
    except Exception as error:
        if group not in ("sources", "exports"):
            raise
        what = group.rstrip("s")
        raise _error(group)(
            f"the {what} {name} cannot be imported: {type(error).__name__}: {error}",
            where=_file(group, name),
            fix=f"correct the {what} module; -vv shows the traceback",
        ) from error


def _error(group: str) -> type[InputError]:
    return SourceError if group == "sources" else InputError


def _file(group: str, name: str) -> str:
    """Return where a plugin is defined: a file of this package, or an entry point."""
    if name in _built_in(group):
        return str(_PACKAGE / group / f"{name}.py")
    return str(_maps(group).get(name) or _outside(group)[name].value)


def _load(group: str, name: str) -> Any:
    if name in _built_in(group):
        return importlib.import_module(f"affectdata.{group}.{name}")
    if name in _maps(group):
        return importlib.import_module("affectdata.column_map.packaged").load_map(_maps(group)[name])
    outside = _outside(group)
    if name in outside:
        module = outside[name].load()
        if problem := _find_problem(group, name, module):
            where = f"group affectdata.{group}: {outside[name].value}"
            raise _error(group)(problem, where=where, fix="docs/plugins.md describes the interface")
        return module
    known = find_plugins(group)
    raise UsageError(
        f"no {group.rstrip('s')} is called {name!r}",
        fix=f"{suggest(name, known)}known: {', '.join(known)}",
    )


def _find_problem(group: str, name: str, module: Any) -> str | None:
    """Return what is wrong with the module of an entry point."""
    if not isinstance(module, ModuleType):
        return f"the entry point {name!r} is not a module"
    lacking = [each for each in _INTERFACE.get(group, ()) if not hasattr(module, each)]
    if lacking:
        return f"the {group.rstrip('s')} {name} lacks {', '.join(lacking)}"
    if group == "sources" and (called := getattr(module.INFO, "name", None)) != name:
        return f"the source {name} has the INFO.name {called!r}: the names must be equal"
    return None


def suggest(name: str, known: Sequence[str]) -> str:
    """Ask whether the closest of the known names was meant; nothing if none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? " if close else ""


def find_data(folder: str) -> Path:
    """Return a folder of data that comes with the package, by its name in a checkout, installed or not."""
    installed = _PACKAGE / "_data" / Path(folder).name
    return installed if installed.is_dir() else _PACKAGE.parent / folder
