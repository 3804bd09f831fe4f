"""Stimulus sets: optimal on small cases, without overlap or look-alikes; what cannot be met is explained."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import affectdata
from affectdata.cli._main import run
from affectdata.errors import RecipeError
from affectdata.manifest.manifest import Manifest, load_manifest, write_manifest
from affectdata.reporting.selection import selection_page
from affectdata.selection.equivalence import equivalence_p
from affectdata.selection.exchange import improve
from affectdata.selection.program import Moment, Problem, cost, is_feasible, solve
from affectdata.selection.request import SetRequest
from affectdata.selection.selection import Selection, select_images
from tests.made import make_manifest, make_rows

CELLS = {"valence": {"negative": [0, 40], "neutral": [40, 60], "positive": [60, 100]}}


def made(n: int = 240, seed: int = 0) -> Manifest:
    """Images whose arousal depends on valence, as in real collections."""
    rng = np.random.default_rng(seed)
    valence = rng.uniform(0, 100, n)
    arousal = np.clip(30 + abs(valence - 50) / 2 + rng.normal(0, 12, n), 0, 100)
    rows = [
        {"valence": v, "arousal": a, "valence_n": i % 90, "brightness": b, "subtype": "AHNP"[i % 4]}
        for i, (v, a, b) in enumerate(zip(valence, arousal, rng.uniform(0, 1, n), strict=True))
    ]
    return make_manifest(make_rows(rows))


def select(manifest: Manifest, **changes: Any) -> Selection:
    request = {"name": "made", "cells": CELLS, "n": 10, "match": ["arousal", "brightness"], **changes}
    return select_images(manifest, SetRequest.model_validate(request), Path("out"), "set.yaml")


def small_problem(seed: int, n_lists: int) -> Problem:
    rng = np.random.default_rng(seed)
    cell = np.repeat([0, 1], 6)
    z = rng.normal(0, 1, 12) + cell * 0.8
    moments = [Moment("z", z, [0, 1]), Moment("z", z**2 / 2, [0, 1])]
    group = np.arange(12)
    group[1] = 0  # two look-alikes in the first cell
    return Problem(cell, group, moments, 2, n_lists)


def every_selection(problem: Problem) -> list[np.ndarray]:
    """All selections of a problem, by brute force."""

    def fill(lists: np.ndarray, slots: list[tuple[int, int]]) -> list[np.ndarray]:
        if not slots:
            return [lists]
        (number, cell), *rest = slots
        free = np.flatnonzero((problem.cell == cell) & (lists < 0))
        found = []
        for images in combinations(free, problem.n):
            filled = lists.copy()
            filled[list(images)] = number
            groups = problem.group[filled >= 0]
            if len(set(groups)) == len(groups):
                found += fill(filled, rest)
        return found

    slots = list(product(range(problem.n_lists), np.unique(problem.cell).tolist()))
    return fill(np.full(len(problem.cell), -1), slots)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "n_lists"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)])
def test_the_program_finds_the_optimum_of_brute_force(seed: int, n_lists: int) -> None:
    problem = small_problem(seed, n_lists)
    lists, is_optimal = solve(problem)
    best = min(cost(problem, each) for each in every_selection(problem))
    assert is_optimal
    assert cost(problem, lists) == pytest.approx(best, rel=0.0101)


def test_a_bound_on_a_range_is_kept_where_it_can_be() -> None:
    z = np.array([0.0, 0.1, 3.0, 0.05, 0.1, -3.0])
    problem = Problem(np.array([0, 0, 0, 1, 1, 1]), np.arange(6), [Moment("z", z, [0, 1], 0.2)], 2, 1)
    assert solve(problem)[0].tolist() == [0, 0, -1, 0, 0, -1]
    assert is_feasible(problem)
    far = Problem(problem.cell, problem.group, [Moment("z", z + problem.cell * 9, [0, 1], 0.2)], 2, 1)
    assert not is_feasible(far)


def test_an_exchange_improves_and_keeps_the_counts() -> None:
    rng = np.random.default_rng(5)
    cell = np.repeat([0, 1, 2], 40)
    z = rng.normal(0, 1, 120) + cell * 0.3
    problem = Problem(cell, np.arange(120), [Moment("z", z, [0, 1, 2])], 8, 2)
    start = np.full(120, -1)
    for code in range(3):
        start[code * 40 : code * 40 + 16] = np.repeat([0, 1], 8)
    better = improve(problem, start)
    assert cost(problem, better) < cost(problem, start)
    counts = [int(np.sum((better == number) & (cell == code))) for number in (0, 1) for code in range(3)]
    assert counts == [8] * 6


@pytest.mark.slow
def test_lists_have_n_images_per_cell_without_overlap_and_are_matched() -> None:
    manifest = made()
    selection = select(manifest, lists=3, n=8)
    images = selection.images
    assert images["image_id"].is_unique
    assert (images.groupby(["list", "cell"]).size() == 8).all()
    assert len(images.groupby(["list", "cell"])) == 9
    assert set(selection.rows["image_id"].to_pylist()) == set(images["image_id"])
    summary = selection.summary.set_index("column")
    assert summary.loc["arousal", "before"] > 0.8
    assert summary["after"].loc[["arousal", "brightness"]].max() <= 0.2
    assert summary["between_lists"].max() <= 0.2  # valence within each cell too
    for name, part in images.groupby("cell"):
        low, high = CELLS["valence"][str(name)]
        assert part["valence"].between(low, high).all()


def test_the_seed_decides() -> None:
    manifest = made()
    first, same, other = (select(manifest, seed=seed).images for seed in (1, 1, 2))
    assert first.equals(same)
    assert set(first["image_id"]) != set(other["image_id"])


def test_of_look_alikes_and_of_a_group_one_image_is_selected() -> None:
    table = made(60).table
    same = table["phash"].to_pylist()
    same[1::2] = same[::2]  # every second image looks like the one before
    views = [each * 7 for each in same]
    for name, values in (("phash", same), ("phash_views", views)):
        table = table.set_column(table.column_names.index(name), table.schema.field(name), [values])
    twins = dict(zip(table["image_id"].to_pylist(), same, strict=True))
    selection = select(make_manifest(table), n=4, match=["brightness"], max_difference=1.0)
    looks = [twins[image] for image in selection.images["image_id"]]
    assert len(set(looks)) == len(looks) == 12
    with pytest.raises(RecipeError, match=r"the cell 'A' has 1 images"):
        select(made(60), cells={"subtype": ["A", "H"]}, match=[], n=2, groups=["subtype"])


def test_where_bounds_and_missing_values_are_counted() -> None:
    manifest = made(200)
    table = manifest.table
    arousal = table["arousal"].to_pylist()
    arousal[0] = None
    table = table.set_column(table.column_names.index("arousal"), table.schema.field("arousal"), [arousal])
    narrow = {"valence": {"negative": [0, 40], "positive": [60, 100]}}
    selection = select(make_manifest(table), where="valence_n >= 30", cells=narrow, n=5)
    assert selection.left_out["where"] == sum(n % 90 < 30 for n in range(200))
    assert selection.left_out["no cell"] > 0
    n_candidates = sum(selection.candidates.values())
    assert n_candidates + sum(selection.left_out.values()) == 200
    assert min(selection.rows["valence_n"].to_pylist()) >= 30


def test_too_few_images_name_the_cell_and_the_largest_n() -> None:
    with pytest.raises(RecipeError, match=r"the cell 'neutral' has \d+ images") as error:
        select(made(100), n=40)
    most = int(error.value.fix.split()[1])
    assert len(select(made(100), n=most, match=[]).images) == 3 * most


def test_unmatched_cells_name_the_one_that_binds_and_a_feasible_n() -> None:
    """The arousal of positive images overlaps with that of the others in a few images only."""
    rows = [{"valence": 10 + 40 * (i % 3), "arousal": i % 20 + 40.0 * (i % 3 == 2)} for i in range(150)]
    rows += [{"valence": 90, "arousal": float(i)} for i in range(6)]
    manifest = make_manifest(make_rows([{**row, "key": f"k{i}"} for i, row in enumerate(rows)]))
    with pytest.raises(RecipeError, match="the limiting cell is 'positive'") as error:
        select(manifest, n=20, match=["arousal"])
    n = int(error.value.fix.split()[1])
    assert 2 <= n < 20
    assert len(select(manifest, n=n, match=["arousal"]).images) == 3 * n


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": {"valence": {"a": [0, 50], "b": [40, 100]}}}, "a and b overlap"),
        ({"match": ["valence"]}, "valence cannot be matched between cells that it separates"),
        ({"cells": {"label": "all"}}, "labels: missing"),
        ({"cells": {"subtype": []}}, "at least one level"),
    ],
)
def test_a_wrong_request_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select(made(30), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"match": ["no_such"]}, "no column 'no_such'"),
        ({"match": ["subtype"]}, "subtype has no numbers"),
        ({"match": ["sharpness"]}, "sharpness is null in all rows"),
        ({"cells": {"subtype": ["A", "Z"]}}, "no row has the subtype Z"),
        ({"where": "valence > "}, "not a valid condition"),
        ({"where": "valence > 200"}, "no row is in a cell"),
    ],
)
def test_a_request_that_does_not_fit_the_manifest_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        select(made(30), **changes)


def test_the_equivalence_test_is_two_one_sided_tests() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 40), rng.normal(0.1, 1.5, 30)
    se = np.sqrt(a.var(ddof=1) / 40 + b.var(ddof=1) / 30)
    df = se**4 / ((a.var(ddof=1) / 40) ** 2 / 39 + (b.var(ddof=1) / 30) ** 2 / 29)
    d = a.mean() - b.mean()
    expected = max(stats.t.sf((d + 0.8) / se, df), stats.t.cdf((d - 0.8) / se, df))
    assert equivalence_p(a, b, 0.8) == pytest.approx(expected)
    assert equivalence_p(np.ones(3), np.ones(3), 0.5) == 0


def test_a_set_without_matched_columns_has_a_page(tmp_path: Path) -> None:
    source = made()
    write_manifest(source.table, {**source.metadata, "source": "gaped"}, tmp_path / "m.parquet")
    recipe = tmp_path / "set.yaml"
    recipe.write_text("name: made\ncells: {valence: {low: [0, 40], high: [60, 100]}}\nn: 12\n")
    selection = affectdata.select(tmp_path / "m.parquet", recipe, out=tmp_path / "selections")
    assert "How well it is matched" in selection_page(selection)


def test_the_command_writes_lists_a_manifest_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AFFECTDATA_NO_REPORT", raising=False)
    source = made()
    write_manifest(source.table, {**source.metadata, "source": "gaped"}, tmp_path / "m.parquet")
    Path("set.yaml").write_text(
        "name: made\ncells: {valence: {negative: [0, 40], positive: [60, 100]}}\nn: 12\nmatch: [arousal]\n"
    )
    assert run(["select", "m.parquet", "--recipe", "set.yaml"]) == 0
    assert "arousal" in capsys.readouterr().out
    (folder,) = Path("selections").iterdir()
    assert len((folder / "list.csv").read_text().splitlines()) == 25
    assert len(load_manifest(folder / "made.parquet")) == 24
    page = (folder / "report.html").read_text()
    assert "Standardised differences" in page
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".html"}
    affectdata.select("m.parquet", "set.yaml")
    assert before == {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".html"}
