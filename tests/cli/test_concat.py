"""`affectdata concat`: what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from affectdata.manifest.manifest import load_manifest


@pytest.fixture
def two(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the manifests of two trees that share three images."""
    monkeypatch.chdir(tmp_path)
    assert cli("sample", "emotion6", "emotion6").code == 0
    for number, path in enumerate(sorted(Path("emotion6").rglob("*.jpg"))[:3]):
        Path("mine").mkdir(exist_ok=True)
        (Path("mine") / f"{number}.jpg").write_bytes(path.read_bytes())
    (Path("mine") / "n.csv").write_text("pic,v\n0,1\n1,9\n2,9\n")
    column_map = "{name: mine, table: n.csv, key: pic, scales: {valence: [1, 9]}, columns: {valence: v}}"
    (Path("mine") / "columns.yaml").write_text(column_map)
    for root in ("emotion6", "mine"):
        assert cli("ingest", root).code == 0
    return tmp_path / "manifests"


def test_conflicts_are_listed_and_resolved(cli: Any, two: Path) -> None:
    names = [str(two / "emotion6.parquet"), str(two / "mine.parquet")]
    refused = cli("concat", *names)
    assert refused.code == 3 and "of labels of the same images" in refused.err
    ran = cli("concat", *names, "--name", "all", "--on-conflict", "prefer:mine")
    assert ran.code == 0
    for said in ("19 rows: 16 images, 3 merged", "resolved by prefer:mine", "in emotion6", "in mine"):
        assert said in ran.out
    document = cli("concat", *names, "--name", "all", "--on-conflict", "mean", "--json").document
    assert (document["schema"], document["pictures"], document["policy"]) == (
        "affectdata/concat/2",
        16,
        "mean",
    )
    first = document["conflicts"][0]
    assert first["values"].keys() == {"emotion6", "mine"}
    assert first["kept"] == pytest.approx(sum(first["values"].values()) / 2, abs=1e-5)
    assert len(load_manifest(two / "all.parquet")) == 16


def test_the_result_opens_its_images(cli: Any, two: Path) -> None:
    cli("concat", two / "emotion6.parquet", two / "mine.parquet", "--out", "other", "--on-conflict", "first")
    manifest = load_manifest(Path("other") / "emotion6_mine.parquet")
    images = manifest.images()
    for row in manifest.table.to_pylist():
        assert images.read(row["source"], row["path"], row["image_id"])


def test_a_release_of_several_sources_is_level_over_them(cli: Any, two: Path) -> None:
    cli("sample", "artphoto", "artphoto")
    cli("ingest", "artphoto")
    names = [two / "emotion6.parquet", two / "artphoto.parquet"]
    recipe = "{name: r, target: emotion, where: emotion IS NOT NULL, mode: virtual, split: {test: 0.2}"
    Path("r.yaml").write_text(recipe + ", balance: {max_copies: 1}}")
    of_one = cli("balance", "--recipe", "r.yaml", "--manifest", names[0], "--json").document
    assert {cell["stratum"] for cell in of_one["balance"]["cells"]} == {"all"}
    of_two = cli("balance", "--recipe", "r.yaml", "--manifest", names[0], "--manifest", names[1], "--json")
    assert {cell["stratum"] for cell in of_two.document["balance"]["cells"]} == {"emotion6", "artphoto"}
    cli("concat", *names, "--name", "all")
    split = cli("split", two / "all.parquet", "--recipe", "r.yaml", "--json").document
    assert split["distance"] == of_two.document["splits"]["distance"]


def test_what_lies_beside_manifests_is_passed_over(cli: Any, two: Path) -> None:
    """As `concat manifests/*.parquet` names it."""
    ran = cli("concat", *sorted(two.glob("*.parquet")), "--on-conflict", "first")
    assert ran.code == 0 and "19 rows: 16 images" in ran.out
    assert (
        "skipped, because they are not manifests: emotion6.edges.parquet, emotion6.rejects.parquet, mine."
        in ran.err
    )
    ran = cli("concat", *sorted(two.glob("*.*.parquet")))
    assert ran.code == 2 and "no manifest given" in ran.err


def test_usage(cli: Any, two: Path) -> None:
    assert cli("concat").code == 2
    assert cli("concat", two / "mine.parquet").code == 2
    assert cli("concat", two / "mine.parquet", two / "gone.parquet").code == 3
    ran = cli("concat", two / "mine.parquet", two / "emotion6.parquet", "--on-conflict", "prefer:fi")
    assert ran.code == 2 and "prefer:mine, prefer:emotion6" in ran.err
