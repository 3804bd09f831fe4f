"""`init` writes a recipe that fits whatever manifest it finds; `query` reads all of them; `--link` stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata import api
from affectdata.cli import _output
from affectdata.errors import InputError
from affectdata.manifest.manifest import write_manifest
from affectdata.recipe.project import draft_recipe
from affectdata.recipe.recipe import parse_recipe, read_recipe
from tests.made import make_manifest, make_rows, publish

Cli = Callable[..., Any]


def test_the_recipe_fits_the_manifest_and_plans(
    small_gaped: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "next: affectdata ingest ROOT" in cli("init", ".").out
    assert cli("ingest", small_gaped).code == 0
    ran = cli("init", ".", "--json")
    assert ran.document["recipes"] == ["recipes/gaped.yaml"]
    assert ran.document["kept"] == ["README.md", ".gitignore"]
    recipe = read_recipe(Path("recipes/gaped.yaml"))
    assert recipe.strata == ["subtype"] and recipe.target == "valence" and recipe.bins is not None
    assert {name for name, rule in recipe.subtypes.items() if rule.pipeline == "turn"} == {"Sn", "Sp"}
    assert cli("balance", "--recipe", "gaped", "--dry-run").code == 0
    Path("recipes/gaped.yaml").write_text("# mine\n")
    assert "kept recipes/gaped.yaml" in cli("init", ".").out
    assert Path("recipes/gaped.yaml").read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"valence": 10.0 * (n % 10)} for n in range(300)], ("valence", {"width": 10}, None)),
        ([{"valence": 50.0} for n in range(60)], ("valence", {"width": 25}, None)),
        (
            [{"arousal": 5.0 if n else None, "subtype": "no" if n else "a: b"} for n in range(9)],
            ("arousal", {"width": 25}, "arousal IS NOT NULL"),
        ),
        ([{"emotion": "joy" if n % 2 else "awe"} for n in range(9)], ("emotion", None, None)),
        (
            [{"emotion": "joy" if n < 2 else None} for n in range(9)],
            ("emotion", None, "emotion IS NOT NULL"),
        ),
        ([{"gender": "female" if n % 2 else "male"} for n in range(9)], ("gender", None, None)),
    ],
)
def test_the_target_is_what_most_images_have(rows: list[dict[str, Any]], expected: tuple[Any, ...]) -> None:
    import yaml

    document = yaml.safe_load(draft_recipe(make_manifest(make_rows(rows), "My photos-2")))
    parse_recipe(document)
    assert document["name"] == "my_photos_2"
    assert (document["target"], document.get("bins"), document.get("where")) == expected


@pytest.mark.parametrize("name", ["on", "2024", "null"])
def test_a_name_that_yaml_reads_as_no_word_stays_a_name(name: str) -> None:
    import yaml

    recipe = parse_recipe(yaml.safe_load(draft_recipe(make_manifest(make_rows([{"valence": 1.0}]), name))))
    assert recipe.name == name and recipe.sources == [name]


def test_a_manifest_without_labels_is_an_error() -> None:
    with pytest.raises(InputError, match="has neither ratings nor classes"):
        draft_recipe(make_manifest(make_rows([{}, {}])))


def test_a_query_sees_every_manifest_and_nothing_else(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("query", "SELECT 1").code == 2
    for name, valence in (("one", 10.0), ("two", float(np.float64(90)))):
        table = make_rows([{"key": name, "valence": valence}, {"key": f"{name}2"}])
        write_manifest(table, make_manifest(table).metadata, Path("manifests", f"{name}.parquet"))
    ran = cli("query", "SELECT count(*) AS n, avg(valence) AS mean FROM manifest", "--json")
    assert ran.document["rows"] == [{"n": 4, "mean": 50.0}]
    assert api.query("SELECT valence FROM two WHERE valence IS NOT NULL").to_pylist() == [{"valence": 90.0}]
    assert "0 rows" in cli("query", "SELECT * FROM one WHERE false").out
    assert cli("query", "SELECT * FROM read_csv('/etc/passwd')").code == 2
    assert cli("query", "DROP TABLE one").code == 2


def test_a_link_stays_and_is_no_release_of_its_own(small_gaped: Path, tmp_path: Path) -> None:
    from affectdata.errors import UsageError
    from affectdata.release.link import check_link, link_release
    from affectdata.release.release import newest_release, open_release

    first = publish(small_gaped, tmp_path).path
    link = first.parent / "current"
    link_release(first, link)
    assert open_release(link).id == open_release(first).id
    assert newest_release(first.parent) == first
    second = publish(small_gaped, tmp_path, seed=5).path
    link_release(second, link)
    assert link.resolve() == second.resolve() and link.is_symlink()
    with pytest.raises(UsageError, match="exists and is not a link"):
        check_link(first)


@pytest.mark.parametrize(("no_color", "expected"), [("", "\x1b[31m"), ("1", "fail")])
def test_failures_are_red_on_a_terminal_unless_no_color_is_set(
    no_color: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    assert _output.alarm("fail") == "fail"  # no terminal
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert _output.alarm("fail").startswith(expected)
