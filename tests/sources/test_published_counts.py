"""Counts that were published of whole collections, on generated tables of that size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from affectdata.plan.labelling import add_labels
from affectdata.reading.protocol import Item, ReadOptions
from affectdata.reading.tree import Tree, read_tree
from affectdata.recipe.recipe import Labels
from affectdata.records import Record, Reject
from affectdata.registry import load_plugin

pytestmark = pytest.mark.slow

Plant = Callable[..., Path]
ARTPHOTO = {
    "amusement": 101,
    "anger": 77,
    "awe": 102,
    "contentment": 70,
    "disgust": 70,
    "excitement": 105,
    "fear": 115,
    "sadness": 166,
}
ABSTRACT = {  # paintings of which one emotion has most votes
    "amusement": 25,
    "anger": 3,
    "awe": 15,
    "contentment": 64,
    "disgust": 18,
    "excitement": 36,
    "fear": 36,
    "sadness": 32,
}
EMOTIONS = (
    *("agreeableness", "anger", "anticipation", "arrogance", "disagreeableness", "disgust", "fear"),
    *("gratitude", "happiness", "humility", "love", "optimism", "pessimism", "regret", "sadness", "shame"),
    *("shyness", "surprise", "trust", "neutral"),
)
FER_SPLITS = {"Training": 28_709, "PublicTest": 3_589, "PrivateTest": 3_589}


def read(source: str, root: Path, images: Iterable[str] = (), **options: Any) -> list[Item]:
    """Return the items of a source for the tables under a root, and images that exist by name only."""
    files = read_tree(root).files if root.is_dir() else ()
    plugin = load_plugin("sources", source)
    tree = Tree(root, tuple(sorted([*files, *images])))
    assert plugin.detect(tree)
    return list(plugin.read(tree, ReadOptions(**options)).items)


def records(items: list[Item]) -> list[Record]:
    return [item for item in items if isinstance(item, Record)]


def test_artphoto_806(tmp_path: Path) -> None:
    words = {**ARTPHOTO, "sad": ARTPHOTO["sadness"]}
    del words["sadness"]
    names = [f"a/{word}_{number:04d}.jpg" for word, n in words.items() for number in range(n)]
    kept = records(read("artphoto", tmp_path / "none", names))
    assert len(kept) == 806
    assert Counter(record.emotion for record in kept) == ARTPHOTO


def test_abstract_229_untied_of_280(plant: Plant) -> None:
    header = ("", "Amusement", "Anger", "Awe", "Content", "Disgust", "Excitement", "Fear", "Sad")
    votes = [
        [7 * (at == most) + 1 for at in range(8)]
        for most, n in enumerate(ABSTRACT.values())
        for _ in range(n)
    ]
    votes += [[5, 5, 4, 0, 0, 0, 0, 0]] * (280 - len(votes))
    names = [f"abstract_{number:04d}.jpg" for number in range(280)]
    lines = [header, *([name, *row] for name, row in zip(names, votes, strict=True))]
    table = "\n".join(",".join(f"'{cell}'" for cell in line) for line in lines)
    kept = records(read("abstract", plant({"ABSTRACT_groundTruth.csv": table}), names))
    counts = Counter(record.emotion for record in kept)
    assert counts.pop(None) == 51 and counts.total() == 229
    assert counts == ABSTRACT


def test_ferplus_35887_of_which_173_have_no_name(plant: Plant) -> None:
    """And 3 with a name are no face to any rater; one row has nine votes."""
    uses = [use for use, n in FER_SPLITS.items() for _ in range(n)]
    votes = ["Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"]
    for number, use in enumerate(uses):
        name = "" if number % 207 == 206 else f"fer{number:07d}.png"
        no_face = not name or number in (3, 30_000, 35_000)
        cells = "0,0,0,0,0,0,0,0,0,10" if no_face else f"{4 if number == 10_435 else 5},0,0,3,0,0,0,0,2,0"
        votes.append(f"{use},{name},{cells}")
    pixels = ["emotion,pixels,Usage", *(f"4,0 1 2,{use}" for use in uses)]
    root = plant({"fer2013.csv": "\n".join(pixels), "fer2013new.csv": "\n".join(votes)})
    items = read("ferplus", root)
    rejects = [item for item in items if isinstance(item, Reject)]
    kept = records(items)
    assert (len(kept) + len(rejects), len(rejects)) == (35_887, 173 + 3)
    assert {record.emotion for record in kept} == {"neutral"}
    assert [record.agreement for record in kept if record.source_id == "10435"] == [round(4 / 9, 9)]
    assert Counter(record.split for record in kept).keys() == {"train", "val", "test"}


@pytest.mark.parametrize(("variant", "unlabelled"), [("art", 823), ("image", 929), ("title", 1332)])
def test_wikiart_emotions_4105_and_those_without_a_label(variant: str, unlabelled: int, plant: Plant) -> None:
    """An emotion at 0.4 or more is a label of the authors' Ag4; so many works have none, by question."""
    ids = [f"{number:024x}" for number in range(4119)]
    prefixes = {"Art (image+title): ": 823, "ImageOnly: ": 929, "TitleOnly: ": 1332}
    header = [
        "ID",
        "Style",
        "Artist",
        "Title",
        "Year",
        *(prefix + word for prefix in prefixes for word in EMOTIONS),
    ]
    lines = []
    for number, work in enumerate(ids[:4105]):
        shares = [[0.4 if number >= n else 0.399] + [0.0] * 19 for n in prefixes.values()]
        cells = [work, "Modern Art", "A", '"Harbour, at Night"', "1893"]
        lines.append("\t".join([*cells, *(f"{share:g}" for row in shares for share in row)]))
    works = [f"{work}\tHarbour\thttps://uploads0.wikiart.org/{work}.jpg" for work in ids]
    root = plant(
        {
            "WikiArt-Emotions-All.tsv": "\r\n".join(["\t".join(header), *lines]),
            "WikiArt-info.tsv": "\r\n".join(["ID\tTitle\tImage URL", *works]),
        }
    )
    items = read("wikiart_emotions", root, [f"{work}.jpg" for work in ids[:4105]], variant=variant)
    kept = records(items)
    assert len(kept) == 4105
    (unrated,) = [item.text for item in items if getattr(item, "kind", "") == "unrated"]
    assert unrated.startswith("in WikiArt-info.tsv, but not rated (14): ") and " and 11 more" in unrated
    table = pa.table({f"emotion_{word}": [record.emotions[word] for record in kept] for word in EMOTIONS})
    assert add_labels(table, Labels(at_least=0.4))["label"].null_count == unlabelled


def test_findingemo_25869_rows_of_two_runs(plant: Plant) -> None:
    """Two names occur in both runs."""
    names = [
        f"Run_{1 + number % 2}/Happy adults park {number // 50}/{number}.jpg" for number in range(25_867)
    ]
    names += [name.replace("Run_1", "Run_2") for name in names[:4:2]]
    header = "index,user,image_path,tags,age,valence,arousal,emotion,dec_factors,ambiguity,datetime"
    lines = [f"{at},u,/{name},x,Adults,{at % 7 - 3},{at % 7},Joy,x,0,x" for at, name in enumerate(names[:-2])]
    lines += [f"9,u,/{names[-2]},x,Adults,-3,6,Grief,x,0,x", f"9,u,/{names[-1]},x,Adults,-3,6,Grief,x,0,x"]
    root = plant({"data/annotations_single.ann": "\n".join([header, *lines])})
    found = read("findingemo", root, [f"images/{name}" for name in names])
    kept = {record.path: record.emotion for record in records(found)}
    assert len(names) == len(kept) == 25_869 and not any(isinstance(item, Reject) for item in found)
    assert [path for path, word in kept.items() if word == "grief"] == [f"images/{n}" for n in names[-2:]]
