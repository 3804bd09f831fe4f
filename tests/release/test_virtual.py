"""Virtual releases: no image on disk, and the same images as the materialised release when read."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml

from affectdata.errors import ImagesNotFound, IntegrityError, RecipeError, UsageError
from affectdata.recipe.recipe import parse_recipe
from affectdata.release import journal as journaling
from affectdata.release.images import released_reader
from affectdata.release.journal import WriteSamples
from affectdata.release.lineage import validate_release
from affectdata.release.rebuild import rebuild
from affectdata.release.release import Release, open_release
from affectdata.release.verify import check_release
from affectdata.render.render import RenderSamples
from affectdata.store.parquet import read_table
from tests.made import contents, forge, make_recipe, publish, recipe_document

Cli = Callable[..., Any]
PIPELINES = {
    "flip": [
        {"HorizontalFlip": {"p": 0.5}},
        {"Affine": {"rotate": [-9, 9], "border_mode": "reflect_101", "p": 1.0}},
    ]
}
TABLE = ".affectdata/manifest.parquet"
FILES = {TABLE, "recipe.yaml", "SHA256SUMS", "README.md", "croissant.json", "release.json"} | {
    f"{split}/rows.parquet" for split in ("train", "val", "test")
}


class Killed(Exception):
    """Stands for a kill between two batches."""


@pytest.fixture(scope="module")
def pair(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same release materialised and virtual. Not to be written to."""
    out = tmp_path_factory.mktemp("pair")
    files, virtual = (
        publish(small_gaped, out, pipelines=PIPELINES, mode=mode).path for mode in ("files", "virtual")
    )
    return files, virtual


@pytest.fixture
def both(pair: tuple[Path, Path], small_gaped: Path) -> tuple[Release, Release]:
    files, virtual = (open_release(path, roots={"gaped": small_gaped}) for path in pair)
    return files, virtual


@pytest.fixture
def folder(pair: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the virtual one, to spoil."""
    return Path(shutil.copytree(pair[1], tmp_path / "releases" / pair[1].name))


def test_there_are_no_images(pair: tuple[Path, Path]) -> None:
    assert set(contents(pair[1])) == FILES
    sums = (pair[1] / "SHA256SUMS").read_text().splitlines()
    assert {line[66:] for line in sums} == FILES - {"SHA256SUMS", "release.json"}
    assert "contains no images" in (pair[1] / "README.md").read_text()
    assert "contains no images" not in (pair[0] / "README.md").read_text()
    assert len(list(pair[0].rglob("*.jpg"))) > 20


def test_but_for_the_images_it_is_the_same_release(both: tuple[Release, Release]) -> None:
    files, virtual = both
    assert virtual.is_virtual
    assert not files.is_virtual
    assert virtual.table.equals(files.table)
    assert virtual.id != files.id
    differing = {key for key in files.info if files.info[key] != virtual.info[key]}
    assert differing == {"id", "mode", "recipe_sha256", "created", "sums_sha256", "content_sha256"}
    assert virtual.info["drift"]["copies"] == virtual.info["copies"] > 5


def test_it_verifies_without_its_source_images(both: tuple[Release, Release], pair: Any) -> None:
    assert check_release(both[1]) == []
    assert check_release(open_release(pair[1])) == []
    validate_release(both[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES - {"release.json", "SHA256SUMS", TABLE}))
def test_a_changed_file_is_found(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    texts = [finding.text for finding in check_release(open_release(folder))]
    assert f"{name} differs from the published file" in texts


def test_an_added_image_is_found(folder: Path) -> None:
    (folder / "train" / "more.jpg").write_bytes(b"")
    (finding,) = check_release(open_release(folder))
    assert finding.text == "train/more.jpg is not part of the release"


def test_forged_rows_are_found(folder: Path) -> None:
    def copy_in_val(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["copy"])
        row["split"] = "val"

    release = forge(folder, copy_in_val)
    texts = [finding.text for finding in check_release(release)]
    assert any("is a copy outside train" in text for text in texts)
    with pytest.raises(IntegrityError, match="is a copy outside train"):
        validate_release(release)


def test_the_dataset_gives_the_same_tensors(both: tuple[Release, Release]) -> None:
    torch = pytest.importorskip("torch")
    for split in ("train", "val", "test"):
        files, virtual = (release.dataset(split) for release in both)
        assert len(files) == len(virtual) > 0
        for at in range(len(files)):
            one, other = files[at], virtual[at]
            assert torch.equal(one.pop("image"), other.pop("image"))
            for name in ("weight", "valence", "arousal", "dominance"):
                assert torch.equal(one.pop(name).nan_to_num(-1), other.pop(name).nan_to_num(-1))
            assert one == other
    again = pickle.loads(pickle.dumps(virtual))  # as a DataLoader's workers get it
    assert torch.equal(again[0]["image"], virtual[0]["image"])


def test_the_dataset_needs_the_source_images(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImagesNotFound, match="the images of gaped were not found"):
        open_release(pair[1]).dataset("train")
    shutil.copytree(pair[1].parent.parent / "manifests", tmp_path / "manifests")
    assert open_release(pair[1]).dataset("train")[0]["image"].shape[0] == 3


def test_a_source_image_that_changed_is_not_rendered(pair: tuple[Path, Path], gaped_copy: Path) -> None:
    pytest.importorskip("torch")
    for image in gaped_copy.glob("*/*.bmp"):
        image.write_bytes(image.read_bytes()[:-1] + b"\x01")
    with pytest.raises(IntegrityError, match="is not the file that was ingested"):
        open_release(pair[1], roots={"gaped": gaped_copy}).dataset("train")[0]


def test_an_image_that_renders_differently_is_not_read(
    both: tuple[Release, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another CPU or with another library; only the recorded hash shows it."""
    recipe = parse_recipe(both[1].recipe_document)
    read = released_reader(both[1].path, recipe, both[1].sources_to_render())
    assert read(both[1].table.slice(0, 2)) == [
        both[0].read(name) for name in both[0].table["file_name"].to_pylist()[:2]
    ]
    encode = RenderSamples.encode
    monkeypatch.setattr(RenderSamples, "encode", lambda self, rgb: encode(self, 255 - rgb))
    with pytest.raises(IntegrityError, match="the rendered image differs from the released one"):
        read(both[1].table.slice(0, 2))


def test_every_image_is_rebuilt_to_the_recorded_hash(both: tuple[Release, Release], tmp_path: Path) -> None:
    found = rebuild(both[1], both[1].table, tmp_path)
    assert (found.n_rows, found.exact, found.findings) == (len(both[1].table), True, [])


def test_a_hash_that_was_edited_is_found(folder: Path, small_gaped: Path, tmp_path: Path) -> None:
    def edit(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["copy"])["file_sha256"] = "0" * 64

    release = forge(folder, edit)
    release = open_release(folder, roots={"gaped": small_gaped})
    (finding,) = rebuild(release, release.table, tmp_path).findings
    assert "the rebuilt bytes do not match the recorded hash" in finding.text


def test_where_the_canary_differs_nothing_can_be_compared(
    folder: Path, small_gaped: Path, tmp_path: Path
) -> None:
    info = json.loads((folder / "release.json").read_text())
    (folder / "release.json").write_text(json.dumps({**info, "canaries": {"": "0", "flip": "1"}}))
    release = open_release(folder, roots={"gaped": small_gaped})
    found = rebuild(release, release.table.slice(0, 2), tmp_path)
    assert not found.exact
    assert found.notes == ["this machine renders the canary differently: nothing can be compared"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_is_resumed(
    small_gaped: Path, tmp_path: Path, pair: tuple[Path, Path], workers: int
) -> None:
    original, left = WriteSamples.__call__, [3]

    def failing(self: WriteSamples, batch: pa.Table) -> pa.Table:
        if not left[0]:
            raise Killed
        left[0] -= 1
        return original(self, batch)

    arguments: dict[str, Any] = {"pipelines": PIPELINES, "mode": "virtual", "workers": workers}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journaling, "_BATCH", 4)
        patch.setattr(WriteSamples, "__call__", failing)
        with pytest.raises(Killed):
            publish(small_gaped, tmp_path, **arguments)
    journal, partial = sorted((tmp_path / "releases").iterdir())
    assert (journal.suffix, partial.suffix, list(partial.iterdir())) == (".journal", ".partial", [])
    n_noted = sum(len(read_table(path, "journal")[0]) for path in journal.rglob("*.parquet"))
    rendered: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            WriteSamples,
            "__call__",
            lambda self, batch: (rendered.append(len(batch)), original(self, batch))[1],
        )
        release = publish(small_gaped, tmp_path, **arguments)
    assert contents(release.path) == contents(pair[1])
    assert sum(rendered) == len(release.table) - n_noted
    if workers == 1:
        assert n_noted >= 12


def test_a_damaged_journal_costs_no_more_than_its_rows(
    small_gaped: Path, tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    journal = tmp_path / "releases" / f".{pair[1].name}.journal"
    journal.mkdir(parents=True)
    (journal / "0-0.parquet").write_bytes(b"cut")
    release = publish(small_gaped, tmp_path, pipelines=PIPELINES, mode="virtual")
    assert contents(release.path) == contents(pair[1])


def test_a_second_run_finds_the_release(small_gaped: Path, pair: tuple[Path, Path]) -> None:
    before = contents(pair[1])
    release = publish(small_gaped, pair[1].parent.parent, pipelines=PIPELINES, mode="virtual")
    assert release.path == pair[1]
    assert contents(pair[1]) == before


def test_the_commands_take_it(
    cli: Cli, small_gaped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    document = recipe_document(mode="virtual", split={"val": 0.2, "test": 0.2})
    Path("made.yaml").write_text(yaml.safe_dump(document))
    assert cli("ingest", small_gaped).code == 0
    ran = cli("balance", "--recipe", "made.yaml", "--json")
    assert ran.code == 0
    assert ran.document["drift"]["copies"] > 0
    n = len(open_release(ran.document["release"]).table)
    assert cli("verify", "--rebuild", n, "--json").document["rebuilt"] == n
    copy = open_release(ran.document["release"]).table.filter(pc.field("copy") > 0)["sample_id"][0].as_py()
    assert cli("verify", "--sample", copy).code == 0
    assert cli("verify", "--why", copy.split("-")[0]).code == 0


def test_it_has_no_other_modes() -> None:
    with pytest.raises(RecipeError, match="mode"):
        make_recipe(mode="cloud")


def test_an_unknown_split(both: tuple[Release, Release]) -> None:
    pytest.importorskip("torch")
    with pytest.raises(UsageError, match="has no split 'dev'"):
        both[1].dataset("dev")
