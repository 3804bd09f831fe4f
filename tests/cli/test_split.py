"""`affectdata split` and --split-from: splits are written, kept, taken over, and conflicts are named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import Manifest, load_manifest, write_manifest
from affectdata.reading.sample import save_image
from affectdata.release.release import open_release
from affectdata.release.verify import check_release
from affectdata.store.digest import table_digest
from tests.made import recipe_document

Cli = Callable[..., Any]
MANIFEST = Path("manifests/gaped.parquet")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gaped_copy: Path) -> Path:
    """A working directory with a manifest of a small GAPED tree and the recipe `made.yaml`."""
    monkeypatch.chdir(tmp_path)
    ingest(gaped_copy, out=Path("manifests"))
    write_recipe()
    return tmp_path


def write_recipe(**changes: Any) -> None:
    document = recipe_document(**{"split": {"val": 0.2, "test": 0.2}, **changes})
    Path("made.yaml").write_text(yaml.safe_dump(document))


def splits(manifest: Manifest | None = None) -> dict[str, str | None]:
    """Split by path, as the manifest has it."""
    table = (manifest or load_manifest(MANIFEST)).table
    return dict(zip(table["path"].to_pylist(), table["split"].to_pylist(), strict=True))


def released(folder: str | Path) -> dict[str, str]:
    table = open_release(folder).table
    return dict(zip(table["path"].to_pylist(), table["split"].to_pylist(), strict=True))


def set_splits(given: Mapping[str, str | None], groups: Mapping[str, str] | None = None) -> None:
    """Write splits by path into the manifest; `groups` puts a path into the group of another."""
    manifest = load_manifest(MANIFEST)
    rows = manifest.table.to_pylist()
    ids = {row["path"]: row["image_id"] for row in rows}
    for row in rows:
        row["split"] = given.get(row["path"], row["split"])
        if groups and row["path"] in groups:
            row["group_id"] = ids[groups[row["path"]]]
    write_manifest(pa.Table.from_pylist(rows, schema=manifest.table.schema), manifest.metadata, MANIFEST)


def balance(cli: Cli, *more: object) -> Any:
    return cli("balance", "--recipe", "made.yaml", "--json", *more)


# --- writing ---------------------------------------------------------------------------------------------


def test_the_column_is_written_and_nothing_else(cli: Cli, here: Path) -> None:
    before = load_manifest(MANIFEST)
    assert set(splits(before).values()) == {None}
    ran = cli("split", MANIFEST, "--recipe", "made.yaml")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == f"wrote {MANIFEST}"
    after = load_manifest(MANIFEST)
    assert set(splits(after).values()) == {"train", "val", "test"}
    assert after.table.drop_columns(["split"]).equals(before.table.drop_columns(["split"]))
    assert after.table.schema.equals(before.table.schema)
    assert after.digest != before.digest
    hashes = ("digest", "metadata_sha256")
    same = {key: after.metadata[key] for key in after.metadata if key not in hashes}
    assert same == {key: before.metadata[key] for key in before.metadata if key not in hashes}


def test_the_document_counts_rows_and_distances(cli: Cli, here: Path) -> None:
    ran = cli("split", MANIFEST, "--recipe", "made.yaml", "--json")
    document = ran.document
    found = list(splits().values())
    assert document["schema"] == "affectdata/split/1"
    assert document["rows"] == {name: found.count(name) for name in ("train", "val", "test")}
    assert document["digest"] == load_manifest(MANIFEST).digest
    assert document["without_split"] == 0
    for far in document["distance"].values():
        assert all(0 <= distance <= 1 for distance in far.values())


def test_a_second_run_changes_nothing(cli: Cli, here: Path) -> None:
    cli("split", MANIFEST, "--recipe", "made.yaml")
    data = MANIFEST.read_bytes()
    assert cli("split", MANIFEST, "--recipe", "made.yaml").code == 0
    assert MANIFEST.read_bytes() == data
    write_recipe(seed=99)  # another draw finds nothing left to draw
    assert cli("split", MANIFEST, "--recipe", "made.yaml").code == 0
    assert MANIFEST.read_bytes() == data


def test_the_same_splits_as_balance_would_make(cli: Cli, here: Path) -> None:
    ran = balance(cli)
    cli("split", MANIFEST, "--recipe", "made.yaml")
    assert splits() == released(ran.document["release"])


def test_later_balances_keep_it_whatever_their_recipe(cli: Cli, here: Path) -> None:
    cli("split", MANIFEST, "--recipe", "made.yaml")
    written = splits()
    for changes in ({"seed": 5}, {"split": {"val": 0.0, "test": 0.5}}, {"strata": []}):
        write_recipe(**changes)
        ran = balance(cli)
        assert ran.code == 0
        assert released(ran.document["release"]) == written


def test_rows_that_the_recipe_leaves_out_stay_free(cli: Cli, here: Path) -> None:
    write_recipe(where="subtype <> 'P'")
    ran = cli("split", MANIFEST, "--recipe", "made.yaml")
    assert ran.code == 0
    assert "without a split: 4 rows of the manifest" in ran.out
    written = splits()
    assert {path for path, split in written.items() if split is None} == {
        path for path in written if path.startswith("P/")
    }
    write_recipe()
    assert cli("split", MANIFEST, "--recipe", "made.yaml").code == 0
    assert {path: split for path, split in splits().items() if written[path]} == {
        path: split for path, split in written.items() if split
    }
    assert None not in splits().values()


def test_look_alikes_get_one_split(cli: Cli, here: Path) -> None:
    table = load_manifest(MANIFEST).table
    groups = table["group_id"].to_pylist()
    assert len(set(groups)) < len(groups)  # the sample plants a pair
    cli("split", MANIFEST, "--recipe", "made.yaml")
    sides: dict[str, set[Any]] = {}
    for group, split in zip(groups, splits().values(), strict=True):
        sides.setdefault(group, set()).add(split)
    assert all(len(found) == 1 for found in sides.values())


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nowhere.parquet", "--recipe", "made.yaml"), 3),
        ((MANIFEST, "--recipe", "nowhere.yaml"), 2),
        ((MANIFEST,), 2),
        (("made.yaml", "--recipe", "made.yaml"), 3),
        ((MANIFEST, "--recipe", "made.yaml", "--split-from", "nowhere"), 3),
    ],
    ids=str,
)
def test_what_is_not_there(cli: Cli, here: Path, arguments: Any, code: int) -> None:
    before = MANIFEST.read_bytes()
    ran = cli("split", *arguments)
    assert ran.code == code
    assert ran.err.strip()
    assert MANIFEST.read_bytes() == before


# --- taken over from an earlier release ------------------------------------------------------------------


@pytest.fixture
def earlier(cli: Cli, here: Path) -> Path:
    """A release of half of the images, with its manifest gone."""
    write_recipe(where="subtype IN ('P', 'Sn')", seed=3, split={"val": 0.25, "test": 0.25})
    folder = Path(balance(cli, "--out", "earlier").document["release"])
    write_recipe()
    return folder


@pytest.mark.parametrize("command", ["balance", "split"])
def test_splits_are_taken_over_by_image(cli: Cli, earlier: Path, command: str) -> None:
    old = released(earlier)
    assert len(old) == 8
    assert set(old.values()) == {"train", "val", "test"}
    if command == "balance":
        ran = balance(cli, "--split-from", earlier)
        new = released(ran.document["release"])
        assert check_release(open_release(ran.document["release"])) == []
        assert set(splits().values()) == {None}  # balance writes no manifest
    else:
        ran = cli("split", MANIFEST, "--recipe", "made.yaml", "--split-from", earlier)
        new = splits()
    assert ran.code == 0
    assert {path: new[path] for path in old} == old
    assert len(new) == 18


def test_images_are_known_by_content_wherever_they_lie(
    cli: Cli, here: Path, earlier: Path, gaped_copy: Path
) -> None:
    """Renamed files are the same images; the copies of an earlier release count once."""
    moved = {"P/P003.bmp": "P/P099.bmp"}
    manifest = load_manifest(MANIFEST)
    paths = [moved.get(path, path) for path in manifest.table["path"].to_pylist()]
    at = manifest.table.column_names.index("path")
    table = manifest.table.set_column(at, manifest.table.schema.field(at), pa.array(paths))
    write_manifest(table, manifest.metadata, MANIFEST)
    cli("split", MANIFEST, "--recipe", "made.yaml", "--split-from", earlier)
    assert splits()["P/P099.bmp"] == released(earlier)["P/P003.bmp"]


def test_another_release_follows_from_splits_taken_over(cli: Cli, earlier: Path) -> None:
    one, other = balance(cli), balance(cli, "--split-from", earlier)
    assert one.document["id"] != other.document["id"]
    assert balance(cli, "--split-from", earlier).document["new"] is False


def test_what_the_manifest_says_wins_over_the_earlier_release(cli: Cli, earlier: Path) -> None:
    old = released(earlier)
    path = next(path for path, split in old.items() if split == "train" and path.startswith("P/"))
    set_splits({path: "test"})
    new = released(balance(cli, "--split-from", earlier).document["release"])
    assert new[path] == "test"
    assert {each: new[each] for each in old if each != path} == {
        each: split for each, split in old.items() if each != path
    }


@pytest.mark.parametrize("side", ["train", "val", "test"])
def test_a_new_image_joins_the_side_of_its_look_alike(
    cli: Cli, earlier: Path, gaped_copy: Path, side: str
) -> None:
    """A mirrored copy of a released image, found by `ingest`, rated like it."""
    from PIL import Image

    old = released(earlier)
    path = next(path for path, split in old.items() if split == side and path.startswith("P/"))
    rgb = np.asarray(Image.open(gaped_copy / path).convert("RGB"))[:, ::-1]
    save_image(gaped_copy / "P" / "P999.bmp", np.ascontiguousarray(rgb), "BMP")
    for name, row in (("P.txt", "P999.jpg\t80.000\t20.000"), ("P_with SD.txt", None)):
        lines = (gaped_copy / name).read_text().splitlines()
        added = row or "P999.jpg\t80.0\t(5.00)\t\t20.0\t(5.00)"
        (gaped_copy / name).write_text("\n".join([*lines, added]))
    ingest(gaped_copy, out=Path("manifests"), replace=True)
    assert len(load_manifest(MANIFEST)) == 19
    new = released(balance(cli, "--split-from", earlier).document["release"])
    assert new["P/P999.bmp"] == new[path] == side


# --- conflicts -------------------------------------------------------------------------------------------

GROUP = {"P/P004.bmp": "P/P003.bmp", "P/P002.bmp": "P/P003.bmp"}


def conflict(side: str = "test") -> None:
    """Three images of one group: one in train, one in `side`, one new."""
    set_splits({"P/P003.bmp": "train", "P/P004.bmp": side}, GROUP)


@pytest.mark.parametrize("side", ["val", "test"])
@pytest.mark.parametrize("command", ["balance", "split"])
def test_a_group_on_both_sides_is_an_error_that_names_the_pair(
    cli: Cli, here: Path, command: str, side: str
) -> None:
    conflict(side)
    before = MANIFEST.read_bytes()
    ran = balance(cli) if command == "balance" else cli("split", MANIFEST, "--recipe", "made.yaml")
    assert ran.code == 4
    rows = {row["path"]: row["image_id"] for row in load_manifest(MANIFEST).table.to_pylist()}
    assert f"{rows['P/P003.bmp'][:16]} in train" in ran.err
    assert f"{rows['P/P004.bmp'][:16]} in {side}" in ran.err
    assert "--on-conflict drop-train" in ran.err
    assert MANIFEST.read_bytes() == before
    assert not Path("releases").exists()


@pytest.mark.slow
@pytest.mark.parametrize("side", ["val", "test"])
def test_drop_train_leaves_out_train_and_nothing_else(cli: Cli, here: Path, side: str) -> None:
    conflict(side)
    everything = set(splits())
    ran = balance(cli, "--on-conflict", "drop-train")
    assert ran.code == 0
    assert ran.document["left_out"] == 1
    new = released(ran.document["release"])
    assert everything - set(new) == {"P/P003.bmp"}
    assert new["P/P004.bmp"] == new["P/P002.bmp"] == side
    assert check_release(open_release(ran.document["release"])) == []


def test_drop_train_settles_no_quarrel_between_val_and_test(cli: Cli, here: Path) -> None:
    set_splits({"P/P003.bmp": "val", "P/P004.bmp": "test"}, GROUP)
    ran = balance(cli, "--on-conflict", "drop-train")
    assert ran.code == 4
    assert "one group is in two splits" in ran.err


def test_a_conflict_that_arises_from_the_earlier_release(cli: Cli, earlier: Path) -> None:
    """Two images that were apart are found to belong together: the one in train gives way."""
    old = released(earlier)
    train, test = (
        next(path for path, split in sorted(old.items()) if split == side and path.startswith("P/"))
        for side in ("train", "test")
    )
    set_splits({}, {train: test})
    assert balance(cli, "--split-from", earlier).code == 4
    ran = balance(cli, "--split-from", earlier, "--on-conflict", "drop-train")
    assert ran.code == 0
    new = released(ran.document["release"])
    assert train not in new
    assert {path: new[path] for path in old if path != train} == {
        path: split for path, split in old.items() if path != train
    }
    # A manifest keeps every row, so the command that writes into one does not choose between the two.
    before = MANIFEST.read_bytes()
    assert cli("split", MANIFEST, "--recipe", "made.yaml", "--split-from", earlier).code == 4
    assert MANIFEST.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("side", ["val", "test"])
def test_an_image_that_was_held_out_before_is_not_trained_on_because_the_manifest_says_train(
    cli: Cli, earlier: Path, side: str
) -> None:
    held = {path for path, split in released(earlier).items() if split == side}
    set_splits(dict.fromkeys(held, "train"))
    ran = balance(cli, "--split-from", earlier)
    assert ran.code == 4 and "one group is in two splits" in ran.err
    assert cli("split", MANIFEST, "--recipe", "made.yaml", "--split-from", earlier).code == 4
    ran = balance(cli, "--split-from", earlier, "--on-conflict", "drop-train")
    assert ran.code == 0
    assert held.isdisjoint(released(ran.document["release"]))


def test_earlier_splits_hold_where_a_recipe_has_none(cli: Cli, earlier: Path) -> None:
    write_recipe(split="none")
    held_out = pc.is_in(open_release(earlier).table["split"], pa.array(["val", "test"]))
    ids = set(open_release(earlier).table.filter(held_out)["image_id"].to_pylist())
    made = balance(cli, "--split-from", earlier, "--json")
    assert made.code == 0, made.err
    train = open_release(made.document["release"]).split("train")["image_id"].to_pylist()
    assert ids and not ids & set(train)


def test_without_a_conflict_nothing_is_dropped(cli: Cli, here: Path) -> None:
    one, other = balance(cli), balance(cli, "--on-conflict", "drop-train")
    assert one.document["id"] == other.document["id"]
    table = open_release(one.document["release"]).table
    assert table_digest(table) == table_digest(open_release(other.document["release"]).table)
    shutil.rmtree("releases")
