"""FI: folders of emotions, votes for and against one emotion each, placeholders instead of photographs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.errors import SourceError
from affectdata.labels import VOCABULARIES
from affectdata.manifest.ingest import recognise
from affectdata.manifest.manifest import load_manifest
from affectdata.plan.planner import plan_release
from affectdata.reading.tree import read_tree
from affectdata.recipe.recipe import packaged_recipes, read_recipe
from affectdata.sources import fi

Plant, Take, Image = Callable[..., Path], Callable[..., Any], Callable[..., bytes]
SITE = "https://farm6.example.org/123"


def votes(*rows: tuple[str, int, int]) -> str:
    """Votes against and for, by file name."""
    return "".join(f"x,{SITE}/{name}?size=m,{against},{agree}\n" for name, against, agree in rows)


def test_an_image_has_an_emotion_if_more_voted_for_than_against(
    plant: Plant, take: Take, image: Image
) -> None:
    files = {f"emotion_dataset/awe/{number}.jpg": image(number) for number in range(4)}
    table = votes(("0.jpg", 1, 4), ("1.jpg", 4, 1), ("2.JPG", 2, 2))
    outcome = take(plant({**files, "agg/awe_1.csv": table}), source="fi")
    rows = [outcome.rows[path] for path in files]
    assert [row["emotion"] for row in rows] == ["awe", None, None, "awe"]
    assert [row["emotion_awe"] for row in rows] == [0.8, 0.2, 0.5, None]
    assert [row["agreement"] for row in rows] == [0.8, None, None, None]
    assert rows[0]["url"] == f"{SITE}/0.jpg?size=m"
    assert json.loads(rows[0]["extra"])["awe first field"] == "x"
    assert outcome.findings == ["partial", "undecided"]


def test_a_photograph_under_several_words_has_the_clearest(plant: Plant, take: Take, image: Image) -> None:
    """With one folder for all images, only names identify them."""
    files = {f"images/{number}.jpg": image(number) for number in range(3)}
    tables = {
        "agg/awe_a.csv": votes(("0.jpg", 1, 4), ("1.jpg", 1, 4)),
        "agg/fear_a.csv": votes(("0.jpg", 2, 3), ("1.jpg", 1, 4)),
    }
    outcome = take(plant({**files, **tables}))
    assert (outcome.rows["images/0.jpg"]["emotion"], outcome.rows["images/0.jpg"]["agreement"]) == (
        "awe",
        0.8,
    )
    assert outcome.rows["images/0.jpg"]["emotion_fear"] == 0.6
    assert outcome.rows["images/1.jpg"]["emotion"] is None
    assert outcome.reasons == {"images/2.jpg": "missing_rating"}


def test_votes_count_for_the_folder_of_their_emotion_only(plant: Plant, take: Take, image: Image) -> None:
    files = {"emotion_dataset/awe/0.jpg": image(0), "emotion_dataset/fear/0.jpg": image(1)}
    rows = take(plant({**files, "agg/awe_a.csv": votes(("0.jpg", 1, 4))})).rows
    assert rows["emotion_dataset/awe/0.jpg"]["agreement"] == 0.8
    assert rows["emotion_dataset/fear/0.jpg"]["emotion"] == "fear"
    assert rows["emotion_dataset/fear/0.jpg"]["agreement"] is None


def test_votes_find_an_image_in_the_folder_of_another_emotion(plant: Plant, take: Take, image: Image) -> None:
    """The archive has a photograph once, and the votes have it under every word that found it."""
    files = {f"emotion_dataset/fear/{number}.jpg": image(number) for number in range(4)}
    tables = {
        "agg/awe_a.csv": votes(("0.jpg", 1, 4), ("1.jpg", 4, 1), ("2.jpg", 2, 3)),
        "agg/fear_a.csv": votes(("0.jpg", 2, 3), ("3.jpg", 0, 5)),
    }
    outcome = take(plant({**files, **tables}))
    rows = [outcome.rows[path] for path in files]
    assert [(row["emotion"], row["emotion_awe"], row["emotion_fear"]) for row in rows] == [
        ("awe", 0.8, 0.6),
        ("fear", 0.2, None),  # voted against awe, and nobody voted on its folder's emotion
        ("awe", 0.6, None),
        ("fear", None, 1.0),
    ]
    assert outcome.reasons == {}


def test_votes_for_a_name_in_the_folders_of_two_other_emotions_are_a_reject(
    plant: Plant, take: Take, image: Image
) -> None:
    files = {f"emotion_dataset/{word}/0.jpg": image(at) for at, word in enumerate(("fear", "anger"))}
    outcome = take(plant({**files, "agg/awe_a.csv": votes(("0.jpg", 1, 4))}))
    assert outcome.reasons == {f"agg/awe_a.csv#{SITE}/0.jpg?size=m": "bad_name"}
    assert {row["emotion"] for row in outcome.rows.values()} == {"fear", "anger"}


@pytest.mark.parametrize("bad", [("0.jpg", -1, 4), ("0.jpg", 0, 0)])
def test_invalid_votes_give_no_label(
    bad: tuple[str, int, int], plant: Plant, take: Take, image: Image
) -> None:
    files = {"emotion_dataset/awe/0.jpg": image(0), "emotion_dataset/awe/1.jpg": image(1)}
    outcome = take(plant({**files, "agg/awe_a.csv": votes(bad)}))
    assert outcome.reasons == {"emotion_dataset/awe/0.jpg": "bad_rating"}


def test_votes_that_differ_reject_the_image_once(plant: Plant, take: Take, image: Image) -> None:
    files = {"images/0.jpg": image(0), "images/1.jpg": image(1)}
    twice = votes(("0.jpg", 1, 4), ("0.jpg", 0, 5), ("1.jpg", 1, 4), ("1.jpg", 1, 4))
    outcome = take(plant({**files, "agg/awe_a.csv": twice, "agg/fear_a.csv": twice}))
    assert outcome.reasons == {"images/0.jpg": "conflicting_rating"}
    assert outcome.findings == ["repeated_row", "undecided"]
    assert outcome.result.findings[0].text.startswith("2 images have identical rows: ")


def test_an_image_with_three_names_is_a_placeholder_and_one_with_two_is_not(
    plant: Plant, take: Take, image: Image
) -> None:
    """The same name in two folders is one photograph found by two words."""
    notice, shared = image(8), image(9)
    files = {
        f"emotion_dataset/{emotion}/{at}.jpg": notice for at, emotion in enumerate(("awe", "fear", "fear"))
    }
    again = {"emotion_dataset/awe/a.jpg": shared, "emotion_dataset/fear/a.jpg": shared}
    outcome = take(plant({**files, **again, "emotion_dataset/fear/b.jpg": shared}), source="fi")
    assert Counter(outcome.reasons.values()) == {"placeholder": 3, "exact_duplicate": 2}
    assert "3 file names" in outcome.details["emotion_dataset/awe/0.jpg"]
    assert outcome.result.counts["merged"] == 2


def test_other_sources_keep_images_with_many_names(plant: Plant, take: Take, image: Image) -> None:
    files = {f"{emotion}/{at}.jpg": image(8) for emotion in ("awe", "fear") for at in range(3)}
    outcome = take(plant({**files, "awe/x.jpg": image(1)}))
    assert set(outcome.reasons.values()) == {"exact_duplicate"}


def test_images_in_folders_without_votes_are_counted(plant: Plant, take: Take, image: Image) -> None:
    outcome = take(plant({"awe/0.jpg": image(0), "fear/1.jpg": image(1)}), source="fi")
    assert {path: row["emotion"] for path, row in outcome.rows.items()} == {
        "awe/0.jpg": "awe",
        "fear/1.jpg": "fear",
    }
    assert "no votes" in outcome.result.findings[0].text


def test_lists_of_names_or_addresses_label_images_without_votes(
    plant: Plant, take: Take, image: Image
) -> None:
    files = {f"images/{number}.jpg": image(number) for number in range(4)}
    lists = {
        "awe.txt": f"./FI/awe/0.jpg\r\n{SITE}/1.jpg\r\nawe\\2.jpg\r\nawe/3.jpg\r\n\r\nawe/gone.jpg",
        "fear.txt": "fear/1.jpg\nfear/3.jpg\n",
        "sadness.txt": "a list of words\n",  # no image: not of FI
    }
    outcome = take(plant({**files, **lists, "agg/awe_a.csv": votes(("3.jpg", 1, 4))}), source="fi")
    rows = outcome.rows
    assert [(path, rows[path]["emotion"], rows[path]["agreement"]) for path in sorted(rows)] == [
        ("images/0.jpg", "awe", None),
        ("images/2.jpg", "awe", None),
        ("images/3.jpg", "awe", 0.8),  # in two lists, but voted on
    ]
    assert outcome.reasons == {
        "images/1.jpg": "conflicting_rating",
        "awe.txt#awe/gone.jpg": "missing_image",
        "sadness.txt": "junk",
    }
    assert "listed under awe and fear" in outcome.details["images/1.jpg"]
    assert json.loads(rows["images/0.jpg"]["extra"]) == {"awe listed as": "./FI/awe/0.jpg"}


def test_lists_alone_are_recognised_and_give_addresses(plant: Plant, image: Image) -> None:
    lists = {"awe.txt": f"{SITE}/1.jpg\n{SITE}/2.jpg?size=m\n", "fear.txt": f"{SITE}/3.jpg\nfear/4.jpg\n"}
    root = plant({**lists, "amusement/1.jpg": image(1)})
    tree = read_tree(root)
    assert recognise(tree) == ("fi", "image names in awe.txt")
    assert [(link.path, link.url.rpartition("/")[2]) for link in fi.find_links(tree, fi.ReadOptions())] == [
        ("amusement/1.jpg", "1.jpg"),
        ("images/2.jpg", "2.jpg?size=m"),
        ("images/3.jpg", "3.jpg"),
    ]
    (root / "fear.txt").unlink()
    assert fi.detect(read_tree(root)) is None  # one list may be anybody's


def test_eight_folders_are_fi_only_under_their_name(plant: Plant, image: Image) -> None:
    words = VOCABULARIES["mikels8"].emotions
    files = {f"{word}/{number}.jpg": image(number) for number, word in enumerate(words)}
    inner = plant(files, "emotion_dataset")
    assert recognise(read_tree(inner))[0] == "fi"
    assert recognise(read_tree(plant(files, "elsewhere")))[0] == "image_folder"
    with pytest.raises(SourceError, match="no image folders named after emotions"):
        fi.read(read_tree(plant({"a/1.jpg": image(1)}, "other")), fi.ReadOptions())


def test_the_packaged_recipe_plans_the_sample(tmp_path: Path, take: Take) -> None:
    fi.write_sample(tmp_path / "tree", np.random.default_rng(0))
    outcome = take(tmp_path / "tree")
    assert Counter(outcome.reasons.values()) == {"placeholder": 4, "missing_image": 1, "junk": 1}
    assert outcome.result.info.evidence == "unverified"
    manifest = load_manifest(outcome.result.manifest.path)
    rows, plan = plan_release([manifest], [], read_recipe(packaged_recipes() / "fi_mikels8.yaml"))
    assert len(rows) == 34 and {row.bin for row in plan.bins} == set(VOCABULARIES["mikels8"].emotions)
