"""The data card gives the numbers of release.json and the terms of use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from affectdata.release.card import data_card
from affectdata.release.release import open_release
from affectdata.release.terms import combine_terms
from tests.made import publish


@pytest.fixture(scope="module")
def folder(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(small_gaped, tmp_path_factory.mktemp("card")).path


def test_the_card_holds_the_numbers_and_the_terms(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    info = json.loads((folder / "release.json").read_text())
    assert "\n---\n\n# made\n" in text
    assert f"Release `{info['id'][:16]}`, {sum(info['rows'].values())} images (18 originals" in text
    for split, count in info["rows"].items():
        assert f"| {split} | {count} |" in text
    for row in info["balance"]["bins"]:
        assert f"| {row['bin']} | {row['n_before']} |" in text
    assert "CC BY-NC-SA 3.0" in text
    assert "must not be redistributed" in text
    assert "Dan-Glauser" in text


def test_the_card_follows_from_release_json_and_the_rows(folder: Path) -> None:
    release = open_release(folder)
    assert data_card(release.info, release.rows) == (folder / "README.md").read_text()
    assert "```bibtex\n@article{" in (folder / "README.md").read_text()


def test_a_redistributable_collection_is_described_as_such(folder: Path) -> None:
    info = json.loads((folder / "release.json").read_text())
    info["manifests"][0]["redistributable"] = info["terms"]["redistributable"] = True
    assert "may be redistributed" in data_card(info, open_release(folder).rows)
    assert "must not be redistributed" not in data_card(info, open_release(folder).rows)


def test_the_strictest_terms_hold_for_the_whole(folder: Path) -> None:
    info = json.loads((folder / "release.json").read_text())
    (gaped,) = info["terms"]["pictures"]
    assert info["terms"]["pictures"] == {gaped: sum(info["rows"].values())}
    text = data_card(info, open_release(folder).rows)
    assert "no commercial use; share alike: derived work must be redistributed under CC BY-NC-SA 3.0" in text
    assert "| terms | images |" not in text
    info["terms"] = combine_terms({"CC BY-ND 4.0": 3, "CC0 1.0": 2}, True)
    text = data_card(info, open_release(folder).rows)
    for line in ("may be redistributed; commercial use is allowed; modified images", "| CC BY-ND 4.0 | 3 |"):
        assert line in text
    assert "share alike" not in text


def test_an_empty_split_is_mentioned(small_gaped: Path, tmp_path: Path, folder: Path) -> None:
    """A share of one in a hundred of 18 images is none."""
    release = publish(small_gaped, tmp_path, split={"val": 0.01, "test": 0.3})
    assert release.info["rows"]["val"] == 0 < release.info["rows"]["test"]
    card = (release.path / "README.md").read_text()
    assert "| val | 0 |" in card
    assert "The recipe requests val, but too few groups were available: no image was assigned to it." in card
    assert "too few groups" not in (folder / "README.md").read_text()
