"""Labels of a table on images of other sources: CAP-D's columns by title or map, earlier labels kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow as pa
import pytest

from affectdata.errors import SourceError, UsageError
from affectdata.manifest.ingest import IngestResult, ingest
from affectdata.manifest.manifest import Manifest, load_manifest
from affectdata.manifest.overlay import overlay
from affectdata.plan.planner import plan_release
from affectdata.reading.protocol import ReadOptions
from affectdata.recipe.recipe import packaged_recipes, read_recipe
from affectdata.schema import FOLD
from affectdata.sources import capd
from affectdata.splits.folds import put_folds
from affectdata.store.chunks import STREAM_ROWS
from tests.made import image_id, make_manifest, make_rows

HEADER = "Image ID,Database,Category,Agreement,Intensity,Arousal"
MAP = """\
name: capd
table: capd.csv
key: Image ID
file: "{Database}/{key}"
scales: {arousal: [1, 9]}
columns: {emotion: Category, agreement: Agreement, arousal: Arousal}
emotions: {joy: Joy, fear: Fear}
"""


@pytest.fixture
def bases() -> list[Manifest]:
    """Manifests of two databases; one has ratings."""
    gaped = make_rows(
        [
            {
                "key": "N001",
                "group": "N002",
                "valence": 50.0,
                "arousal": 20.0,
                "arousal_sd": 4.0,
                "split": "test",
            },
            {"key": "N002", "group": "N002", "split": "test", "extra": '{"Internal norms":"3"}'},
            {"key": "Sn001"},
        ]
    )
    iaps = make_rows(
        [{"key": "1050", "source": "iaps"}, {"key": "2375.1", "source": "iaps", "emotion": "awe"}]
    )
    of_gaped = {"groups": ["theme"], "source": "gaped", "estimated": ["age"]}
    return [make_manifest(gaped, **of_gaped), make_manifest(iaps, "iaps", subtypes={}, groups=[])]


@pytest.fixture
def put(tmp_path: Path, bases: list[Manifest]) -> Callable[..., IngestResult]:
    """Return a function that writes a table and puts its labels onto both databases."""

    def call(*lines: str, name: str = "capd.csv", **options: Any) -> IngestResult:
        (tmp_path / name).write_text("\n".join([options.pop("header", HEADER), *lines]))
        onto = options.pop("onto", bases)
        return overlay(tmp_path / name, onto, out=tmp_path / "out", **options)

    return call


def by_id(result: IngestResult) -> dict[str, dict[str, Any]]:
    return {row["source_id"]: row for row in result.manifest.table.to_pylist()}


def test_labels_go_onto_images_of_several_databases(put: Callable[..., IngestResult]) -> None:
    result = put("N001,GAPED,Sad,0.62,4.1,5", "2375.1,IAPS,Fear,0.5,3,7", "1050.jpg,iaps,Disgust,0.9,1,2")
    rows = by_id(result)
    labels = {key: (row["source"], row["emotion"], row["agreement"]) for key, row in rows.items()}
    assert labels == {
        "N001": ("gaped", "sadness", 0.62),
        "2375.1": ("iaps", "fear", 0.5),
        "1050": ("iaps", "disgust", 0.9),
    }
    assert json.loads(rows["N001"]["extra"]) == {
        "capd Database": "GAPED",
        "capd Intensity": "4.1",
        "capd Arousal": "5",
    }
    assert json.loads(rows["2375.1"]["extra"])["iaps emotion"] == "awe"
    assert (rows["N001"]["valence"], rows["N001"]["arousal"], rows["N001"]["split"]) == (50.0, 20.0, "test")
    assert result.counts == {"kept": 3, "merged": 0, "annotation": 1, "junk": 0, "rejected": 0}
    assert result.info.evidence == "unverified"
    metadata = load_manifest(result.manifest.path).metadata
    assert metadata["subtypes"]["Sn"]["upright"] is False and metadata["groups"] == ["theme"]


def test_groups_of_the_databases_are_kept(put: Callable[..., IngestResult]) -> None:
    result = put("N001,GAPED,Sad,1,4,5", "N002,GAPED,Fear,1,3,7", "Sn001,GAPED,Fear,1,3,7")
    assert result.manifest.metadata["estimated"] == ["age"]
    rows = by_id(result)
    assert rows["N001"]["group_id"] == rows["N002"]["group_id"] != rows["Sn001"]["group_id"]
    assert json.loads(rows["N002"]["extra"])["Internal norms"] == "3"


def test_rows_that_match_no_image_or_contradict_are_rejects(put: Callable[..., IngestResult]) -> None:
    lines = ["N001,GAPED,Sad,1,4,5", "N999,GAPED,Sad,1,4,5", "N002,NAPS,Sad,1,4,5"]
    result = put(*lines, "1050,IAPS,Sad,1,4,5", "1050,IAPS,Fear,1,4,5")
    rejects = {row["path"]: row["reason"] for row in result.rejects.to_pylist()}
    assert rejects == {
        "capd.csv#N999": "missing_image",
        "capd.csv#N002": "missing_image",
        "iaps/1050.jpg": "conflicting_rating",
    }
    assert result.counts["kept"] == 1 and result.counts["rejected"] == 3


def test_percentages_are_shares(put: Callable[..., IngestResult]) -> None:
    rows = by_id(put("N001,GAPED,Sad,62,4,5", "N002,GAPED,Fear,0.5,3,7"))
    assert (rows["N001"]["agreement"], rows["N002"]["agreement"]) == (0.62, 0.005)


def test_a_workbook_with_other_column_titles(tmp_path: Path, bases: list[Manifest]) -> None:
    book = openpyxl.Workbook()
    book.active.append(
        ["Image", "Original database", "Dominant category", "Agreement on category", "Agreement SD"]
    )
    book.active.append(["N001", "GAPED", "Fear", 0.7, 0.1])
    book.save(tmp_path / "CAP-D norms.xlsx")
    (row,) = overlay(tmp_path / "CAP-D norms.xlsx", bases, out=tmp_path / "out").manifest.table.to_pylist()
    assert (row["emotion"], row["agreement"]) == ("fear", 0.7)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Image,Database,Agreement", "no column for the category"),
        ("Image,Category,Agreement", "no column for the database"),
        ("Image,Image file,Database,Category", "2 for the image: Image, Image file"),
    ],
)
def test_ambiguous_titles_require_a_map(header: str, message: str, put: Callable[..., IngestResult]) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        put("N001,GAPED,Fear", header=header)
    assert "--map" in caught.value.fix and "'Image'" in caught.value.where


def test_one_database_needs_no_column_for_it(put: Callable[..., IngestResult], bases: list[Manifest]) -> None:
    result = put("N001,Fear", header="Image,Category", onto=bases[:1])
    assert by_id(result)["N001"]["emotion"] == "fear"


def test_a_map_gives_arousal_its_scale_and_shares_for_every_category(
    tmp_path: Path, put: Callable[..., IngestResult]
) -> None:
    """Replaced labels are kept in `extra`, with their spread."""
    (tmp_path / "columns.yaml").write_text(MAP)
    options = ReadOptions(map_path=tmp_path / "columns.yaml")
    result = put(
        "N001,GAPED,Fear,0.6,4,7,0.4,0.6", header=f"{HEADER},Joy,Fear", options=options, source="capd"
    )
    (row,) = load_manifest(result.manifest.path).table.to_pylist()
    assert (row["arousal"], row["arousal_raw"], row["arousal_min"], row["arousal_sd"]) == (
        75.0,
        7.0,
        1.0,
        None,
    )
    assert (row["emotion_joy"], row["emotion_fear"]) == (0.4, 0.6)
    extra = json.loads(row["extra"])
    assert (extra["gaped arousal"], extra["gaped arousal_sd"], extra["capd Intensity"]) == (
        "20.0",
        "4.0",
        "4",
    )


def map_of(tmp_path: Path, columns: str) -> dict[str, Any]:
    """Return the options for a table of `gaped` images with these columns."""
    spec = "{name: mine, table: norms.csv, key: Key, file: 'gaped/{key}', columns: {%s}}"
    (tmp_path / "columns.yaml").write_text(spec % columns)
    options = ReadOptions(map_path=tmp_path / "columns.yaml")
    return {"name": "norms.csv", "source": "table", "options": options}


def test_labels_that_the_table_does_not_have_are_kept(
    put: Callable[..., IngestResult], tmp_path: Path
) -> None:
    """An emotion, its shares and the agreement are kept or replaced together."""
    row = {"key": "N001", "emotion": "awe", "agreement": 0.7, "emotion_awe": 0.7, "split": "train"}
    base = put_folds(make_rows([row], ["awe", "fear"]), pa.array([1], FOLD.type))
    onto = [make_manifest(base, emotions=["awe", "fear"], groups=[])]
    result = put("N001,sea", header="Key,Theme", onto=onto, **map_of(tmp_path, "theme: Theme"))
    (row,) = load_manifest(result.manifest.path).table.to_pylist()
    kept = {name: row[name] for name in ("emotion", "agreement", "emotion_awe", "split")}
    assert kept == {"emotion": "awe", "agreement": 0.7, "emotion_awe": 0.7, "split": "train"}
    assert (row["theme"], row["fold"], row["extra"]) == ("sea", 1, "{}")
    result = put("N001,Joy", header="Key,Word", onto=onto, **map_of(tmp_path, "emotion: Word"))
    (row,) = load_manifest(result.manifest.path).table.to_pylist()
    assert (row["emotion"], row["agreement"], row["fold"]) == ("joy", None, 1)
    assert result.manifest.metadata["emotions"] == []
    assert json.loads(row["extra"]) == {
        "gaped emotion": "awe",
        "gaped agreement": "0.7",
        "gaped emotion_awe": "0.7",
    }


def test_a_fold_goes_with_the_split(put: Callable[..., IngestResult], tmp_path: Path) -> None:
    base = make_rows([{"key": "N001", "split": "train"}, {"key": "N002", "split": "train"}])
    onto = [make_manifest(put_folds(base, pa.array([1, 0], FOLD.type)), groups=[])]
    options = map_of(tmp_path, "split: Split")
    rows = by_id(put("N001,test", "N002,train", header="Key,Split", onto=onto, **options))
    assert {key: (row["split"], row["fold"]) for key, row in rows.items()} == {
        "N001": ("test", None),
        "N002": ("train", 0),
    }


def test_the_same_image_in_two_databases_is_one_row(
    put: Callable[..., IngestResult], bases: list[Manifest]
) -> None:
    again = make_manifest(
        make_rows([{"key": "N001", "source": "naps", "source_id": "Other_1"}]), "naps", groups=[]
    )
    result = put("N001,GAPED,Sad,1,4,5", "Other_1,NAPS,Fear,1,4,5", onto=[*bases, again])
    assert (result.counts["kept"], result.counts["merged"], result.counts["rejected"]) == (1, 1, 0)
    assert result.rejects["reason"].to_pylist() == ["exact_duplicate"]


def test_a_table_without_matching_images(
    put: Callable[..., IngestResult], tmp_path: Path, bases: list[Manifest]
) -> None:
    with pytest.raises(SourceError, match=r"no row of .* matches an image of gaped, iaps"):
        put("N999,GAPED,Sad,1,4,5")
    with pytest.raises(SourceError, match="is not a file"):
        overlay(tmp_path, bases)
    assert not (tmp_path / "out").exists()


def test_the_fix_follows_the_most_frequent_reason(
    put: Callable[..., IngestResult], tmp_path: Path, bases: list[Manifest]
) -> None:
    with pytest.raises(SourceError, match="no row of") as caught:
        put("N999,GAPED,Sad,1,4,5")
    assert "give the manifests of the images" in caught.value.fix
    options = map_of(tmp_path, "valence: V}, scales: {valence: [1, 9]")
    with pytest.raises(SourceError, match="no row of") as caught:
        put("N001,70", "N002,33", "N999,5", header="Key,V", onto=bases, **options)
    assert "`scales` of the column map" in caught.value.fix


def test_an_unknown_table(put: Callable[..., IngestResult], tmp_path: Path) -> None:
    line = "N001,GAPED,Sad,1,4,5"
    with pytest.raises(SourceError, match=r"no source recognises the table norms\.txt") as caught:
        put(line, name="norms.txt")
    assert "--source capd" in caught.value.fix
    assert put(line, name="norms.txt", source="capd").counts["kept"] == 1
    with pytest.raises(UsageError, match="capd does not take --name"):
        put(line, options=ReadOptions(name="mine"))
    (tmp_path / "columns.yaml").write_text(
        "{name: mine, table: norms.txt, key: Image ID, file: 'gaped/{key}', columns: {emotion: Category}}"
    )
    options = ReadOptions(map_path=tmp_path / "columns.yaml")
    assert by_id(put(line, name="norms.txt", source="table", options=options))["N001"]["emotion"] == "sadness"


def test_a_table_among_folders_suggests_onto(tmp_path: Path) -> None:
    (tmp_path / "capd.csv").write_text(HEADER + "\nN001,GAPED,Sad,1,4,5")
    (tmp_path / "gaped").mkdir()
    (tmp_path / "gaped" / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match="no image of") as caught:
        ingest(tmp_path, source="capd", out=tmp_path / "out")
    assert "--onto" in caught.value.fix


def test_a_table_alone_is_recognised_and_suggests_onto(tmp_path: Path) -> None:
    (tmp_path / "CAPD_norms.csv").write_text(HEADER)
    with pytest.raises(UsageError, match="no images of its own") as caught:
        ingest(tmp_path)
    assert "--onto" in caught.value.fix


def test_a_manifest_of_another_folder_is_not_replaced(
    put: Callable[..., IngestResult], tmp_path: Path
) -> None:
    put("N001,GAPED,Sad,1,4,5")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UsageError, match="made from another folder"):
        put("N002,GAPED,Sad,1,4,5", name="elsewhere/capd.csv")
    assert put("N002,GAPED,Sad,1,4,5", name="elsewhere/capd.csv", replace=True).counts["kept"] == 1


def test_the_manifest_of_the_images_is_not_replaced(put: Callable[..., IngestResult]) -> None:
    first = put("N001,GAPED,Sad,1,4,5", "N002,GAPED,Joy,1,4,5").manifest
    for replace in (False, True):
        with pytest.raises(UsageError, match="whose images without a row in the table would be lost"):
            put("N001,GAPED,Joy,1,4,5", onto=[first], replace=replace)
    assert len(load_manifest(first.path).table) == 2


def test_the_command_and_the_packaged_recipe_on_the_sample(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are read from the folder of their own source, even with manifests in another folder."""
    monkeypatch.chdir(tmp_path)
    capd.write_sample(Path("c"), np.random.default_rng(0))
    assert cli("ingest", "c/gaped", "--out", "base").code == 0
    ran = cli("ingest", "c/capd.csv", "--onto", "base/gaped.parquet")
    assert ran.code == 0 and "unverified" in ran.err
    assert "15 seen: 12 kept, 0 merged, 1 annotation, 0 junk, 2 rejected" in ran.out
    manifest = load_manifest("manifests/capd.parquet")
    rows, plan = plan_release([manifest], [], read_recipe(packaged_recipes() / "capd_top6.yaml"))
    assert min(rows["agreement"].to_pylist()) > 0.5
    assert {target.bin for target in plan.bins} <= {"disgust", "fear", "happiness", "sadness"}
    ran = cli("balance", "--recipe", "capd_top6", "--manifest", "manifests/capd.parquet")
    assert ran.code == 0


def test_many_labels_are_put_on_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No manifest is read as a whole; every image gets the labels of its own row."""
    n = 2 * STREAM_ROWS + 10
    rows = make_rows([{"key": str(k), "arousal": float(k % 90), "emotion": f"e{k}"} for k in range(n)])
    base = make_manifest(rows.sort_by("image_id"), groups=[], source="gaped", estimated=[])
    lines = [f"{k},gaped,{('Joy', 'Fear')[k % 4 // 2]},.5,1,3" for k in reversed(range(0, n, 2))]
    (tmp_path / "capd.csv").write_text("\n".join([HEADER, *lines]))
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "table", property(lambda self: pytest.fail("read as a whole")))
        result = overlay(tmp_path / "capd.csv", [base], out=tmp_path / "out")
    found = result.manifest.table.to_pylist()
    assert [row["image_id"] for row in found] == sorted(image_id(str(k)) for k in range(0, n, 2))
    for row in found:
        k = int(row["source_id"])
        assert row["image_id"] == image_id(str(k))
        assert (row["emotion"], row["arousal"]) == (("joy", "fear")[k % 4 // 2], k % 90)
        assert json.loads(row["extra"])["gaped emotion"] == f"e{k}"
