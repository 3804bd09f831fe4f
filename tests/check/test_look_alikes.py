"""leak.same_image and `affectdata groups` on a generated tree with planted crops of training images."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata import api
from affectdata.check.blocks import CheckDocument, RuleOutcome
from affectdata.check.check import run_check
from affectdata.check.prepare import prepare_check
from affectdata.images.decode import encode
from affectdata.manifest.manifest import load_manifest
from affectdata.release.release import Release, open_release
from affectdata.store.atomic import write_json
from affectdata.train import look_alikes
from affectdata.train.backbones import Backbone
from tests.fixtures import RECIPE
from tests.images.test_same_image import _scene as scene

N, N_CROPS = 40, 6


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes with ratings; the last images are mirrored crops of the first."""
    root = tmp_path_factory.mktemp("scenes")
    lines = ["file,valence"]
    for number in range(N + N_CROPS):
        image = scene(number % N, 200, 150)
        if number >= N:
            image = np.ascontiguousarray(image[15:135, 20:180][:, ::-1])
        name = f"{number:03d}.png"
        (root / name).write_bytes(encode(image, "png", 0))
        lines.append(f"{name},{10 + 80 * (number % N) / N:.1f}")
    (root / "ratings.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return root


@pytest.fixture(autouse=True)
def _all_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network with random weights does not find crops among the five nearest."""
    monkeypatch.setattr(look_alikes, "N_NEAREST", N + N_CROPS)


@pytest.fixture(scope="module")
def manifest(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("manifests")
    column_map = out / "map.yaml"
    content = {"name": "scenes", "table": "ratings.csv", "key": "file"}
    content |= {"scales": {"valence": [0, 100]}, "columns": {"valence": "valence"}}
    write_json(column_map, content)
    return api.ingest(tree, column_map=column_map, out=out, workers=1).manifest.path


def _release(manifest: Path, folder: Path, groups: list[str]) -> Release:
    document = {**RECIPE, "strata": [], "split": {"test": 0.2, "groups": groups}}
    document.pop("where")
    write_json(folder / "recipe.yaml", document)
    made = api.balance(folder / "recipe.yaml", manifest=[manifest], out=folder / "releases", workers=1)
    return open_release(made.release.path, load_manifest(manifest).images().roots)


def _check(release: Release, backbone: Backbone, folder: Path, *, with_images: bool = True) -> CheckDocument:
    images = release.images() if with_images else None
    return run_check(prepare_check(release, backbone, images, folder / "checks")).document


def _rule(document: CheckDocument) -> RuleOutcome:
    (rule,) = [each for each in document.verdict.gate if each.rule == "leak.same_image"]
    return rule


@pytest.mark.slow
def test_planted_crops_are_named_and_then_grouped(
    manifest: Path, backbone: Backbone, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    document = _check(_release(manifest, tmp_path, []), backbone, tmp_path)
    found, rule = document.leak.same_images, _rule(document)
    assert found is not None and found.n_same >= N_CROPS - 2  # of all folds, two pairs may be in one
    assert all(pair.mirrored for pair in found.pairs)
    for pair in found.pairs:
        assert abs(int(pair.scored[-7:-4]) - int(pair.trained_on[-7:-4])) == N
    assert rule.outcome == "fail" and found.pairs[0].scored in rule.text and "affectdata groups" in rule.text
    # Released files alone, the held-out split.
    heldout = _check(_release(manifest, tmp_path, []), backbone, tmp_path, with_images=False)
    assert heldout.leak.same_images is not None

    table = tmp_path / "same.csv"
    ran = cli("groups", manifest, "--backbone", "small_cnn", "--weights", "none", "--out", table, "--json")
    assert ran.code == 0 and ran.document["groups"] == N_CROPS == len(ran.document["pairs"])
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * N_CROPS and len({row["group"] for row in rows}) == N_CROPS
    document = _check(_release(manifest, tmp_path, ["same.csv"]), backbone, tmp_path)
    assert _rule(document).outcome == "pass"
    assert document.leak.same_images is not None and document.leak.same_images.n_compared > 0
