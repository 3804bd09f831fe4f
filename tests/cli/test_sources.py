"""`affectdata sources` and `affectdata sample`: what is known, and something to try it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from affectdata.registry import find_plugins


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_the_list_has_every_source_with_terms_origin_and_layout(cli: Any) -> None:
    ran = cli("sources")
    assert ran.code == 0 and ran.err == ""
    document = cli("sources", "--json").document
    assert document["schema"] == "affectdata/sources/1"
    assert [row["name"] for row in document["sources"]] == find_plugins("sources")
    assert {"gaped", "naps", "ferplus"} <= set(find_plugins("sources"))
    lines = ran.out.splitlines()
    assert len(lines) == 4 * len(document["sources"])
    for at, row in enumerate(document["sources"]):
        assert lines[4 * at] == f"{row['name']}: {row['title']}"
        said = [line.strip().partition(" ") for line in lines[4 * at + 1 : 4 * at + 4]]
        expected = [("terms", row["license"]), ("from", row["url"] or "–"), ("layout", row["layout"])]
        assert [(word, text.strip()) for word, _, text in said] == expected
        assert row["license"] and row["layout"]


def test_the_data_sheet_of_a_packaged_map(cli: Any) -> None:
    out = cli("sources", "iaps").out
    for said in ("IAPS, the International", "six lines", "terms:    restricted", "evidence: unverified"):
        assert said in out
    assert cli("sources", "iaps", "--cite").out.startswith("@techreport{lang2008iaps")
    assert "layout:   *AllSubjects*.txt, images called <IAPS>\n" in cli("sources", "iaps").out


def test_the_data_sheet_of_one(cli: Any) -> None:
    out = cli("sources", "gaped").out
    for said in ("730 images", "layout:", "terms:    CC BY-NC-SA", "cite:     Dan-Glauser", "Sp.txt"):
        assert said in out
    document = cli("sources", "gaped", "--json").document
    assert (document["schema"], document["name"]) == ("affectdata/source/1", "gaped")


def test_the_citation_alone(cli: Any) -> None:
    ran = cli("sources", "gaped", "--cite")
    assert ran.out.startswith("@article{") and "10.3758/s13428-011-0064-1" in ran.out
    assert cli("sources", "gaped", "--cite", "--json").document["bibtex"] == ran.out.strip()
    assert cli("sources", "--cite").code == 2
    ran = cli("sources", "table", "--cite")
    assert ran.code == 2 and "as the column map states" in ran.err


@pytest.mark.parametrize("command", [["sources", "gapde"], ["sample", "gapde", "folder"]])
def test_an_unknown_source(cli: Any, command: list[str]) -> None:
    ran = cli(*command)
    assert ran.code == 2 and "did you mean 'gaped'?" in ran.err and not Path("folder").exists()


def test_a_sample_is_the_same_for_the_same_seed(cli: Any, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert cli("sample", "image_folder", tmp_path / name, "--seed", seed).code == 0
    first, second, other = (contents(tmp_path / name) for name in "abc")
    assert first == second and first.keys() and other != first


@pytest.mark.slow
def test_a_sample_says_that_it_is_generated(cli: Any, tmp_path: Path) -> None:
    ran = cli("sample", "gaped", tmp_path / "tree")
    assert ran.code == 0 and "not the real collection" in ran.out
    document = cli("sample", "gaped", tmp_path / "other", "--json").document
    assert document == {
        "schema": "affectdata/sample/1",
        "source": "gaped",
        "folder": str(tmp_path / "other"),
        "seed": 0,
    }
    assert contents(tmp_path / "tree") == contents(tmp_path / "other")


def test_a_sample_never_mixes_with_what_is_there(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "letter.txt"):
        ran = cli("sample", "gaped", place)
        assert ran.code == 2 and "exists and is not an empty folder" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    (tmp_path / "empty").mkdir()
    assert cli("sample", "gaped", tmp_path / "empty").code == 0
