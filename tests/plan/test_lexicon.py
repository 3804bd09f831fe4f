"""Coordinates of emotion words from a lexicon: values, their record in the release, and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from affectdata.check.image_pool import find_originals
from affectdata.errors import RecipeError
from affectdata.hashing import file_hash
from affectdata.manifest.ingest import ingest
from affectdata.plan.labelling import add_labels
from affectdata.plan.planner import plan_release
from affectdata.recipe.recipe import Labels, Recipe, parse_recipe, read_recipe
from affectdata.release.publish import publish_release
from affectdata.release.verify import check_release
from affectdata.sources import wikiart_emotions
from tests.made import make_rows, recipe_document

WORDS = (
    "Word\tValence\tArousal\tDominance\nawe\t9\t5\t1\nFear\t1\t9\t1\nsomething else\t5\t5\t5\nsad\t2\t2\t2\n"
)


@pytest.fixture
def lexicon(tmp_path: Path) -> dict[str, Any]:
    """A lexicon on 1 to 9, as a recipe names it."""
    (tmp_path / "words.tsv").write_text(WORDS)
    return {"file": str(tmp_path / "words.tsv"), "scale": [1, 9]}


def rows(*emotions: str | None, **shares: list[float | None]) -> pa.Table:
    table = make_rows([{"emotion": word} for word in emotions])
    for name, values in shares.items():
        table = table.append_column(f"emotion_{name}", pa.array(values, pa.float64()))
    return table


def places(table: pa.Table, lexicon: dict[str, Any], **spec: Any) -> list[tuple[float, float] | None]:
    labels = Labels.model_validate({**spec, "lexicon": lexicon})
    found = add_labels(table, labels).select(["lexicon_valence", "lexicon_arousal"]).to_pylist()
    pairs = [tuple(row.values()) for row in found]
    return [None if pair == (None, None) else pair for pair in pairs]


def test_coordinates_are_those_of_the_dominant_emotion_in_pomp(lexicon: dict[str, Any]) -> None:
    """Shares that are no distribution, such as FI's, do not count unless `at_least` is given."""
    table = rows("awe", "fear", "something_else", None, awe=[0.8, 0.2, None, 0.4])
    assert places(table, lexicon) == [(100, 50), (0, 100), (50, 50), None]


def test_shares_weigh_the_emotions_that_are_labels(lexicon: dict[str, Any]) -> None:
    table = rows(None, None, awe=[0.6, 0.3], fear=[0.2, 0.1])
    assert places(table, lexicon, at_least=0.2) == [(75, 62.5), (100, 50)]
    assert places(table, lexicon, at_least=0.01) == [(75, 62.5), (75, 62.5)]


def test_dropped_emotions_have_no_effect(lexicon: dict[str, Any]) -> None:
    table = rows(None, None, awe=[0.5, 0.0], fear=[0.5, 0.5], envy=[0.5, 0.5])
    assert places(table, lexicon, at_least=0.5, drop=["envy"]) == [(50, 75), (0, 100)]
    merged = {"merge": {"dark": ["fear", "envy"]}, "drop": ["dark"]}
    assert places(table, lexicon, at_least=0.5, **merged) == [(100, 50), None]


def test_words_that_the_lexicon_lacks_are_listed(lexicon: dict[str, Any]) -> None:
    """Sadness is not looked up as sad: whoever made the lexicon gave the two different places."""
    with pytest.raises(RecipeError, match=r"words\.tsv lacks 2 of 3 emotions: envy, sadness") as caught:
        places(rows("awe", "sadness", "envy"), lexicon)
    assert "drop: [envy, sadness]" in caught.value.fix


def test_images_that_fill_bins_may_have_other_words(lexicon: dict[str, Any]) -> None:
    """Those of `fill_from`: without a place, none is taken."""
    table = add_labels(rows("envy", "awe"), Labels.model_validate({"lexicon": lexicon}), check=False)
    assert table["lexicon_valence"].to_pylist() == [None, 100]


def test_the_recipe_holds_the_name_and_the_hash(lexicon: dict[str, Any]) -> None:
    document = recipe_document(target="lexicon_valence", labels={"lexicon": lexicon})
    recipe = parse_recipe(document)
    recorded = recipe.document()["labels"]["lexicon"]
    assert recorded == {"file": "words.tsv", "scale": [1.0, 9.0], "sha256": file_hash(WORDS.encode())}
    assert parse_recipe(recipe.document()).digest == recipe.digest  # no file is needed to read it again
    Path(lexicon["file"]).write_text(WORDS.replace("9\t5", "8\t5"))
    assert parse_recipe(document).digest != recipe.digest
    with pytest.raises(RecipeError, match="differs from the lexicon that the recipe was resolved with"):
        places(rows("awe"), {**lexicon, "sha256": recorded["sha256"]})


def test_the_path_is_relative_to_the_recipe(lexicon: dict[str, Any], tmp_path: Path) -> None:
    spec = {"labels": {"lexicon": {**lexicon, "file": "../words.tsv"}}, "target": "lexicon_valence"}
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(yaml.safe_dump(recipe_document(**spec)))
    recipe = read_recipe(tmp_path / "recipes" / "mine.yaml")
    assert recipe.labels and add_labels(rows("awe"), recipe.labels)["lexicon_valence"].to_pylist() == [100]
    assert recipe.document()["labels"]["lexicon"]["file"] == "words.tsv"
    (tmp_path / "words.tsv").unlink()
    with pytest.raises(RecipeError, match=r"cannot read the lexicon .*/recipes/\.\./words\.tsv"):
        read_recipe(tmp_path / "recipes" / "mine.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word,valence,arousal\nawe,9.5,5\n", "9.5, 5 is outside 1–9"),
        ("word,valence,arousal\nawe,high,5\n", "awe: .high. is not a number"),
        ("word,valence,arousal\nawe,5,5\nAwe,6,5\n", "2 different values for awe"),
        ("word,V.Mean,A.Mean\nawe,5,5\n", "needs the columns word, valence, arousal"),
        ("", "is empty"),
    ],
)
def test_an_invalid_lexicon_is_refused(text: str, message: str, lexicon: dict[str, Any]) -> None:
    Path(lexicon["file"]).write_text(text)
    with pytest.raises(RecipeError, match=message):
        places(rows("awe"), lexicon)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "lexicon_valence"}, "labels.lexicon: missing"),
        ({"strata": [{"lexicon_arousal": {"width": 50}}]}, "labels.lexicon: missing"),
        (
            {"labels": {"lexicon": {"file": "gone.tsv", "scale": [0, 1]}}},
            r"cannot read the lexicon gone\.tsv",
        ),
        ({"labels": {"lexicon": {"scale": [1, 0], "file": "gone.tsv"}}}, r"must be \[lowest, highest\]"),
        ({"labels": {"map": "polarity", "lexicon": "LEXICON"}}, "give one of them"),
        ({"labels": {"lexicon": "LEXICON"}, "target": "lexicon_valence", "bins": None}, "needs bins"),
    ],
)
def test_a_contradiction_is_refused(changes: dict[str, Any], message: str, lexicon: dict[str, Any]) -> None:
    labels = changes.get("labels")
    if labels and labels["lexicon"] == "LEXICON":
        changes = {**changes, "labels": {**labels, "lexicon": lexicon}}
    with pytest.raises(RecipeError, match=message):
        parse_recipe(recipe_document(**changes))


@pytest.mark.slow
def test_paintings_are_levelled_over_the_bins_of_a_lexicon(tmp_path: Path) -> None:
    wikiart_emotions.write_sample(tmp_path / "art", np.random.default_rng(0))
    manifest = ingest(tmp_path / "art", out=tmp_path / "manifests", workers=1).manifest
    words = manifest.metadata["emotions"]
    lines = [f"{word},{at / len(words)},0.5" for at, word in enumerate(words)]
    (tmp_path / "vad.csv").write_text("\n".join(["word,valence,arousal", *lines]))
    spec = {"at_least": 0.1, "lexicon": {"file": str(tmp_path / "vad.csv"), "scale": [0, 1]}}
    recipe = release_recipe(labels=spec)
    table, plan = plan_release([manifest], [], recipe)
    assert {bin_.bin for bin_ in plan.bins} == {"[0,50)", "[50,100]"}
    assert max(bin_.shortfall for bin_ in plan.bins) == 0
    release, _ = publish_release([manifest], table, plan, recipe, tmp_path / "releases", workers=1)
    assert check_release(release) == []
    assert release.table["valence"].null_count == len(release.table)  # it is not a rating
    assert release.table["lexicon_valence"].null_count == 0
    recorded = release.info["lexicon"]
    assert recorded["file"] == "vad.csv"
    assert recorded["sha256"] == file_hash((tmp_path / "vad.csv").read_bytes())
    assert set(recorded["words"]) <= set(words)
    card = (release.path / "README.md").read_text()
    assert "are not ratings" in card and recorded["sha256"] in card
    assert (
        yaml.safe_load((release.path / "recipe.yaml").read_text())["labels"]["lexicon"]["file"] == "vad.csv"
    )
    assert str(tmp_path) not in (release.path / "recipe.yaml").read_text()
    assert find_originals(release, recipe).edges == [0, 50, 100]  # train-check regresses it


def release_recipe(**changes: Any) -> Recipe:
    document = recipe_document(target="lexicon_valence", bins={"width": 50}, strata=[], **changes)
    return parse_recipe({**document, "split": {"test": 0.2}})
