"""Raw votes in a column map, compared with pandas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from affectdata.errors import RecipeError, SourceError

ReadVotes = Callable[..., tuple[Any, pd.DataFrame]]
WORDS = ("joy", "fear", "awe", "sadness")
IMAGES = [f"i{number}.jpg" for number in range(12)]


def to_pomp(values: pd.Series | pd.DataFrame, low: float, high: float) -> Any:
    return (values - low) / (high - low) * 100


@pytest.fixture(scope="module")
def answers() -> pd.DataFrame:
    """A row per rater and image; every rater rates some images, and leaves some ratings out."""
    rng = np.random.default_rng(3)
    pairs = pd.MultiIndex.from_product([IMAGES, [f"r{n}" for n in range(9)]], names=["file", "rater"])
    frame = pairs.to_frame(index=False).sample(frac=0.7, random_state=1)
    frame["valence"] = rng.integers(1, 10, len(frame)).astype(float)
    frame["arousal"] = rng.uniform(0, 1, len(frame)).round(3)
    frame["emotion"] = rng.choice(WORDS, len(frame), p=[0.5, 0.3, 0.15, 0.05])
    frame.loc[frame.index[::7], "valence"] = np.nan
    return frame


def findings(result: Any) -> dict[str, str]:
    return {finding.kind: finding.text for finding in result.findings}


LONG: dict[str, Any] = {
    "rows": "rater",
    "rater": "rater",
    "scales": {"valence": [1, 9], "arousal": [0, 1]},
    "columns": {"valence": "valence", "arousal": "arousal", "emotion": "emotion"},
}


def test_a_row_per_rater(answers: pd.DataFrame, read_votes: ReadVotes) -> None:
    result, rows = read_votes(answers, IMAGES, **LONG)
    groups = answers.groupby("file")
    for name, low, high in (("valence", 1, 9), ("arousal", 0, 1)):
        np.testing.assert_allclose(rows[name], to_pomp(groups[name].mean(), low, high), atol=1e-6)
        np.testing.assert_allclose(rows[f"{name}_sd"], groups[name].std() / (high - low) * 100, atol=1e-6)
        np.testing.assert_array_equal(rows[f"{name}_n"], groups[name].count())
    shares = pd.crosstab(answers["file"], answers["emotion"], normalize="index")
    for word in WORDS:
        np.testing.assert_allclose(rows[f"emotion_{word}"], shares[word], atol=1e-9)
    np.testing.assert_array_equal(rows["agreement_n"], groups.size())
    decided = rows["emotion"].notna()
    assert (rows["emotion"][decided] == shares.idxmax(axis=1)[decided]).all()
    np.testing.assert_allclose(rows["agreement"][decided], shares.max(axis=1)[decided], atol=1e-9)
    assert not {"bad_vote", "off_scale", "repeated_rater"} & findings(result).keys()


def test_votes_that_cannot_be_used_are_left_out_and_counted(
    answers: pd.DataFrame, read_votes: ReadVotes
) -> None:
    good = answers.astype({"valence": object}).fillna({"valence": ""})
    first = good.iloc[0]
    bad = pd.DataFrame(
        [
            {**first, "rater": "x1", "valence": 11},
            {**first, "rater": "x2", "valence": -3},
            {**first, "rater": "x3", "valence": "many"},
            {**first, "rater": "x4", "valence": "", "arousal": "", "emotion": ""},
            {**first, "emotion": "awe"},  # a second answer of the same rater
        ]
    )
    result, rows = read_votes(pd.concat([good, bad]), IMAGES, **LONG)
    _, expected = read_votes(good, IMAGES, **LONG)
    pd.testing.assert_frame_equal(rows.drop(columns="extra"), expected.drop(columns="extra"))
    found = findings(result)
    assert found["off_scale"].startswith("2 votes") and "11 is outside 1–9" in found["off_scale"]
    assert found["bad_vote"].startswith("2 votes")
    assert "'many' is not a number" in found["bad_vote"] and "of x4: empty" in found["bad_vote"]
    assert found["repeated_rater"].startswith("1 vote ")
    with pytest.raises(SourceError, match="--strict") as caught:
        read_votes(pd.concat([good, bad]), IMAGES, strict=True, **LONG)
    assert "2 votes" in caught.value.where
    assert len(read_votes(good, IMAGES, strict=True, **LONG)[1]) == len(IMAGES)


def test_a_finding_has_three_examples(read_votes: ReadVotes) -> None:
    lines = ["file,valence", *("a.jpg,5" for _ in range(3)), *(f"a.jpg,{number}0" for number in range(1, 9))]
    result, rows = read_votes(
        "\n".join(lines), ["a.jpg"], rows="rater", scales={"valence": [1, 9]}, columns={"valence": "valence"}
    )
    text = findings(result)["off_scale"]
    assert text.startswith("8 votes") and text.count("is outside") == 3 and text.endswith("; …")
    assert (rows["valence_n"].item(), rows["valence_sd"].item()) == (3, 0)


def test_an_image_without_a_usable_vote_is_rejected(read_votes: ReadVotes) -> None:
    keys = {"rows": "rater", "scales": {"valence": [1, 9]}, "columns": {"valence": "v"}}
    result, rows = read_votes("file,v\na.jpg,5\nb.jpg,99\nb.jpg,x", ["a.jpg", "b.jpg"], **keys)
    assert list(rows.index) == ["a.jpg"]
    assert result.reasons() == {"bad_rating": 1}
    assert (rows["valence_n"].item(), np.isnan(rows["valence_sd"].item())) == (1, True)


def test_rows_of_raters_that_differ_in_what_holds_for_the_image(read_votes: ReadVotes) -> None:
    table = "file,v,kind,device\na.jpg,5,x,phone\na.jpg,6,x,desk\na.jpg,6,,desk\nb.jpg,5,x,\nb.jpg,5,y,"
    keys = {"rows": "rater", "scales": {"valence": [1, 9]}, "columns": {"valence": "v", "subtype": "kind"}}
    result, rows = read_votes(table, ["a.jpg", "b.jpg"], **keys)
    assert (rows.loc["a.jpg", "subtype"], rows.loc["a.jpg", "extra"]) == ("x", '{"device":"phone | desk"}')
    assert result.reasons() == {"conflicting_rating": 1}
    assert "differ in kind: x | y" in result.rejects.to_pylist()[0]["detail"]


@pytest.mark.parametrize("columns", ["rater_*", [f"rater_{number}" for number in range(6)]])
def test_a_column_per_rater_with_gaps(columns: str | list[str], read_votes: ReadVotes) -> None:
    rng = np.random.default_rng(5)
    names = [f"rater_{number}" for number in range(6)]
    frame = pd.DataFrame(rng.integers(0, 101, (12, 6)).astype(float), columns=names)
    frame[rng.random(frame.shape) < 0.3] = np.nan
    frame.insert(0, "file", IMAGES)
    _, rows = read_votes(frame, IMAGES, scales={"valence": [0, 100]}, raters={"valence": columns})
    by_file = frame.set_index("file").sort_index()
    np.testing.assert_allclose(rows["valence"], by_file.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(rows["valence_sd"], by_file.std(axis=1), atol=1e-6)
    np.testing.assert_array_equal(rows["valence_n"], by_file.count(axis=1))
    assert set(rows["extra"]) == {"{}"}


def test_words_in_a_column_per_rater(read_votes: ReadVotes) -> None:
    table = "file,w1,w2,w3\na.jpg,Joy,Sad,Joy\nb.jpg,Fear,,NA\nc.jpg,Joy,Sad,"
    _, rows = read_votes(table, ["a.jpg", "b.jpg", "c.jpg"], raters={"emotion": "w?"})
    assert rows["emotion_joy"].tolist() == [0.666666667, 0, 0.5]
    assert rows["emotion_fear"].tolist() == [0, 1, 0]
    assert rows["agreement_n"].tolist() == [3, 1, 2]
    assert rows["emotion"].tolist() == ["joy", "fear", None]


def test_bad_answers_in_a_column_per_rater(read_votes: ReadVotes) -> None:
    table = "file,v1,v2,v3\na.jpg,3,10,5\nb.jpg,x,,4"
    result, rows = read_votes(table, ["a.jpg", "b.jpg"], scales={"valence": [1, 9]}, raters={"valence": "v*"})
    assert rows["valence_raw"].tolist() == [4, 4] and rows["valence_n"].tolist() == [2, 1]
    assert "votes.csv#a.jpg, v2: 10 is outside 1–9" in findings(result)["off_scale"]
    assert "votes.csv#b.jpg, v1: 'x' is not a number" in findings(result)["bad_vote"]


def test_columns_of_raters_beside_counts(read_votes: ReadVotes) -> None:
    keys = {"scales": {"valence": [1, 9]}, "raters": {"valence": "v?"}}
    keys |= {"counts": True, "emotions": {"joy": "joy", "fear": "fear"}}
    _, rows = read_votes("file,v1,v2,joy,fear\na.jpg,3,5,1,3", ["a.jpg"], **keys)
    found = rows[["valence_raw", "valence_n", "emotion_fear", "agreement_n"]].iloc[0]
    assert found.tolist() == [4, 2, 0.75, 4]


def test_a_pattern_without_columns_is_an_error(read_votes: ReadVotes) -> None:
    with pytest.raises(SourceError, match=r"lacks the column 'rater_\*'"):
        read_votes("file,r1\na.jpg,3", ["a.jpg"], scales={"valence": [1, 9]}, raters={"valence": "rater_*"})


def test_counts_of_votes(read_votes: ReadVotes) -> None:
    rng = np.random.default_rng(7)
    frame = pd.DataFrame(rng.integers(1, 9, (12, 4)) // 2 + 1, columns=list(WORDS))
    frame.iloc[::3, 2] = 0
    table = "\n".join(
        f"{name} {' '.join(map(str, row))} " for name, row in zip(IMAGES, frame.to_numpy(), strict=True)
    )
    keys = {"delimiter": " ", "header": ["file", *WORDS], "emotions": {word: word for word in WORDS}}
    _, rows = read_votes(table, IMAGES, counts=True, **keys)
    frame.index = pd.Index(IMAGES)
    frame = frame.sort_index()
    for word in WORDS:
        np.testing.assert_allclose(rows[f"emotion_{word}"], frame[word] / frame.sum(axis=1), atol=1e-9)
    np.testing.assert_array_equal(rows["agreement_n"], frame.sum(axis=1))


@pytest.mark.parametrize(
    ("cells", "detail"),
    [
        ("-1,3", "joy: '-1' is negative"),
        ("x,3", "joy: 'x' is not a number"),
        (",3", "joy: empty; write 0"),
        ("0,0", "all numbers of votes are 0"),
        ("0.5,0.5", "'0.5' is not a whole number of votes"),
    ],
)
def test_bad_counts(cells: str, detail: str, read_votes: ReadVotes) -> None:
    keys = {"counts": True, "emotions": {"joy": "joy", "fear": "fear"}}
    result, rows = read_votes(f"file,joy,fear\na.jpg,{cells}\nb.jpg,1,0", ["a.jpg", "b.jpg"], **keys)
    assert list(rows.index) == ["b.jpg"]
    assert detail in result.rejects.to_pylist()[0]["detail"]
    assert findings(result)["bad_vote"].startswith("1 vote ") and detail in findings(result)["bad_vote"]
    with pytest.raises(SourceError, match="--strict"):
        read_votes(f"file,joy,fear\na.jpg,{cells}\nb.jpg,1,0", ["a.jpg", "b.jpg"], strict=True, **keys)


@pytest.mark.parametrize(
    ("cells", "hint"),
    [("6,5", "counts: true"), ("45.5,54.4", "percent: true"), ("3.5,2.5", "intensities"), ("-1,5", None)],
)
def test_what_is_no_share_names_the_key_that_helps(
    cells: str, hint: str | None, read_votes: ReadVotes
) -> None:
    keys = {"emotions": {"joy": "joy", "fear": "fear"}}
    result, _ = read_votes(f"file,joy,fear\na.jpg,{cells}\nb.jpg,1,0", ["a.jpg", "b.jpg"], **keys)
    (reject,) = result.rejects.to_pylist()
    for known in ("counts: true", "percent: true", "intensities"):
        assert (known in reject["detail"]) == (known == hint)


def test_shares_that_do_not_add_up_are_a_finding(read_votes: ReadVotes) -> None:
    keys = {"emotions": {"joy": "joy", "fear": "fear"}, "percent": True}
    result, _ = read_votes("file,joy,fear\na.jpg,6,3\nb.jpg,60,39.6", ["a.jpg", "b.jpg"], **keys)
    assert findings(result)["share_sum"] == (
        "1 image with shares that do not add up to 1: votes.csv#a.jpg 0.09"
    )


def test_intensities_have_a_scale_of_their_own(read_votes: ReadVotes) -> None:
    keys = {
        "scales": {"intensity": [1, 7], "intensity_fear": [0, 4]},
        "intensities": {"joy": "Joy", "fear": "Fear"},
    }
    table = "file,Joy,Fear\na.jpg,5.5,1\nb.jpg,1,\nc.jpg,8,1"
    result, rows = read_votes(table, ["a.jpg", "b.jpg", "c.jpg"], **keys)
    assert rows["intensity_joy"].tolist() == [75, 0]
    assert rows["intensity_fear"].tolist()[0] == 25 and np.isnan(rows["intensity_fear"].iloc[1])
    assert result.reasons() == {"rating_out_of_range": 1}
    assert result.manifest.metadata["scales"] == {"intensity_joy": [1, 7], "intensity_fear": [0, 4]}


def test_intensities_of_raters_are_averaged(read_votes: ReadVotes) -> None:
    keys = {"rows": "rater", "scales": {"intensity": [0, 10]}, "intensities": {"joy": "Joy"}}
    result, rows = read_votes("file,Joy\na.jpg,2\na.jpg,5\na.jpg,11", ["a.jpg"], **keys)
    assert rows["intensity_joy"].item() == 35
    assert "11 is outside 0–10" in findings(result)["off_scale"]


@pytest.mark.parametrize(
    "cell",
    [
        "\"['Joy', 'Doubt/Confusion']\"",
        '"[""joy"", ""doubt/confusion""]"',
        "\"['Joy' 'Doubt/Confusion']\"",
        "\"{'Joy', 'Doubt/Confusion'}\"",
        '"[Joy, Doubt/Confusion]"',
        "Joy;Doubt/Confusion",
    ],
)
def test_several_labels_in_a_cell(cell: str, read_votes: ReadVotes) -> None:
    table = f"file,labels\na.jpg,{cell}\nb.jpg,[Joy]\nc.jpg,[]"
    result, rows = read_votes(
        table, ["a.jpg", "b.jpg", "c.jpg"], columns={"emotion": "labels"}, separator=";", delimiter=","
    )
    assert rows["emotion_joy"].tolist() == [1, 1]
    assert rows["emotion_doubt_confusion"].tolist() == [1, 0]
    assert rows["emotion"].tolist() == [None, "joy"]
    assert result.reasons() == {"missing_rating": 1}


@pytest.mark.parametrize(("cell", "separator"), [("joy|awe", "|"), ("joy; awe", ";"), ("joy, fear", ",")])
def test_cells_with_an_unknown_separator_are_refused(
    cell: str, separator: str, read_votes: ReadVotes
) -> None:
    frame = pd.DataFrame({"file": ["a.jpg", "b.jpg", "c.jpg"], "w": [cell, "joy", "doubt/confusion"]})
    with pytest.raises(SourceError, match="look like several labels") as caught:
        read_votes(frame, list(frame["file"]), columns={"emotion": "w"})
    assert f"`separator: {separator!r}`" in caught.value.fix
    codes = {cell: "mixed", "joy": "joy", "doubt/confusion": "doubt"}
    _, rows = read_votes(frame, list(frame["file"]), columns={"emotion": "w"}, values={"emotion": codes})
    assert rows["emotion"].tolist() == ["mixed", "joy", "doubt"]


@pytest.mark.parametrize(
    ("cell", "keys"),
    [
        ('{"joy": 0.75, "fear": 0.25}', {}),
        ('[["joy", 75], ["fear", 25]]', {"percent": True}),
        ('[{"label": "joy", "count": 3}, {"label": "fear", "count": 1}]', {"counts": True}),
    ],
)
def test_labels_with_weights(cell: str, keys: dict[str, Any], read_votes: ReadVotes) -> None:
    quoted = cell.replace('"', '""')
    _, rows = read_votes(f'file,labels\na.jpg,"{quoted}"', ["a.jpg"], columns={"emotion": "labels"}, **keys)
    assert rows[["emotion_joy", "emotion_fear", "emotion"]].iloc[0].tolist() == [0.75, 0.25, "joy"]


_SIGNS = {"joy": "positive", "awe": "positive", "fear": "negative"}


@pytest.mark.parametrize(
    ("cell", "keys", "shares"),
    [
        ('{"joy": 3, "awe": 2, "fear": 5}', {"counts": True, "values": {"emotion": _SIGNS}}, (0.5, 0.5)),
        ('{"joy": 0.3, "awe": 0.1, "fear": 0.6}', {"values": {"emotion": _SIGNS}}, (0.4, 0.6)),
        ('["joy", "awe", "fear"]', {"values": {"emotion": _SIGNS}}, (1, 1)),
        ('{"Positive": 2, "positive": 1, "negative": 1}', {"counts": True}, (0.75, 0.25)),
        ('{"choices": ["joy", "fear"]}', {"values": {"emotion": _SIGNS}}, (1, 1)),
        ("positive|positive|negative|positive", {"counts": True, "separator": "|"}, (0.75, 0.25)),
    ],
)
def test_labels_with_one_meaning_are_added(
    cell: str, keys: dict[str, Any], shares: tuple[float, float], read_votes: ReadVotes
) -> None:
    frame = pd.DataFrame({"file": ["a.jpg"], "labels": [cell]})
    _, rows = read_votes(frame, ["a.jpg"], columns={"emotion": "labels"}, **keys)
    assert tuple(rows[["emotion_positive", "emotion_negative"]].iloc[0]) == shares


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("joy|joy|fear", "'joy' occurs 2 times; if each is a vote: `counts: true`"),
        ('[["joy", 0.3], ["joy", 0.2]]', "'joy' occurs 2 times"),
        ('{"Joy": 0.8, "joy": 0.7}', "the shares of 'joy' add up to 1.5"),
    ],
)
def test_repeated_labels_are_no_labels(cell: str, message: str, read_votes: ReadVotes) -> None:
    frame = pd.DataFrame({"file": ["a.jpg", "b.jpg"], "labels": [cell, "fear"]})
    result, _ = read_votes(frame, ["a.jpg", "b.jpg"], columns={"emotion": "labels"}, separator="|")
    (reject,) = result.rejects_without_junk.to_pylist()
    assert (reject["path"], reject["reason"]) == ("a.jpg", "bad_rating")
    assert message in reject["detail"]


def test_columns_of_true_and_false_are_shares(read_votes: ReadVotes) -> None:
    frame = pd.get_dummies(pd.DataFrame({"emotion": ["joy", "fear"]}))
    frame.insert(0, "file", ["a.jpg", "b.jpg"])
    shares = {"joy": "emotion_joy", "fear": "emotion_fear"}
    _, rows = read_votes(frame, ["a.jpg", "b.jpg"], emotions=shares)
    assert rows["emotion"].tolist() == ["joy", "fear"]


def test_the_total_of_votes_is_no_emotion(read_votes: ReadVotes) -> None:
    table = "file,joy,fear,total\na.jpg,6,4,10\n"
    columns = {"joy": "joy", "fear": "fear"}
    with pytest.raises(RecipeError, match="total is not an emotion"):
        read_votes(table, ["a.jpg"], counts=True, emotions={**columns, "total": "total"})
    _, rows = read_votes(table, ["a.jpg"], counts=True, emotions=columns)
    assert rows[["emotion_joy", "agreement_n"]].iloc[0].tolist() == [0.6, 10]


def test_a_pattern_of_raters_that_fits_summaries_is_refused(read_votes: ReadVotes) -> None:
    table = "file,R1,R2,R_mean,R.SD\na.jpg,1,5,3,2\n"
    keys: dict[str, Any] = {"scales": {"valence": [1, 5]}}
    with pytest.raises(SourceError, match=r"'R\*' under `raters` also fits R_mean, R\.SD") as caught:
        read_votes(table, ["a.jpg"], raters={"valence": "R*"}, **keys)
    assert "`raters: {valence: [R1, R2]}`" in caught.value.fix
    _, rows = read_votes(table, ["a.jpg"], raters={"valence": ["R1", "R2"]}, **keys)
    assert (rows["valence"].item(), rows["valence_n"].item()) == (50, 2)


def test_cells_of_raters_of_which_none_can_be_used(read_votes: ReadVotes) -> None:
    table = "file,R1,R2\na.jpg,[3],Happy\nb.jpg,,\nc.jpg,2,low\n"
    keys: dict[str, Any] = {"scales": {"valence": [1, 5]}, "values": {"valence": {"low": 1, "high": 5}}}
    result, rows = read_votes(table, ["a.jpg", "b.jpg", "c.jpg"], raters={"valence": ["R1", "R2"]}, **keys)
    rejects = {row["path"]: (row["reason"], row["detail"]) for row in result.rejects_without_junk.to_pylist()}
    assert rejects["a.jpg"] == ("bad_rating", "votes.csv#a.jpg: nothing in R1, R2 can be used")
    assert rejects["b.jpg"][0] == "missing_rating"
    assert "'Happy' is not a number and is not one of low, high" in findings(result)["bad_vote"]
    assert rows["valence"].tolist() == [12.5]


@pytest.mark.parametrize("cell", ["[{'a': 1}]", '{"joy": -1}', '{"joy": "x"}', "[['joy', 1, 2]]"])
def test_a_cell_that_begins_like_a_list_and_is_none(cell: str, read_votes: ReadVotes) -> None:
    quoted = cell.replace('"', '""')
    result, _ = read_votes(
        f'file,labels\na.jpg,"{quoted}"\nb.jpg,joy', ["a.jpg", "b.jpg"], columns={"emotion": "labels"}
    )
    assert result.reasons() == {"bad_rating": 1}


def test_a_row_per_person(read_votes: ReadVotes) -> None:
    table = (
        "file,labels,v,sex,years,box\n"
        "a.jpg,\"['joy', 'awe']\",3,Male,30,1\n"
        "a.jpg,['joy'],6,Female,30,2\n"
        "b.jpg,['awe'],5,Male,41,3\n"
        "b.jpg,['awe'],off,Male,41,4\n"
    )
    result, rows = read_votes(
        table,
        ["a.jpg", "b.jpg"],
        rows="person",
        scales={"valence": [0, 10]},
        columns={"emotion": "labels", "valence": "v", "gender": "sex", "age": "years"},
    )
    both, one = rows.loc["a.jpg"], rows.loc["b.jpg"]
    assert (both["valence"], both["emotion_joy"], both["emotion_awe"], both["emotion"]) == (45, 1, 0.5, "joy")
    assert (both["gender"], both["age"], both["extra"]) == (None, 30, '{"box":"1 | 2","sex":"Male | Female"}')
    assert (one["valence"], one["emotion"], one["gender"], one["age"]) == (50, "awe", "Male", 41)
    assert np.isnan(both["valence_sd"]) and "agreement_n" not in rows
    assert "'off' is not a number" in findings(result)["bad_vote"]


def test_words_of_a_likert_scale(read_votes: ReadVotes) -> None:
    codes = {"very negative": 1, "neutral": 3, "very positive": 5, "no answer": None}
    frame = pd.DataFrame({"file": ["a.jpg"] * 4, "v": ["very negative", "neutral", "4", "no answer"]})
    _, rows = read_votes(
        frame,
        ["a.jpg"],
        rows="rater",
        scales={"valence": [1, 5]},
        columns={"valence": "v"},
        values={"valence": codes},
    )
    assert (rows["valence_raw"].item(), rows["valence_n"].item()) == (pytest.approx(8 / 3), 3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rater": "r"}, "`rater` needs `rows: rater`"),
        ({"counts": True, "percent": True}, "exclude each other"),
        ({"rows": "person", "repeated": "mean"}, "`repeated` has no effect"),
        ({"raters": {"valence": "v*"}}, "valence needs its scale"),
        ({"raters": {"gender": "v*"}}, "gender is not a rating"),
        ({"intensities": {"joy": "J"}}, "joy needs `scales: {intensity"),
        ({"decimal": ",", "thousands": ","}, "are the same"),
        (
            {"rows": "rater", "scales": {"valence": [1, 9]}, "columns": {"valence": "v", "valence_sd": "s"}},
            "valence_sd: with `rows: rater` it is computed",
        ),
    ],
)
def test_keys_that_do_not_go_together(keys: dict[str, Any], message: str, read_votes: ReadVotes) -> None:
    with pytest.raises(RecipeError, match=message):
        read_votes("file,v\na.jpg,3", ["a.jpg"], **keys)


def test_a_text_column_is_not_taken_for_emotions(read_votes: ReadVotes) -> None:
    frame = pd.DataFrame({"file": "a.jpg", "w": [f"word {number}" for number in range(1100)]})
    with pytest.raises(SourceError, match="more than 1000 different words"):
        read_votes(frame, ["a.jpg"], rows="rater", columns={"emotion": "w"})
