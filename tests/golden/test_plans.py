"""Decisions that must not change unnoticed: plans as numbers, never pixels.

For an intended change, regenerate the files and review the diff before committing:

    AFFECTDATA_GOLDEN=write pytest tests/golden && git diff tests/golden
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import load_manifest
from affectdata.plan.plan import Plan
from affectdata.plan.planner import plan_release
from affectdata.recipe.recipe import packaged_recipes, read_recipe
from affectdata.schema import PLAN
from affectdata.store.digest import table_digest
from tests.made import make_manifest, make_recipe, make_rows

HERE = Path(__file__).parent


def numbers(plan: Plan) -> dict[str, Any]:
    """What a plan decides, without ids: those of generated images follow the versions that drew them."""
    splits = (
        plan.table.cast(PLAN).group_by("split").aggregate([([], "count_all")]).sort_by("split").to_pylist()
    )
    return {
        "splits": {row["split"]: row["count_all"] for row in splits},
        "bins": [
            f"{b.bin}: {b.n_before} -> {b.n_after} of {b.target}, short {b.shortfall}" for b in plan.bins
        ],
        "cells": [f"{c.cell}: {c.n_before} -> {c.n_after}, n_eff {c.n_eff:g}" for c in plan.cells],
        "imbalance_ratio": plan.summary()["imbalance_ratio"],
    }


def compare(name: str, found: dict[str, Any]) -> None:
    """Compare with the golden file, or write it (see the top of this file)."""
    path = HERE / name
    if os.environ.get("AFFECTDATA_GOLDEN") == "write":
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("split", ["as_written", "none"])
def test_valence_bins_on_the_generated_gaped(sample_gaped: Path, tmp_path: Path, split: str) -> None:
    """Regenerate with AFFECTDATA_GOLDEN=write pytest tests/golden"""
    recipe = read_recipe(packaged_recipes() / "valence_bins.yaml")
    if split == "none":
        recipe = recipe.model_copy(update={"split": "none"})
    manifest = load_manifest(ingest(sample_gaped, out=tmp_path).manifest.path)
    compare(f"valence_bins_{split}.json", numbers(plan_release([manifest], [], recipe)[1]))


def test_a_plan_to_the_last_seed() -> None:
    """Made-up rows have fixed ids: which image goes where, is copied and how it is seeded are all in here.

    Regenerate with AFFECTDATA_GOLDEN=write pytest tests/golden
    """
    rows = [
        {"key": at, "valence": (at * 37 % 97) + 0.25, "subtype": "APN"[at % 3], "group": at - at % 5 // 4}
        for at in range(60)
    ]
    recipe = make_recipe(
        seed=7, bins={"width": 20}, split={"val": 0.2, "test": 0.2}, balance={"max_copies": 4}
    )
    _, plan = plan_release([make_manifest(make_rows(rows))], [], recipe)
    table = plan.table
    listed = [
        f"{row['sample_id']} {row['split']} {row['cell']} {row['pipeline'] or '-'} {row['seed']}"
        for row in table.to_pylist()
    ]
    compare("plan_of_made_rows.json", {"digest": table_digest(table), **numbers(plan), "rows": listed})
