"""Publishing: the same bytes regardless of workers and interruptions, atomic, resumed by the same command."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from affectdata.errors import ImagesNotFound, InputError, IntegrityError, UsageError
from affectdata.images.decode import pixel_versions
from affectdata.recipe.transforms import Pipeline
from affectdata.release import journal as journaling
from affectdata.release import publish as publishing
from affectdata.release.journal import WriteSamples
from affectdata.release.release import open_release
from affectdata.release.verify import check_release
from affectdata.store.parquet import write_table
from tests.made import contents, publish, reseal


class Killed(Exception):
    """Simulates a kill between two batches."""


def kill_after(monkeypatch: pytest.MonkeyPatch, n_batches: int) -> list[int]:
    """Let `WriteSamples` fail after some batches of four rows or more; returns the sizes of those."""
    left, sizes = [n_batches], list[int]()
    original = WriteSamples.__call__

    def failing(self: WriteSamples, batch: pa.Table) -> pa.Table:
        if not left[0]:
            raise Killed
        left[0] -= 1
        sizes.append(len(batch))
        return original(self, batch)

    monkeypatch.setattr(journaling, "_BATCH", 4)
    monkeypatch.setattr(WriteSamples, "__call__", failing)
    return sizes


def partial_of(out: Path) -> Path:
    (path,) = (out / "releases").glob(".*.partial")
    return path


@pytest.fixture(scope="module")
def whole(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release made in one go. Not to be written to."""
    release = publish(small_gaped, tmp_path_factory.mktemp("whole"))
    assert check_release(release) == []
    return release.path


def test_a_release_contains_the_files_it_lists(whole: Path) -> None:
    release = open_release(whole)
    assert release.name == f"made-{release.id[:8]}"
    assert release.info["copies"] > 5
    assert release.info["originals"] == 18
    assert sum(release.info["rows"].values()) == release.table.num_rows == 18 + release.info["copies"]
    names = {path.name for path in whole.iterdir()}
    tables = {"manifest.parquet", "recipe.yaml", "SHA256SUMS", "README.md", "release.json", "croissant.json"}
    assert names == tables | {"train", "val", "test"}
    for split in ("train", "val", "test"):
        files = {path.name for path in (whole / split).iterdir()}
        listed = {Path(name).name for name in release.split(split)["file_name"].to_pylist()}
        assert files == listed | {"metadata.parquet"}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 8])
def test_two_runs_more_workers_and_another_path_give_the_same_bytes(
    small_gaped: Path, tmp_path: Path, whole: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journaling, "_BATCH", 3)  # enough batches for every worker
    moved = tmp_path / "elsewhere" / "other name"
    shutil.copytree(small_gaped, moved)
    release = publish(moved, tmp_path, workers=workers)
    assert release.path.name == whole.name
    assert contents(release.path) == contents(whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"image": {"short_side_px": 33}}, {"image": {"short_side_px": 32, "quality": 94}}],
)
def test_another_recipe_is_another_release(
    small_gaped: Path, tmp_path: Path, whole: Path, changes: Any
) -> None:
    assert publish(small_gaped, tmp_path, **changes).path.name != whole.name


@pytest.mark.slow
@pytest.mark.parametrize("n_batches", [0, 1, 4])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_is_resumed(
    small_gaped: Path, tmp_path: Path, whole: Path, n_batches: int, workers: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        sizes = kill_after(patch, n_batches)
        with pytest.raises(Killed):
            publish(small_gaped, tmp_path, workers=workers)
    partial = partial_of(tmp_path)
    assert not (partial / "release.json").exists()
    done = {path: path.stat().st_mtime_ns for path in partial.glob("*/*.jpg")}
    with pytest.MonkeyPatch.context() as patch:
        rendered: list[int] = []
        original = WriteSamples.__call__
        patch.setattr(
            WriteSamples,
            "__call__",
            lambda self, batch: (rendered.append(len(batch)), original(self, batch))[1],
        )
        release = publish(small_gaped, tmp_path, workers=workers)
    assert contents(release.path) == contents(whole)
    if workers == 1:
        assert len(sizes) == n_batches
        assert len(done) == sum(sizes) >= 4 * n_batches
        assert sum(rendered) == release.table.num_rows - len(done)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [whole.name]


@pytest.mark.slow
def test_a_run_may_be_interrupted_again_and_again(small_gaped: Path, tmp_path: Path, whole: Path) -> None:
    rendered = []
    for _ in range(3):
        with pytest.MonkeyPatch.context() as patch:
            sizes = kill_after(patch, 1)
            with pytest.raises(Killed):
                publish(small_gaped, tmp_path)
        rendered += sizes
    assert len(rendered) == 3
    assert len(list(partial_of(tmp_path).glob("*/*.jpg"))) == sum(rendered)
    assert contents(publish(small_gaped, tmp_path).path) == contents(whole)


def test_damaged_files_of_an_interrupted_run_are_repaired(
    small_gaped: Path, tmp_path: Path, whole: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 4)
        with pytest.raises(Killed):
            publish(small_gaped, tmp_path)
    partial = partial_of(tmp_path)
    cut, gone, swapped, *_ = sorted(partial.glob("*/*.jpg"))
    cut.write_bytes(cut.read_bytes()[:100])
    gone.unlink()
    swapped.write_bytes(b"another image")
    (partial / "train" / ".0123.jpg.tmp").write_bytes(b"half")
    (partial / "train" / "stranger.jpg").write_bytes(b"no part of it")
    release = publish(small_gaped, tmp_path)
    assert contents(release.path) == contents(whole)
    assert check_release(release) == []


@pytest.mark.parametrize("damage", ["cut", "other table"])
def test_a_damaged_journal_costs_no_more_than_its_images(
    small_gaped: Path, tmp_path: Path, whole: Path, damage: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(Killed):
            publish(small_gaped, tmp_path)
    journal, *_ = sorted((tmp_path / "releases").glob(".*.journal/*.parquet"))
    if damage == "cut":
        journal.write_bytes(journal.read_bytes()[:50])
    else:  # as an older version may have written it
        write_table(pa.table({"sample_id": ["0-0"]}), journal, "journal")
    assert contents(publish(small_gaped, tmp_path).path) == contents(whole)


def test_a_kill_between_the_last_file_and_the_name_is_no_loss(
    small_gaped: Path, tmp_path: Path, whole: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sync", lambda: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            publish(small_gaped, tmp_path)
    assert (partial_of(tmp_path) / "release.json").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WriteSamples, "__call__", lambda *_: pytest.fail("an image was rendered again"))
        release = publish(small_gaped, tmp_path)
    assert contents(release.path) == contents(whole)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [release.name]


def test_a_kill_after_the_name_leaves_a_journal_that_the_next_run_removes(
    small_gaped: Path, tmp_path: Path
) -> None:
    release = publish(small_gaped, tmp_path)
    journal = release.path.with_name(f".{release.name}.journal")
    journal.mkdir()
    (journal / "0.parquet").write_bytes(b"x")
    publish(small_gaped, tmp_path)
    assert not journal.exists()


@pytest.mark.slow
def test_a_killed_process_is_resumed(
    small_gaped: Path, tmp_path: Path, whole: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    """SIGKILL in the middle, by the process itself, so that it hits between two files."""
    publish(small_gaped, tmp_path)
    shutil.rmtree(tmp_path / "releases")
    (tmp_path / "made.yaml").write_bytes((whole / "recipe.yaml").read_bytes())
    first = (
        "import os, signal\n"
        "from affectdata.release import journal\n"
        "journal._BATCH = 4\n"
        "encode, left = journal.RenderSamples.encode, [10]\n"
        "def dying(self, rgb):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return encode(self, rgb)\n"
        "journal.RenderSamples.encode = dying\n"
    )
    command = ("balance", "--recipe", "made.yaml", "--manifest", "manifests/gaped.parquet", "--workers", "1")
    killed = start(*command, first=first, cwd=tmp_path)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(partial_of(tmp_path).glob("*/*.jpg"))) == 9
    again = start(*command, cwd=tmp_path)
    _, stderr = again.communicate(timeout=60)
    assert again.returncode == 0, stderr
    assert contents(tmp_path / "releases" / whole.name) == contents(whole)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == [whole.name]


def test_an_existing_release_is_verified_and_not_written(small_gaped: Path, tmp_path: Path) -> None:
    first = publish(small_gaped, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    with pytest.MonkeyPatch.context() as patch:
        kill_after(patch, 0)
        again = publish(small_gaped, tmp_path)
    assert again.info == first.info
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == times


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "manifest.parquet",
        "recipe.yaml",
        "README.md",
        "SHA256SUMS",
        "train/metadata.parquet",
        "picture",
    ],
)
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_existing_release_is_an_integrity_error(
    whole: Path, small_gaped: Path, tmp_path: Path, name: str, damage: str
) -> None:
    target = tmp_path / "releases" / whole.name
    shutil.copytree(whole, target)
    file = next((target / "train").glob("*.jpg")) if name == "picture" else target / name
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b"\xff\xfe no such thing")
    with pytest.raises(IntegrityError) as caught:
        publish(small_gaped, tmp_path)
    assert caught.value.exit_code == 4
    assert file.name in str(caught.value)
    assert "balance" in caught.value.fix or "same command" in caught.value.fix


def test_a_concurrent_run_is_refused(small_gaped: Path, tmp_path: Path, whole: Path) -> None:
    partial = tmp_path / "releases" / f".{whole.name}.partial"
    partial.mkdir(parents=True)
    handle = os.open(partial, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(UsageError, match="another run is writing"):
            publish(small_gaped, tmp_path)
    finally:
        os.close(handle)
    assert contents(publish(small_gaped, tmp_path).path) == contents(whole)


def test_an_image_that_changed_after_ingest_stops_the_run(
    gaped_copy: Path, tmp_path: Path, whole: Path
) -> None:
    publish(gaped_copy, tmp_path)
    shutil.rmtree(tmp_path / "releases")
    image = next(gaped_copy.glob("P/*.bmp"))
    good = image.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        spoil_after_ingest(patch, lambda: image.write_bytes(good[:-1] + b"\x01"))
        with pytest.raises(IntegrityError, match=f"P/{image.name} is not the file that was ingested"):
            publish(gaped_copy, tmp_path)
    assert not (tmp_path / "releases" / whole.name).exists()
    image.write_bytes(good)
    assert contents(publish(gaped_copy, tmp_path).path) == contents(whole)


def test_images_that_were_moved_after_ingest_are_named(gaped_copy: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        spoil_after_ingest(patch, lambda: gaped_copy.rename(tmp_path / "moved"))
        with pytest.raises(ImagesNotFound, match="the images of gaped were not found"):
            publish(gaped_copy, tmp_path)


def spoil_after_ingest(patch: pytest.MonkeyPatch, spoil: Callable[[], object]) -> None:
    """Do something to the tree between `ingest` and `balance`."""
    joined = publishing._with_sources

    def spoiled(*arguments: Any) -> pa.Table:
        spoil()
        return joined(*arguments)

    patch.setattr(publishing, "_with_sources", spoiled)


def test_a_place_that_cannot_be_written_is_an_input_error(small_gaped: Path, tmp_path: Path) -> None:
    (tmp_path / "releases").write_text("a file, no folder")
    with pytest.raises(InputError, match="cannot write to") as caught:
        publish(small_gaped, tmp_path)
    assert caught.value.exit_code == 3
    assert "--out" in caught.value.fix


def test_png_and_one_split_only(small_gaped: Path, tmp_path: Path) -> None:
    image = {"size_px": [24, 20], "fit": "pad", "format": "png"}
    release = publish(small_gaped, tmp_path, split="none", image=image, balance={"max_copies": 2})
    assert check_release(release) == []
    assert not (release.path / "val").exists()
    assert {path.suffix for path in (release.path / "train").iterdir()} == {".png", ".parquet"}
    assert set(release.table["out_width_px"].to_pylist()) == {24}


def test_nothing_of_this_machine_is_in_a_release(whole: Path, small_gaped: Path) -> None:
    host = re.compile(rf"\b{re.escape(os.uname().nodename)}\b")
    for name, data in contents(whole).items():
        if name.endswith(".jpg"):
            continue
        text = data.decode(errors="replace")
        if name.endswith(".parquet"):  # compressed bytes may spell anything
            table = pq.read_table(whole / name, partitioning=None)
            text = f"{table.to_pylist()} {table.schema.metadata}"
        assert str(small_gaped.parent) not in text
        assert not host.search(text) or name == "release.json"


def test_the_id_follows_from_draws_and_pixels_in_place_of_the_version_of_numpy(
    small_gaped: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = pixel_versions()
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "pixel_versions", lambda: {**versions, "numpy": "9.9"})
        assert publish(small_gaped, tmp_path / "numpy").path.name == whole.name
        patch.setattr(publishing, "pixel_versions", lambda: {**versions, "pillow": "9.9"})
        assert publish(small_gaped, tmp_path / "pillow").path.name != whole.name
    apply = Pipeline.apply  # in place of a numpy with other random streams
    monkeypatch.setattr(Pipeline, "apply", lambda self, rgb, seed: apply(self, rgb, seed + 1))
    turn = {"turn": [{"Affine": {"rotate": [-9, 9], "p": 1.0}}]}
    recipe = {"pipelines": turn, "subtypes": {"default": {"pipeline": "turn"}}}
    name = publish(small_gaped, tmp_path, **recipe).path.name
    monkeypatch.undo()
    assert publish(small_gaped, tmp_path / "streams", **recipe).path.name != name


def test_release_json_records_recipe_sources_and_versions(whole: Path) -> None:
    info = json.loads((whole / "release.json").read_text())
    assert info["schema"] == "affectdata/release/3"
    assert info["versions"]["albumentations"] == "2.0.8"
    assert set(info["canaries"]) == {"", "flip"}
    assert info["manifests"][0]["license"].startswith("CC BY-NC-SA 3.0")
    assert info["balance"]["bins"][0].keys() >= {"bin", "target", "n_before", "n_after", "shortfall"}
    assert info["cpu_features"]


def test_resealing_alone_keeps_a_release_sound(whole: Path, tmp_path: Path) -> None:
    """The forging helper of the tests changes nothing by itself."""
    folder = shutil.copytree(whole, tmp_path / whole.name)
    reseal(folder)
    assert check_release(open_release(folder)) == []
