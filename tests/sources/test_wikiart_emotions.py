"""WikiArt Emotions: shares under three questions, titles that a spreadsheet spoilt, images named by id."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.errors import SourceError, UsageError
from affectdata.manifest.manifest import load_manifest
from affectdata.plan.labelling import add_labels
from affectdata.plan.planner import plan_release
from affectdata.reading.delimited import parse_delimited
from affectdata.recipe.recipe import packaged_recipes, read_recipe
from affectdata.sources import wikiart_emotions

ALL, INFO, AG4 = "WikiArt-Emotions-All.tsv", "WikiArt-info.tsv", "WikiArt-Emotions-Ag4.tsv"
ID = "57726f2dedc2cb3880b4c1a3"
EMOTIONS = ("anger", "love", "sadness", "neutral")
QUESTIONS = ("Art (image+title): ", "ImageOnly: ", "TitleOnly: ")
META = ("ID", "Style", "Category", "Artist", "Title", "Year")


def table(*rows: Mapping[str, str], more: tuple[str, ...] = (), end: str = "\r\n") -> str:
    """The rating table; shares that a row does not name are 0."""
    header = [*META, *more, *(question + emotion for question in QUESTIONS for emotion in EMOTIONS)]
    lines = [[row.get(name, "0") for name in header] for row in rows]
    return end.join("\t".join(line) for line in [header, *lines]) + end


def work(**cells: str) -> dict[str, str]:
    known = {"ID": ID, "Style": "Modern Art", "Category": "Cubism", "Artist": "A. Painter ", "Year": "1893"}
    return {**known, "Title": "4-Apr", "Art (image+title): love": "0.6", "ImageOnly: anger": "0.7", **cells}


def info(**cells: str) -> str:
    row = {**work(), "Title": "4 April", "Image URL": "https://uploads1.wikiart.org/images/a.jpg", **cells}
    names = ("ID", "Category", "Artist", "Title", "Year", "Image URL")
    return "\r\n".join(["\t".join(names), "\t".join(row[name] for name in names)]) + "\r\n"


@pytest.fixture
def grow(plant: Callable[..., Path], image: Callable[..., bytes]) -> Callable[..., Path]:
    """Plant the image of one work and the tables given."""

    def call(files: Mapping[str, bytes | str]) -> Path:
        return plant({f"images/{ID}.jpg": image(1), **files})

    return call


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wikiart") / "tree"
    wikiart_emotions.write_sample(root, np.random.default_rng(0))
    return root


def only(outcome: Any) -> dict[str, Any]:
    (row,) = outcome.rows.values()
    return dict(row)


def test_a_work_has_its_shares_its_url_and_the_title_that_no_spreadsheet_touched(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(grow({ALL: table(work(**{"Art (image+title): sadness": "0.25"})), INFO: info()}))
    row = only(outcome)
    assert (row["source_id"], row["subtype"], row["emotion"], row["agreement"]) == (
        ID,
        "Modern Art",
        "love",
        0.6,
    )
    assert {name: row[f"emotion_{name}"] for name in EMOTIONS} == {
        "anger": 0,
        "love": 0.6,
        "sadness": 0.25,
        "neutral": 0,
    }
    assert row["url"] == "https://uploads1.wikiart.org/images/a.jpg"
    assert row["artist"] == "A. Painter"
    assert row["attribution"] == "A. Painter: 4 April (1893), WikiArt.org"
    extra = json.loads(row["extra"])
    assert (extra["Title"], extra[f"Title ({ALL})"]) == ("4 April", "4-Apr")
    assert (extra["ImageOnly: anger"], extra["TitleOnly: love"]) == ("0.7", "0")
    assert row["valence"] is None
    assert outcome.findings == []


@pytest.mark.parametrize(("variant", "emotion"), [("art", "love"), ("image", "anger"), ("title", None)])
def test_each_question_has_shares_of_its_own(
    variant: str, emotion: str | None, grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(grow({ALL: table(work()), INFO: info()}), variant=variant)
    row, question = only(outcome), QUESTIONS[("art", "image", "title").index(variant)]
    assert row["emotion"] == emotion
    left = {name for name in json.loads(row["extra"]) if name.startswith(QUESTIONS)}
    assert left == {prefix + name for prefix in QUESTIONS if prefix != question for name in EMOTIONS}
    assert question[:-2] in outcome.result.manifest.metadata["title"]


def test_an_unknown_variant(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="no variant 'sound'") as caught:
        take(grow({ALL: table(work())}), variant="sound")
    assert "art, image, title" in caught.value.fix


@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_entities_quotes_and_line_ends(end: str, grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    cells = {"Artist": "Pat O&#39;Quill ", "Title": '"Night, &amp; Day"', "Category": '"Cubism,Realism"'}
    row = only(take(grow({ALL: table(work(**cells), end=end)})))
    assert row["artist"] == "Pat O'Quill"
    assert row["attribution"].startswith("Pat O'Quill: Night, & Day (")
    extra = json.loads(row["extra"])
    assert (extra["Artist"], extra["Category"]) == ("Pat O&#39;Quill", "Cubism,Realism")


def test_urls_of_an_older_release_and_letters_that_no_url_has(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    url = "https://use2-uploads7.wikiart.org/images/caf\u00e9%20noir.jpg"
    outcome = take(grow({ALL: table(work(**{"Image URL": url}), more=("Image URL",))}))
    assert only(outcome)["url"] == "https://uploads7.wikiart.org/images/caf%C3%A9%20noir.jpg"
    assert outcome.findings == []


def test_a_missing_info_table_is_reported(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(grow({ALL: table(work())}))
    assert outcome.findings == ["partial"]
    assert only(outcome)["url"] == wikiart_emotions.INFO.url


def test_equal_shares_have_no_dominant_emotion_and_are_counted(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    outcome = take(grow({ALL: table(work(**{"Art (image+title): anger": "0.6"})), INFO: info()}))
    assert (only(outcome)["emotion"], only(outcome)["agreement"]) == (None, None)
    assert outcome.findings == ["undecided"]


@pytest.mark.parametrize("cell", ["1.2", "-0.1", "many", ""])
def test_an_invalid_share_rejects_the_image(
    cell: str, plant: Callable[..., Path], take: Callable[..., Any], image: Callable[..., bytes]
) -> None:
    second = "0" * 24
    rows = table(work(**{"Art (image+title): love": cell}), work(ID=second))
    outcome = take(plant({ALL: rows, f"{ID}.jpg": image(1), f"{second}.jpg": image(2)}))
    assert outcome.reasons == {f"{ID}.jpg": "bad_rating"}
    assert ALL in outcome.details[f"{ID}.jpg"]


def test_tables_in_a_folder_of_their_own(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    names = {f"WikiArt-Emotions/{name}": text for name, text in ((ALL, table(work())), (INFO, info()))}
    more = {"WikiArt-Emotions/README.txt": "old", "WikiArt-Emotions/WikiArt-annotations.csv": "a\n"}
    outcome = take(grow({**names, **more}))
    assert outcome.result.counts == {"kept": 1, "merged": 0, "annotation": 4, "junk": 0, "rejected": 0}
    assert outcome.findings == ["unread_table"]


def test_shares_are_in_no_other_table(grow: Callable[..., Path], take: Callable[..., Any]) -> None:
    with pytest.raises(SourceError, match="only this table has the shares") as caught:
        take(grow({AG4: table(work())}))
    assert AG4 in caught.value.where


def test_an_empty_table_is_not_reported_as_missing(
    grow: Callable[..., Path], take: Callable[..., Any]
) -> None:
    with pytest.raises(SourceError, match=f"{ALL} has no column"):
        take(grow({ALL: ""}), source="wikiart_emotions")


def test_the_sample_has_the_quirks_of_the_real_tables(sample: Path, take: Callable[..., Any]) -> None:
    outcome = take(sample)
    assert outcome.findings == ["unread_table", "unrated", "undecided"]
    assert Counter(outcome.reasons.values()) == {"missing_image": 1}
    data = (sample / ALL).read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == 42
    header, rows = parse_delimited(data, "\t", ALL)
    assert len(header) == 69
    at = [place for place, name in enumerate(header) if ": " in name and not name.endswith("neutral")]
    chosen = parse_delimited((sample / AG4).read_bytes(), "\t", AG4)[1]
    for row, ag4 in zip(rows, chosen, strict=True):
        assert [ag4[place] == "1" for place in at] == [float(row[place]) >= 0.4 for place in at]
    artists = [row["artist"] for row in outcome.rows.values()]
    assert "Pat O'Quill" in artists and not any("&#" in artist for artist in artists)
    assert any("caf%C3%A9" in row["url"] for row in outcome.rows.values())


def test_the_packaged_recipe_plans_the_sample(sample: Path, take: Callable[..., Any]) -> None:
    manifest = load_manifest(take(sample).result.manifest.path)
    recipe = read_recipe(packaged_recipes() / "wikiart_quadrants.yaml")
    rows, plan = plan_release([manifest], [], recipe)
    labels = Counter(add_labels(manifest.table, recipe.labels)["label"].drop_null().to_pylist())
    assert Counter(rows["label"].to_pylist()) == labels
    assert {"Calm", "Euphoric", "Calm+Euphoric"} <= labels.keys() and "Melancholy" not in labels
    assert set(rows["split"].to_pylist()) == {"train", "val", "test"}
    assert {row.bin for row in plan.bins} == labels.keys()
