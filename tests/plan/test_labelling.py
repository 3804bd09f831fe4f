"""Classes from emotions: agreement, sets, merged, dropped, rare ones; rows without a class are left out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from affectdata.errors import RecipeError
from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import load_manifest, write_manifest
from affectdata.plan.labelling import add_labels
from affectdata.plan.planner import plan_release
from affectdata.plan.rows import choose_rows
from affectdata.recipe.recipe import Labels
from affectdata.release.publish import publish_release
from affectdata.release.release import open_release
from affectdata.release.verify import check_release
from tests.made import make_manifest, make_recipe, make_rows, recipe_document


def chosen(emotions: Sequence[str | None], agreement: Sequence[float | None] | None = None) -> pa.Table:
    """Rows with a dominant emotion."""
    shares = agreement or [None] * len(emotions)
    rows = [{"emotion": word, "agreement": share} for word, share in zip(emotions, shares, strict=True)]
    return make_rows(rows)


def shared(**shares: Sequence[float | None]) -> pa.Table:
    """Rows with a share of raters per emotion."""
    table = make_rows([{}] * len(next(iter(shares.values()))))
    for name, values in shares.items():
        table = table.append_column(f"emotion_{name}", pa.array(values, pa.float64()))
    return table


def labels_of(table: pa.Table, **spec: Any) -> list[str | None]:
    return add_labels(table, Labels(**spec))["label"].to_pylist()


def counted(**counts: int) -> pa.Table:
    """So many rows of each emotion."""
    return chosen([word for word, n in counts.items() for _ in range(n)])


# --- the dominant emotion --------------------------------------------------------------------------------


def test_by_default_the_label_is_the_emotion() -> None:
    table = chosen(["awe", None, "fear"])
    labelled = add_labels(table, Labels())
    assert labelled["label"].to_pylist() == ["awe", None, "fear"]
    assert labelled.drop_columns(["label"]).equals(table)


def test_more_than_half_must_agree_and_half_is_not_more() -> None:
    """The share is float64 in the manifest and stays so: 0.7 is not over 0.7."""
    table = chosen(["awe"] * 6, [0.5, 0.5000001, 0.49, 1.0, None, 0.0])
    assert labels_of(table, agreement_over=0.5) == [None, "awe", None, "awe", None, None]
    assert labels_of(chosen(["awe", "awe"], [0.7, 0.71]), agreement_over=0.7) == [None, "awe"]
    assert labels_of(chosen(["awe", "awe"], [0.0, 0.1]), agreement_over=0.0) == [None, "awe"]


def test_agreement_without_an_emotion_is_no_label() -> None:
    assert labels_of(chosen([None, "awe"], [0.9, 0.9]), agreement_over=0.5) == [None, "awe"]


# --- every emotion that enough raters chose ---------------------------------------------------------------


def test_several_emotions_make_one_set_in_sorted_order() -> None:
    table = shared(love=[0.5, 0.4, 0.39, None], anger=[0.4, 0.0, 0.1, None], fear=[1.0, 0.0, 0.2, None])
    assert labels_of(table, at_least=0.4) == ["anger+fear+love", "love", None, None]


def test_the_dominant_emotion_does_not_count_where_shares_do() -> None:
    table = shared(love=[0.5], anger=[0.1])
    table = table.set_column(table.column_names.index("emotion"), "emotion", pa.array(["anger"]))
    assert labels_of(table, at_least=0.4) == ["love"]


def test_emotions_of_one_class_are_one_class_and_mixtures_are_their_own() -> None:
    table = shared(
        happiness=[0.5, 0.5, 0.0, 0.0, 0.5], love=[0.6, 0.0, 0.0, 0.0, 0.4], sadness=[0, 0.5, 0.5, 0.0, 0]
    )
    merge = {"Up": ["happiness", "love"], "Calm": ["sadness"]}
    assert labels_of(table, at_least=0.4, merge=merge) == ["Up", "Calm+Up", "Calm", None, "Up"]


def test_dropping_a_class_keeps_the_rest_of_the_set() -> None:
    table = shared(love=[0.5, 0.5, 0.0], neutral=[0.5, 0.0, 0.9])
    assert labels_of(table, at_least=0.4, drop=["neutral"]) == ["love", "love", None]


# --- maps -------------------------------------------------------------------------------------------------


def test_a_map_replaces_emotions_by_classes_and_drops_unknown_ones() -> None:
    table = shared(love=[0.5, 0.5, 0.0], trust=[0.0, 0.4, 0.0], neutral=[0.5, 0.0, 0.9], surprise=[0.4, 0, 0])
    assert labels_of(table, map="mood_quadrants", at_least=0.4) == ["Euphoric", "Calm+Euphoric", None]
    assert labels_of(table, map="polarity", at_least=0.4) == ["neutral+positive", "positive", "neutral"]
    assert labels_of(chosen(["terror", "awe", None]), map="plutchik8") == ["fear", None, None]
    assert labels_of(chosen(["amusement", "awe", "fear"]), map="ekman6") == ["happiness", None, "fear"]


def test_classes_of_a_map_can_be_merged_and_dropped() -> None:
    table = shared(sadness=[0.5, 0.5, 0.0], trust=[0.0, 0.5, 0.5], anger=[0.0, 0.0, 0.5])
    merged = {"map": "mood_quadrants", "at_least": 0.4, "merge": {"Calm": ["Melancholy"]}}
    assert labels_of(table, **merged) == ["Calm", "Calm", "Aggressive+Calm"]
    assert labels_of(table, **merged, drop=["Aggressive"]) == ["Calm", "Calm", "Calm"]
    with pytest.raises(RecipeError, match="no row has the emotion sadness") as caught:
        labels_of(table, map="mood_quadrants", at_least=0.4, merge={"Calm": ["sadness"]})
    assert "Melancholy" in caught.value.fix


def test_quadrants_of_the_ratings() -> None:
    pairs = [(80, 80), (20, 80), (20, 20), (80, 20), (50, 80), (None, 20), (80, None)]
    table = make_rows([{"valence": valence, "arousal": arousal} for valence, arousal in pairs])
    found = ["Euphoric", "Aggressive", "Melancholy", "Calm", None, None, None]
    assert labels_of(table, map="valence_arousal") == found
    assert labels_of(table, map="valence_arousal", merge={"low": ["Melancholy", "Calm"]})[2:4] == [
        "low",
        "low",
    ]
    for more in ({"at_least": 0.4}, {"agreement_over": 0.5}):
        with pytest.raises(ValueError, match="does not use emotions"):
            Labels(map="valence_arousal", **more)


# --- merge, drop, top, min_count --------------------------------------------------------------------------


def test_merged_emotions_take_the_name_of_their_class_and_others_keep_theirs() -> None:
    table = chosen(["joy", "awe", "fear", "anger"])
    merge = {"up": ["joy", "awe"]}
    assert labels_of(table, merge=merge) == ["up", "up", "fear", "anger"]
    assert labels_of(table, merge=merge, drop=["up"]) == [None, None, "fear", "anger"]
    assert labels_of(table, merge=merge, drop=["fear"]) == ["up", "up", None, "anger"]


@pytest.mark.parametrize(
    ("top", "kept"),
    [(1, {"c"}), (2, {"b", "c"}), (3, {"a", "b", "c"}), (4, {"a", "b", "c", "d"}), (9, {*"abcd"})],
)
def test_top_keeps_the_largest_and_of_equal_ones_the_first_by_name(top: int, kept: set[str]) -> None:
    for seed in range(3):
        words = [*"d", *"b" * 3, *"a" * 2, *"c" * 5]
        random.Random(seed).shuffle(words)
        assert set(labels_of(chosen(words), top=top)) - {None} == kept
    tied = {"zeal": 2, "awe": 2, "fear": 2, "joy": 3}
    assert set(labels_of(counted(**tied), top=3)) - {None} == {"joy", "awe", "fear"}


def test_top_counts_what_agreement_left() -> None:
    table = chosen(["awe"] * 5 + ["fear"] * 3, [0.4] * 4 + [0.9] + [0.9] * 3)
    assert Counter(labels_of(table, agreement_over=0.5, top=1)) == {None: 5, "fear": 3}


def test_min_count_leaves_rare_classes_out() -> None:
    table = counted(awe=5, fear=3, joy=2)
    assert set(labels_of(table, min_count=3)) - {None} == {"awe", "fear"}
    assert set(labels_of(table, min_count=4, top=2)) - {None} == {"awe"}
    assert set(labels_of(table, min_count=4, merge={"low": ["fear", "joy"]})) == {"awe", "low"}


# --- what does not fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["merge", "drop"])
def test_an_unknown_emotion_is_refused(key: str) -> None:
    value = {"merge": {"up": ["joy", "happines"]}, "drop": ["joy", "happines"]}[key]
    for table, more in ((counted(joy=2, happiness=2), {}), (shared(joy=[0.5]), {"at_least": 0.4})):
        with pytest.raises(RecipeError, match=r"no row has the emotion happines\n") as caught:
            labels_of(table, **{key: value}, **more)
        assert caught.value.where == f"labels.{key}"
        assert "joy" in caught.value.fix
        assert caught.value.exit_code == 3


def test_an_emotion_that_raters_could_choose_is_known_though_none_did() -> None:
    """A recipe that fits a collection fits a part of it as well."""
    table = shared(love=[0.5, 0.2], shame=[0.1, 0.0])
    merge = {"Up": ["love"], "Calm": ["shame"]}
    assert labels_of(table, at_least=0.4, merge=merge, drop=["Calm"]) == ["Up", None]
    doubtful = chosen(["awe", "fear"], [0.9, 0.3])
    assert labels_of(doubtful, agreement_over=0.5, merge={"up": ["awe"], "down": ["fear"]}) == ["up", None]


@pytest.mark.parametrize(
    "spec", [{"agreement_over": 0.95}, {"min_count": 10}, {"drop": ["awe", "fear"]}], ids=str
)
def test_labels_without_any_row_are_refused(spec: dict[str, Any]) -> None:
    table = chosen(["awe", "fear"], [0.9, 0.9])
    with pytest.raises(RecipeError, match="no row has a label") as caught:
        labels_of(table, **spec)
    assert caught.value.where == "labels"


# --- in a plan and a release ------------------------------------------------------------------------------


def test_rows_without_a_label_are_left_out_and_classes_are_levelled() -> None:
    table = chosen(["awe"] * 20 + ["fear"] * 5 + [None] * 3 + ["joy"] * 2)
    recipe = make_recipe(target="label", bins=None, strata=[], labels={"top": 2})
    rows, plan = plan_release([make_manifest(table)], [], recipe)
    assert len(rows) == 25
    assert [(bin_.bin, bin_.n_before, bin_.n_after) for bin_ in plan.bins] == [
        ("awe", 20, 20),
        ("fear", 5, 20),
    ]
    assert choose_rows([make_manifest(table)], recipe).num_rows == 25


def test_where_comes_before_the_labels() -> None:
    table = chosen(["awe"] * 20 + ["fear"] * 5 + ["joy"] * 8)
    recipe = make_recipe(target="label", bins=None, strata=[], labels={"top": 2}, where="emotion <> 'awe'")
    assert set(choose_rows([make_manifest(table)], recipe)["label"].to_pylist()) == {"fear", "joy"}


def with_emotions(table: pa.Table, emotions: Mapping[str, int]) -> pa.Table:
    """Give the rows emotions, so many of each, the rest none."""
    words: list[str | None] = [word for word, n in emotions.items() for _ in range(n)]
    words += [None] * (len(table) - len(words))
    return table.set_column(table.column_names.index("emotion"), "emotion", pa.array(words, pa.string()))


def test_the_label_is_a_column_of_the_release(small_gaped: Path, tmp_path: Path) -> None:
    manifest = load_manifest(ingest(small_gaped, out=tmp_path / "manifests").manifest.path)
    manifest = replace(manifest, rows=with_emotions(manifest.table, {"joy": 4, "awe": 3, "fear": 6}))
    recipe = make_recipe(
        target="label", bins=None, strata=[], labels={"merge": {"up": ["joy", "awe"]}}, split={"test": 0.3}
    )
    rows, plan = plan_release([manifest], [], recipe)
    release, _ = publish_release([manifest], rows, plan, recipe, tmp_path / "releases", workers=1)
    assert check_release(release) == []
    table = open_release(release.path).table
    assert Counter(table.filter(pc.equal(table["copy"], 0))["label"].to_pylist()) == {"up": 7, "fear": 6}
    pairs = zip(table["label"].to_pylist(), table["emotion"].to_pylist(), strict=True)
    assert set(pairs) == {("up", "joy"), ("up", "awe"), ("fear", "fear")}
    assert set(table.filter(pc.equal(table["copy"], 1))["label"].to_pylist()) <= {"up", "fear"}


def test_the_command_counts_rows_without_a_label(
    cli: Callable[..., Any], small_gaped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = ingest(small_gaped, out=Path("manifests")).manifest
    write_manifest(with_emotions(made.table, {"joy": 4, "fear": 6}), made.metadata, made.path)
    document = recipe_document(target="label", bins=None, strata=[], labels={}, split={"test": 0.2})
    Path("made.yaml").write_text(yaml.safe_dump(document))
    ran = cli("balance", "--recipe", "made.yaml", "--dry-run", "--json")
    assert ran.code == 0
    assert ran.document["left_out"] == 8
    assert "left out" in cli("balance", "--recipe", "made.yaml", "--dry-run").out
