"""`affectdata diff`: what it prints, its document, and exit codes: 0 the same, 1 anything differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.made import forge, publish

Cli = Callable[..., Any]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def made(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release. Not to be written to."""
    return publish(small_gaped, tmp_path_factory.mktemp("made")).path


@pytest.fixture
def other(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(made, tmp_path / "other"))


def test_the_same_release_is_exit_0(cli: Cli, made: Path, other: Path) -> None:
    ran = cli("diff", made, other)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == "version step: none"
    document = cli("diff", made, other, "--json").document
    assert document["schema"] == "affectdata/diff/1"
    assert document["step"] == "none"
    assert document["added"] == document["removed"] == document["relabelled"] == []
    assert document["cells"] == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "what", "step"),
    [
        ({"license": "CC BY 4.0"}, "described", "patch"),
        ({"valence": 3.0}, "relabelled", "major"),
        ({"file_sha256": "0" * 64}, "redrawn", "major"),
    ],
)
def test_any_difference_is_exit_1(
    cli: Cli, made: Path, other: Path, change: dict[str, Any], what: str, step: str
) -> None:
    def change_all(rows: Rows) -> None:
        for row in rows:
            row.update(change)

    n = len(forge(other, change_all).table)
    ran = cli("diff", made, other)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.splitlines()[-1] == f"version step: {step}"
    line = next(line for line in ran.out.splitlines() if line.startswith(what))
    assert str(n) in line
    assert line.endswith(" …")
    assert line.count(",") == 2  # three are shown
    document = cli("diff", made, other, "--json").document
    assert len(document[what]) == n
    assert document["step"] == step


def test_cells_that_shrank_or_grew_are_a_table(cli: Cli, made: Path, other: Path) -> None:
    cell = []

    def drop_copies(rows: Rows) -> None:
        cell.append(next(row["cell"] for row in rows if row["copy"]))
        rows[:] = [row for row in rows if not (row["copy"] and row["cell"] == cell[0])]

    forge(other, drop_copies)
    ran = cli("diff", made, other)
    assert ran.code == 1
    assert "cell of train" in ran.out
    assert cell[0] in ran.out
    back = cli("diff", other, made, "--json")
    assert back.code == 1
    assert back.document["step"] == "minor"
    (before, after) = back.document["cells"][cell[0]]
    assert before < after


def test_what_is_no_release_is_bad_input(cli: Cli, made: Path, other: Path) -> None:
    for pair in ((made, other.parent), (other.parent / "nowhere", made)):
        ran = cli("diff", *pair)
        assert ran.code == 3
        assert "is not a finished release" in ran.err
    (other / "manifest.parquet").unlink()
    assert cli("diff", made, other).code == 4
    assert cli("diff", made).code == 2
