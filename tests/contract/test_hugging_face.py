"""Hugging Face `datasets` gives the real splits of releases and exports, with every column, or an error."""

from __future__ import annotations

import gc
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from affectdata.errors import InputError, UsageError
from affectdata.exports import hf, webdataset
from affectdata.exports._write import export_release
from affectdata.release.card import data_card, front_matter
from affectdata.release.release import Release, open_release
from affectdata.release.terms import combine_terms
from affectdata.release.verify import check_release
from affectdata.store.parquet import read_table, write_table
from tests.made import contents, forge, publish, reseal

pytestmark = pytest.mark.slow  # most of the time is for what the tests share

NAMES = {"train": "train", "val": "validation", "test": "test"}
Splits = dict[str, list[dict[str, Any]]]
Load = Callable[..., Splits]


@pytest.fixture(scope="module", params=["files", "virtual"])
def made(
    request: pytest.FixtureRequest, small_gaped: Path, tmp_path_factory: pytest.TempPathFactory
) -> Release:
    """A release. Not to be written to."""
    out = tmp_path_factory.mktemp(request.param)
    return open_release(publish(small_gaped, out, mode=request.param).path, {"gaped": small_gaped})


@pytest.fixture(scope="module")
def files(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release with files. Not to be written to."""
    return open_release(publish(small_gaped, tmp_path_factory.mktemp("files")).path)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """`datasets.load_dataset` without a network connection or kept files; returns the rows of every split."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / ".home"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, about its own dependencies
        import datasets

        datasets.disable_progress_bars()

        def load(*arguments: Any, **options: Any) -> Splits:
            options = {"cache_dir": str(tmp_path / ".cache"), **options}
            found = datasets.load_dataset(*arguments, **options)
            return {split: list(rows.remove_columns(_images(rows))) for split, rows in found.items()}

        yield load
        gc.collect()  # closes the tables that `datasets` leaves open, while its warnings are ignored


def _images(rows: Any) -> list[str]:
    return [name for name in ("image", "jpg", "png") if name in (rows.column_names or [])]


def labels_of(release: Release) -> dict[str, list[tuple[Any, ...]]]:
    return labels({theirs: release.split(ours).to_pylist() for ours, theirs in NAMES.items()})


def labels(found: Splits) -> dict[str, list[tuple[Any, ...]]]:
    return {
        split: sorted((row["sample_id"], row["split"], row["valence"]) for row in rows)
        for split, rows in found.items()
    }


# --- releases --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("card", ["with_card", "without_card"])
def test_a_release_gives_its_splits_and_never_mixes_them(
    made: Release, load: Load, tmp_path: Path, card: str, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "train-test" / "val-1"  # names that look like those of splits
    shutil.copytree(made.path, folder)
    if card == "without_card":
        (folder / "README.md").unlink()
    expected = labels_of(made)
    monkeypatch.chdir(folder.parent)
    for path in (str(folder), folder.name, f"./{folder.name}"):
        assert labels(load(path, streaming=streaming)) == expected
    (train,) = labels(load(str(folder), data_dir="train", streaming=streaming)).values()
    assert train == expected["train"]
    for builder in ("parquet", "imagefolder", "json", "csv", "text"):
        try:
            found = load(builder, data_dir=str(folder), streaming=streaming)
        except Exception:  # a loader for other files raises its own error
            continue
        assert not any(found.values()) or labels(found) == expected, builder
    if made.is_virtual:  # with files, `manifest.parquet` is the table of all rows, for explicit use
        with pytest.raises(ValueError, match="data_files are invalid"):
            load("parquet", data_files=str(folder / "*.parquet"), streaming=streaming)


def test_a_release_loads_with_the_right_builder_alone(made: Release, load: Load) -> None:
    builder = "parquet" if made.is_virtual else "imagefolder"
    assert labels(load(builder, data_dir=str(made.path))) == labels_of(made)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_release_has_the_features_that_its_card_declares(
    made: Release, load: Load, tmp_path: Path, streaming: bool
) -> None:
    """Categories are ClassLabels; a row without a category, and one without a number, has None."""
    import datasets

    folder = Path(shutil.copytree(made.path, tmp_path / made.name))

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            lacks = row["image_id"] < "8"
            row["emotion"], row["arousal"] = (None, None) if lacks else ("joy", 12.5)

    release = forge(folder, change)
    (folder / "README.md").write_text(data_card(release.info, release.rows), encoding="utf-8")
    found = datasets.load_dataset(str(folder), streaming=streaming, cache_dir=str(tmp_path / ".cache"))
    names = {"emotion": ["joy"], "subtype": sorted(set(release.table["subtype"].to_pylist()))}
    for ours, theirs in NAMES.items():
        features = found[theirs].features
        assert {name: features[name].names for name in names} == names
        assert set(features) - {"image"} == set(release.table.column_names) - (
            set() if made.is_virtual else {"file_name"}
        )
        own = {row["sample_id"]: row for row in release.split(ours).to_pylist()}
        rows = list(found[theirs])
        assert len(rows) == len(own)
        for row in rows:
            expected = own[row["sample_id"]]
            assert (row["valence"], row["arousal"]) == (expected["valence"], expected["arousal"])
            for name in names:
                code = row[name]
                assert (None if code is None else features[name].int2str(code)) == expected[name]


def test_the_card_is_read_and_names_the_licence(made: Release) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from huggingface_hub import DatasetCard

    card = DatasetCard.load(made.path / "README.md")
    assert card.data.license == "other"
    assert card.data.license_name == "cc-by-nc-sa-3.0-research-only-must-not-be-broadcast"
    assert (card.data.pretty_name, card.data.size_categories) == ("made", ["n<1K"])
    assert [item["split"] for item in card.data.configs[0]["data_files"]] == list(NAMES.values())
    assert card.data.task_categories == ["image-classification"]
    assert card.text.lstrip().startswith("# made\n") and "```bibtex\n@article{" in card.text


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["CC BY 4.0"], {"license": "cc-by-4.0"}),
        (["CC0 1.0"], {"license": "cc0-1.0"}),
        (["CC BY 4.0", "CC BY-SA 4.0"], {"license": "other", "license_name": "cc-by-4.0-and-cc-by-sa-4.0"}),
        (["not stated"], {"license": "other", "license_name": "not-stated"}),
    ],
)
def test_a_licence_with_an_spdx_id_is_named_by_it(licenses: list[str], expected: dict[str, str]) -> None:
    info = {"name": "yes", "rows": {"train": 3}, "terms": combine_terms(dict.fromkeys(licenses, 1), True)}
    (_, text, *_) = front_matter(info, {"train": "train/*"})
    document = yaml.safe_load(text)
    assert document["pretty_name"] == "yes"
    assert {key: document[key] for key in document if key.startswith("license")} == expected


def test_a_split_table_of_a_virtual_release_that_differs_is_found(small_gaped: Path, tmp_path: Path) -> None:
    folder = publish(small_gaped, tmp_path, mode="virtual").path
    table, _ = read_table(folder / "train" / "rows.parquet", "metadata")
    write_table(table.slice(1), folder / "train" / "rows.parquet", "metadata")
    reseal(folder)
    (finding,) = check_release(open_release(folder))
    assert finding.text == "train/rows.parquet differs from .affectdata/manifest.parquet"


# --- exports ---------------------------------------------------------------------------------------------


def with_gaps(files: Release, tmp_path: Path) -> Release:
    """The release with words and numbers missing in many ways: in early rows, in a split, in all rows."""
    folder = Path(shutil.copytree(files.path, tmp_path / files.name))

    def change(rows: list[dict[str, Any]]) -> None:
        for at, image_id in enumerate(sorted({row["image_id"] for row in rows})):
            for row in (own for own in rows if own["image_id"] == image_id):
                row["emotion"] = "joy" if row["split"] == "train" and at % 5 == 0 else None
                row["dominance"] = 12.0 if row["split"] == "train" and at % 7 == 0 else None
                row["age"] = 40 if row["split"] == "train" and at % 3 == 0 else None
                row["theme"] = None if row["split"] == "train" else "sea"

    return forge(folder, change)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_webdataset_keeps_every_row_and_column_wherever_values_are_missing(
    files: Release, load: Load, tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = with_gaps(files, tmp_path)
    monkeypatch.setattr(webdataset, "_SHARD", 7)
    export_release(release, "webdataset", tmp_path / "out", may_redistribute=True, workers=1)
    found = load(str(tmp_path / "out"), streaming=streaming)
    hidden = {"file_name", "file_bytes"}
    for ours, theirs in NAMES.items():
        rows = release.split(ours).to_pylist()
        expected = {row["sample_id"]: {k: v for k, v in row.items() if k not in hidden} for row in rows}
        assert {row["__key__"]: row["json"] for row in found[theirs]} == expected
    emotions = {row["json"]["emotion"] for row in found["train"]}
    assert emotions == {"joy", None}


def test_a_webdataset_loads_without_its_card_or_fails_but_drops_nothing(
    files: Release, load: Load, tmp_path: Path
) -> None:
    export_release(files, "webdataset", tmp_path / "whole", may_redistribute=True, workers=1)
    found = load("webdataset", data_dir=str(tmp_path / "whole"))
    assert {split: {len(row["json"]) for row in rows} for split, rows in found.items()} == {
        split: {len(files.table.column_names) - 2} for split in NAMES.values()
    }
    (tmp_path / "gaps").mkdir()
    export_release(with_gaps(files, tmp_path / "gaps"), "webdataset", tmp_path / "out", may_redistribute=True)
    with pytest.raises(Exception, match="generating the dataset") as caught:
        load("webdataset", data_dir=str(tmp_path / "out"))
    assert isinstance(caught.value.__cause__, TypeError)
    assert "to null" in str(caught.value.__cause__)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("card", ["with_card", "without_card"])
def test_shards_of_parquet_have_images_classes_and_nulls(
    files: Release, load: Load, tmp_path: Path, streaming: bool, card: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    release = with_gaps(files, tmp_path)
    monkeypatch.setattr(hf, "_SHARD", 20_000)
    export_release(release, "hf", tmp_path / "out", may_redistribute=True, workers=1)
    assert len(list((tmp_path / "out" / "data").glob("train-*.parquet"))) > 1
    if card == "without_card":
        (tmp_path / "out" / "README.md").unlink()
    options = {"cache_dir": str(tmp_path / ".cache")}
    found = datasets.load_dataset(str(tmp_path / "out"), streaming=streaming, **options)
    features = found["train"].features
    assert features["class"].names == ["negative", "neutral", "positive"]
    assert features["subtype"].names == sorted(set(release.table["subtype"].to_pylist()))
    assert list(found) == list(NAMES.values())
    for ours, theirs in NAMES.items():
        own = {row["sample_id"]: row for row in release.split(ours).to_pylist()}
        rows = list(found[theirs])
        assert {row["sample_id"] for row in rows} == set(own) and len(rows) == len(own)
        for row in rows:
            expected = own[row["sample_id"]]
            assert row["image"].size == (expected["out_width_px"], expected["out_height_px"])
            for name in ("valence", "dominance", "age", "theme", "split"):
                assert row[name] == expected[name]
            for name in ("emotion", "subtype"):
                code = row[name]
                assert (None if code is None else features[name].int2str(code)) == expected[name]


def test_folders_give_every_split_even_where_a_class_has_the_name_of_one(
    files: Release, load: Load, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(files.path, tmp_path / files.name))

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["theme"] = "train" if row["image_id"] < "8" else "test"

    release = forge(folder, change)
    export_release(release, "folders", tmp_path / "out", by="theme", may_redistribute=True, workers=1)
    assert len([name for name in contents(tmp_path / "out") if name.endswith(".jpg")]) == len(release.table)
    found = load(str(tmp_path / "out"))
    for ours, theirs in NAMES.items():
        own = {row["sample_id"]: row for row in release.split(ours).to_pylist()}
        assert {row["sample_id"]: (row["valence"], row["class"]) for row in found[theirs]} == {
            key: (row["valence"], row["theme"]) for key, row in own.items()
        }


# --- torch -----------------------------------------------------------------------------------------------


def test_batches_of_items_with_and_without_values_keep_every_label(small_gaped: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    collate = torch.utils.data.default_collate
    made = publish(small_gaped, tmp_path, image={"size_px": [8, 8]})

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            lacks = row["image_id"] < "8"
            row["dominance"], row["emotion"] = (None, None) if lacks else (12, "joy")
            row["arousal"], row["subtype"] = (12.5, row["subtype"]) if lacks else (None, None)

    dataset = forge(made.path, change).dataset("train")
    items = list(dataset)
    keys = {"image", "sample_id", "weight", "valence", "arousal", "dominance", "emotion", "subtype"}
    keys.add("class_index")
    assert {frozenset(item) for item in items} == {frozenset(keys)}
    assert {item["emotion"] for item in items} == {"", "joy"}
    for order in (items, items[::-1]):
        batch = collate(order)
        assert set(batch) == keys
        for name in ("weight", "valence", "arousal", "dominance"):
            assert batch[name].dtype == torch.float32
        lacks = torch.tensor([not word for word in batch["emotion"]])
        assert torch.equal(batch["dominance"].isnan(), lacks)
        assert torch.equal(batch["arousal"].isnan(), ~lacks)
        assert batch["arousal"].float()[lacks].unique().tolist() == [12.5]
        assert [bool(word) for word in batch["subtype"]] == lacks.tolist()
        names = [dataset.classes[code] for code in batch["class_index"]]
        assert names == [
            "negative" if valence < 40 else "positive" if valence > 60 else "neutral"
            for valence in batch["valence"]
        ]
        assert batch["image"].shape == (len(items), 3, 8, 8)


def test_a_batch_of_images_of_different_size_is_explained_and_the_sampler_draws_by_weight(
    small_gaped: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    made = publish(small_gaped, tmp_path, weights={"by": "inverse"})
    dataset = made.dataset("train")
    assert dataset.collate([dataset[0], dataset[0]])["image"].shape[0] == 2
    other = {**dataset[0], "image": torch.zeros(3, 8, 9, dtype=torch.uint8)}
    with pytest.raises(InputError, match="differ in size: 3 × 8 × 9, 3 × 32"):
        dataset.collate([dataset[0], other])
    sampler = made.sampler("train", generator=torch.Generator().manual_seed(0))
    assert sampler.weights.tolist() == made.split("train")["weight"].to_pylist()
    assert len(list(sampler)) == len(dataset)
    with pytest.raises(UsageError, match="has no split 'dev'"):
        made.sampler("dev")


@pytest.fixture(scope="module")
def train(files: Release) -> Any:
    pytest.importorskip("torch")
    return files.dataset("train")


def keys_of(items: Any) -> list[str]:
    return [item["sample_id"] for item in items]


@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_a_stream_gives_every_item_once_to_the_workers(train: Any, n_workers: int) -> None:
    from torch.utils.data import DataLoader

    stream = train.stream(seed=3)
    loader = DataLoader(stream, batch_size=None, num_workers=n_workers, persistent_workers=n_workers > 1)
    epochs = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        epochs.append(keys_of(loader))
    assert len(stream) == len(train) == len(loader)
    assert [sorted(keys) for keys in epochs] == [sorted(keys_of(train))] * 3
    assert epochs[0] == epochs[2] != epochs[1]
    assert keys_of(train.stream(seed=None)) == keys_of(train)
    assert keys_of(train.stream(seed=3)) != keys_of(train.stream(seed=4))


def test_ranks_share_a_stream(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rank has items of its own; with `even` all have as many, and the first are repeated."""
    import torch

    parts: dict[bool, list[list[str]]] = {}
    n = len(train)
    n_ranks = next(k for k in range(3, n) if n % k)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: n_ranks)
    for even in (False, True):
        parts[even] = []
        for rank in range(n_ranks):
            monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            stream = train.stream(even=even)
            parts[even].append(keys_of(stream))
            assert len(stream) == len(parts[even][-1])
    uneven = sorted(key for part in parts[False] for key in part)
    assert uneven == sorted(keys_of(train))
    assert len({len(part) for part in parts[True]}) == 1
    assert sorted({key for part in parts[True] for key in part}) == uneven
