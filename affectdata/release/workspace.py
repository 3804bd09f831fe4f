"""What is unfinished, left over, foreign, orphaned or broken in a working folder, and how to mend it.

In: the folder with `manifests/`, `releases/` and `checks/`. Out: findings; nothing is changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from affectdata.errors import AffectdataError, IntegrityError
from affectdata.manifest.ledger import KIND as LEDGER
from affectdata.manifest.manifest import find_manifests, load_manifest
from affectdata.manifest.roots import read_local
from affectdata.release.release import INFO_FILE, open_release
from affectdata.release.verify import check_release
from affectdata.store.atomic import is_unlocked, read_json
from affectdata.store.files import hash_file
from affectdata.store.parquet import distinct, read_table
from affectdata.store.sealed import read_kept, read_sealed

_BESIDE = {"rejects": "rejects", "edges": "edges", "ledger": LEDGER}
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8}\.tmp|partial)")
_HIDDEN = re.compile(r"\.(local\.json|(?P<name>.+)\.(memo|ending\.json))")
_CACHES = {".features", ".images", ".runs"}
_OF_GIT = {".gitignore", ".gitkeep"}
_OTHERS = (
    "exports",
    "selections",
    "suggestions",
    "recipes",
)  # only their leftovers
_RESULTS = {"train-check.json", "predictions.parquet", "report.html", "report-private.html", "maps"}
_RESULTS |= {"finetune", "studies", ".splits", ".runs"}


@dataclass(frozen=True)
class Problem:
    """One finding: `kind` (unfinished, in use, leftover, foreign, orphaned, broken), and the way out."""

    kind: str
    path: Path
    text: str
    fix: str


def find_problems(folder: Path) -> list[Problem]:
    """Examine a working folder; the files of its releases are hashed."""
    manifests, releases, checks = (folder / name for name in ("manifests", "releases", "checks"))
    return [
        *(_foreign(each) for each in (manifests, releases, checks) if not _is_folder_or_missing(each)),
        *_manifests(manifests),
        *_releases(releases),
        *_checks(checks, releases),
        *_leftovers([folder, *(folder / name for name in _OTHERS)]),
    ]


def _is_folder_or_missing(path: Path) -> bool:
    return path.is_dir() or not os.path.lexists(path)


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name not in _OF_GIT) if folder.is_dir() else []


def _leftovers(folders: list[Path]) -> Iterator[Problem]:
    """Examine folders for temporary files only."""
    for path in (path for folder in folders for path in _entries(folder)):
        if _TEMPORARY.fullmatch(path.name):
            yield _temporary(path, _remove(path))


def _remove(path: Path) -> str:
    return (
        f"rm -r {quote(str(path))}" if path.is_dir() and not path.is_symlink() else f"rm {quote(str(path))}"
    )


def _foreign(path: Path) -> Problem:
    fix = f"move it elsewhere: mv {quote(str(path))} .."
    return Problem("foreign", path, "affectdata wrote no such file", fix)


def _temporary(path: Path, fix: str) -> Problem:
    """Return the finding about a file that exists only while a run writes it."""
    if is_unlocked(path):
        return Problem("leftover", path, "a run that was killed left it", fix)
    return Problem("in use", path, "a run is writing it now", "wait until it ends")


def _manifests(folder: Path) -> Iterator[Problem]:
    names = {path.stem for path in find_manifests(folder)}
    roots: dict[str, str] = {}
    try:
        roots = read_local(folder)
    except (AffectdataError, LookupError, TypeError, ValueError):
        path = folder / ".local.json"
        yield Problem("broken", path, "it cannot be read", f"{_remove(path)}; then ingest the sources again")
    for path in _entries(folder):
        name = path.name.split(".")[0]
        again = (
            f"affectdata ingest {quote(roots[name])} (with the options of that run)"
            if name in roots
            else f"run the `ingest` or `concat` that wrote {name} again"
        )
        hidden = _HIDDEN.fullmatch(path.name)
        if hidden and (hidden["name"] is None or hidden["name"] in names):
            continue
        if hidden:
            text = f"an `ingest` of {hidden['name']} did not finish, or its manifest was removed"
            yield Problem("unfinished", path, text, f"run it again, or {_remove(path)}")
        elif _TEMPORARY.fullmatch(path.name):
            yield _temporary(path, _remove(path))
        elif path.suffix != ".parquet" or not path.is_file():
            if path.name.removesuffix(".groups.csv") not in names or not path.is_file():
                yield _foreign(path)
        else:
            yield from _table(path, names, again)
    for name, root in roots.items():
        if name in names and not Path(root).is_dir():
            fix = f"move them back, or ingest them where they are, or use --root {name}=PATH"
            yield Problem(
                "orphaned", folder / f"{name}.parquet", f"its images are not in {root} any more", fix
            )


def _table(path: Path, names: set[str], again: str) -> Iterator[Problem]:
    """Examine a manifest or a table beside one."""
    name, _, beside = path.stem.partition(".")
    if beside and beside not in _BESIDE:
        yield _foreign(path)
        return
    if beside and name not in names:
        yield Problem(
            "orphaned", path, f"there is no manifest {name}.parquet", f"{again}, or {_remove(path)}"
        )
    try:
        if beside:
            read_table(path, _BESIDE[beside])
        elif distinct(load_manifest(path).rows, "split") and not path.with_suffix(".ledger.parquet").exists():
            text = "it has splits but no ledger, which also remembers the splits of missing images"
            fix = f"restore {path.stem}.ledger.parquet from a copy, or write a new one: {again}"
            yield Problem("broken", path, text, fix)
    except AffectdataError as error:
        if beside == "ledger":
            again = "restore it from a copy: it alone remembers the splits of images that are missing"
        yield Problem("broken", path, error.what, again)


def _releases(folder: Path) -> Iterator[Problem]:
    for path in _entries(folder):
        name = path.name.removeprefix(".").rpartition(".")[0]
        recipe = name.rpartition("-")[0]
        if path.name.startswith(".") and path.suffix in (".partial", ".journal"):
            yield from _unfinished_release(
                path, folder / name, f"affectdata balance --recipe {quote(recipe)}"
            )
        elif _TEMPORARY.fullmatch(path.name):
            yield _temporary(path, _remove(path))
        elif path.is_symlink() and not path.exists():
            yield Problem("broken", path, "the link leads nowhere", _remove(path))
        elif path.is_symlink() and path.resolve().parent == folder.resolve():
            continue  # made by `balance --link`; what it leads to is examined itself
        elif not (path / INFO_FILE).is_file():
            text = "it is not a release: it has no release.json"
            yield replace(_foreign(path), text=text)
        else:
            yield from _broken_release(path)


def _unfinished_release(path: Path, target: Path, command: str) -> Iterator[Problem]:
    if path.suffix == ".partial" and not is_unlocked(path):
        yield Problem("in use", path, "a run is writing it now", "wait until it ends")
    elif target.exists():
        yield Problem("leftover", path, f"{target.name} is finished", _remove(path))
    elif path.suffix == ".partial" or not path.with_suffix(".partial").exists():
        fix = f"{command} (with the options of that run), or {_remove(path)}"
        yield Problem("unfinished", path, "a run that was killed left it", fix)


def _broken_release(path: Path) -> Iterator[Problem]:
    try:
        found = check_release(open_release(path))
    except AffectdataError as error:
        yield Problem("broken", path, error.what, f"{_remove(path)}; then `affectdata balance` again")
        return
    if found:
        more = f" and {len(found) - 1} more findings" if len(found) > 1 else ""
        listing = f"affectdata verify {quote(str(path))}"
        fix = (
            f"{listing} lists them; restore the files, or {_remove(path)} and run `affectdata balance` again"
        )
        yield Problem("broken", path, f"{found[0].text}{more}", fix)


def _checks(folder: Path, releases: Path) -> Iterator[Problem]:
    for path in _entries(folder):
        if path.name in _CACHES or path.name.endswith((".report.html", ".report-private.html")):
            continue
        if _TEMPORARY.fullmatch(path.name):
            yield _temporary(path, _remove(path))
        elif not path.is_dir() or not _RESULTS & {entry.name for entry in path.iterdir()}:
            yield _foreign(path)
        elif not (releases / path.name / INFO_FILE).is_file():
            yield Problem("orphaned", path, "its release does not exist", _remove(path))
        else:
            yield from _check(path, releases / path.name)


def _check(path: Path, release: Path) -> Iterator[Problem]:
    """Examine the folder of the checks and studies of a release."""
    again = f"affectdata train-check {quote(str(release))}"
    for entry in sorted(path.rglob(".*.tmp")):
        yield _temporary(entry, _remove(entry))
    for folder, command in ((path, again), (path / "finetune", f"{again} --mode finetune")):
        if (folder / ".splits").is_dir() or (
            (folder / "predictions.parquet").exists() and not (folder / "train-check.json").exists()
        ):
            yield Problem("unfinished", folder, "a check did not finish", command)
        elif (folder / "train-check.json").exists():
            yield from _broken(folder, partial(_read_check, folder, release), command)
        yield from _broken_runs(folder / ".runs", command)
    for folder in _entries(path / "studies"):
        command = f"affectdata study {quote(folder.name)} {quote(str(release))}"
        if not (folder / "runs").is_dir():
            yield _foreign(folder)
        elif not (folder / "study.json").exists():
            yield Problem("unfinished", folder, "a study did not finish", command)
        else:
            yield from _broken(folder, partial(_read_study, folder), command)
        yield from _broken_runs(folder / "runs", command)


def _broken(path: Path, read: Callable[[], Any], again: str) -> Iterator[Problem]:
    try:
        read()
    except AffectdataError as error:
        yield Problem("broken", path, error.what, again)
    except (OSError, LookupError, TypeError, AttributeError):
        yield Problem("broken", path, "its results cannot be read", again)


def _broken_runs(folder: Path, again: str) -> Iterator[Problem]:
    for path in sorted(folder.glob("*.json")):
        yield from _broken(path, partial(read_kept, path, ""), f"{_remove(path)}; {again}")


def _id_of(release: Path) -> Any:
    """Return the id of a release; None if it cannot be read, which is a finding about the release."""
    try:
        return read_json(release / INFO_FILE)["id"]
    except (AffectdataError, LookupError, TypeError):
        return None


def _read_check(folder: Path, release: Path) -> None:
    document = read_sealed(folder / "train-check.json", "")
    if _id_of(release) not in (None, document["release"]["id"]):
        raise IntegrityError("it is of another release of the same name")
    digest = read_table(folder / "predictions.parquet", "predictions")[1]["digest"]
    if document.get("predictions_digest") not in (None, digest):
        raise IntegrityError("predictions.parquet is of another check than train-check.json")


def _read_study(folder: Path) -> None:
    for name, digest in read_sealed(folder / "study.json", "")["tables"].items():
        if hash_file(folder / name) != digest:
            raise IntegrityError(f"{name} is not what was written")
