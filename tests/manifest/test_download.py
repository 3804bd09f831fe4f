"""Downloading the images of a source: paths, log, and what a second run requests."""

from __future__ import annotations

import hashlib
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from affectdata.errors import SourceError, UsageError
from affectdata.manifest.download import DownloadResult, download
from affectdata.manifest.fetch import Limits
from affectdata.manifest.ingest import ingest
from affectdata.sources import gaped
from affectdata.store.atomic import locked_folder
from tests.served import Site

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
QUICK = Limits(answer_s=2, silence_s=1, pause_s=0.01, tries=2)
MAP = "{name: mine, table: t.csv, key: pic, scales: {valence: [1, 9]}, columns: {valence: v, url: link}}"


@pytest.fixture
def plant(tmp_path: Path, site: Site) -> Callable[..., Path]:
    """Write a table of images and their paths on the site, with its column map."""

    def call(links: dict[str, str], name: str = "tree") -> Path:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        rows = [f'"{key}",5,{site.url(path) if path else ""}' for key, path in links.items()]
        (root / "t.csv").write_text("\n".join(["pic,v,link", *rows]) + "\n", encoding="utf-8")
        (root / "columns.yaml").write_text(MAP)
        return root

    return call


def run(root: Path, **options: Any) -> DownloadResult:
    return download(root, limits=QUICK, **options)


def log(root: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in pq.read_table(root / "download.parquet").to_pylist()}


def test_images_go_where_ingest_finds_them(plant: Callable[..., Path], site: Site, tmp_path: Path) -> None:
    root = plant({"a/1.png": "image/1.png", "a/2": "image/two.jpeg", "3": "image/3", "4": ""})
    result = run(root)
    assert result.counts == {"there already": 0, "fetched": 3, "failed": 0, "left for later": 0}
    assert {path.relative_to(root).as_posix() for path in root.rglob("*.*")} == {
        *("a/1.png", "a/2.jpeg", "3.jpg"),
        *("t.csv", "columns.yaml", "download.parquet"),
    }
    row = log(root)["a/2.jpeg"]
    assert (root / "a/2.jpeg").read_bytes() == site.image
    assert row == {
        "path": "a/2.jpeg",
        "url": site.url("image/two.jpeg"),
        "status": "fetched",
        "bytes": len(site.image),
        "sha256": hashlib.sha256(site.image).hexdigest(),
        "error": None,
        "attempts": 1,
    }
    ingested = ingest(root, out=tmp_path / "out")
    assert ingested.counts == {"kept": 1, "merged": 2, "annotation": 3, "junk": 0, "rejected": 1}


def test_a_second_run_requests_only_temporary_failures_and_missing_files(
    plant: Callable[..., Path], site: Site
) -> None:
    links = {
        "1": "image/1.jpg",
        "2": "gone/2.jpg",
        "3": "html/3.jpg",
        "4": "broken/4.jpg",
        "5": "image/5.jpg",
    }
    root = plant(links)
    first = run(root)
    assert first.counts == {"there already": 0, "fetched": 2, "failed": 3, "left for later": 0}
    assert {row["path"]: row["status"] for row in first.failures} == {
        "2.jpg": "gone",
        "3.jpg": "no_picture",
        "4.jpg": "broken",
    }
    assert first.n_temporary == 1
    assert not list(root.glob("[234].jpg")) and not list(root.rglob("*.tmp"))
    (root / "5.jpg").unlink()
    site.asked.clear()
    second = run(root)
    assert site.asked == {"/broken/4.jpg": 2, "/image/5.jpg": 1}
    assert second.counts == {"there already": 1, "fetched": 1, "failed": 3, "left for later": 0}
    assert {path: row["attempts"] for path, row in log(root).items()} == {
        "1.jpg": 1,
        "2.jpg": 1,
        "3.jpg": 1,
        "4.jpg": 4,
        "5.jpg": 2,
    }
    plant({**links, "2": "image/2.jpg"})  # the table has a new URL for it
    assert run(root).counts["failed"] == 2


def test_existing_files_are_never_replaced(plant: Callable[..., Path], site: Site) -> None:
    root = plant({"1.jpg": "image/1.jpg", "2": "image/2.jpg"})
    (root / "1.jpg").write_bytes(b"mine")
    (root / "2.png").write_bytes(b"mine too, and of another suffix")
    result = run(root)
    assert result.counts == {"there already": 2, "fetched": 0, "failed": 0, "left for later": 0}
    assert not site.asked and not (root / "download.parquet").exists()
    assert (root / "1.jpg").read_bytes() == b"mine"


def test_a_limit_leaves_the_rest_for_later(plant: Callable[..., Path], site: Site) -> None:
    root = plant({str(number): f"image/{number}.jpg" for number in range(7)})
    for expected in ({"there already": 0, "fetched": 4}, {"there already": 4, "fetched": 3}):
        result = run(root, limit=4)
        assert result.counts.items() >= expected.items()
        assert result.n_listed == 7
    assert site.asked.total() == 7


@pytest.mark.parametrize(
    "key", ["../out.jpg", "a/../../out.jpg", "/../out.jpg", "a\\..\\out.jpg", "linked/out.jpg", "x" * 300]
)
def test_no_path_of_a_table_is_outside_the_folder(
    key: str, plant: Callable[..., Path], site: Site, tmp_path: Path
) -> None:
    root = plant({key: "image/1.jpg"})
    (tmp_path / "elsewhere").mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    before = set(tmp_path.rglob("*"))
    result = run(root)
    assert [row["status"] for row in result.failures] in (["refused"], [])
    assert {path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(root)} == set()
    assert not result.failures or not site.asked


def test_a_name_that_is_too_long_does_not_stop_the_others(plant: Callable[..., Path], site: Site) -> None:
    """A file is first written under a longer, temporary name."""
    fits, long, deep = "ü" * 118 + ".jpg", "x" * 246 + ".jpg", "d/" * 2100 + "x.jpg"
    root = plant(dict.fromkeys([long, deep, fits, "1.jpg"], "image/1.jpg"))
    result = run(root)
    assert {row["path"]: row["status"] for row in result.failures} == {long: "refused", deep: "refused"}
    assert (root / fits).is_file() and (root / "1.jpg").is_file()


def test_several_urls_are_tried_in_turn(tmp_path: Path, site: Site) -> None:
    root = tmp_path / "emo"
    (root / "data").mkdir(parents=True)
    (root / "data" / "annotations_single.ann").write_text(
        ",image_path,valence,arousal,emotion\n0,/Run_2/a b/1.jpg,3,0,Joy\n1,/Run_2/a b/2.jpg,3,0,Joy\n"
    )
    links = [
        ("1", "gone/1.jpg"),
        ("1", "html/1.jpg"),
        ("1", "image/1.jpg"),
        ("2", "gone/2.jpg"),
        ("2", "gone/3.jpg"),
    ]
    listed = ", ".join(
        f'{{"rel_path": "Run_2/a b/{name}.jpg", "url": "{site.url(path)}", "idx_url": {index}}}'
        for index, (name, path) in enumerate(links)
    )
    (root / "data" / "dataset_urls_exploded.json").write_text(f"[{listed}]")
    result = run(root)
    assert (result.info.name, result.counts["fetched"], result.counts["failed"]) == ("findingemo", 1, 1)
    rows = log(root)
    assert rows["Run_2/a b/1.jpg"]["url"] == site.url("image/1.jpg")
    assert rows["Run_2/a b/1.jpg"]["attempts"] == 3
    assert rows["Run_2/a b/2.jpg"]["status"] == "gone"
    for path in ("gone/2.jpg", "gone/3.jpg"):
        assert f"{site.url(path)}: HTTP 404" in rows["Run_2/a b/2.jpg"]["error"]
    ingested = ingest(root, out=tmp_path / "out")
    assert ingested.counts == {"kept": 1, "merged": 0, "annotation": 3, "junk": 0, "rejected": 1}


def test_images_go_to_another_folder_with_out(plant: Callable[..., Path], tmp_path: Path) -> None:
    root = plant({"1": "image/1.jpg"})
    run(root, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.jpg", "download.parquet"]
    assert not (root / "1.jpg").exists()


def test_ingest_before_the_download_suggests_it(plant: Callable[..., Path], tmp_path: Path) -> None:
    root = plant({"1": "image/1.jpg"})
    with pytest.raises(SourceError, match="no image") as caught:
        ingest(root, out=tmp_path / "out")
    assert caught.value.fix.startswith(f"`affectdata download '{root}'`")


def test_an_interrupted_run_keeps_its_images(plant: Callable[..., Path]) -> None:
    root = plant({str(number): f"image/{number}.jpg" for number in range(9)})

    def interrupt(done: int, of_all: int) -> None:
        if done == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(root, progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    fetched = [row for row in log(root).values() if row["status"] == "fetched"]
    assert 3 <= len(fetched) <= len(list(root.glob("*.jpg"))) < 9
    assert run(root).counts["failed"] == 0
    assert {row["status"] for row in log(root).values()} == {"fetched"} and len(log(root)) == 9
    assert len(list(root.glob("*.jpg"))) == 9


def test_a_folder_that_cannot_be_written_ends_the_run(plant: Callable[..., Path]) -> None:
    root = plant({"t.csv/1": "image/1.jpg", "2": "image/2.jpg"})
    with pytest.raises(Exception, match=r"cannot write .*t\.csv/1\.jpg"):
        run(root)


def test_a_source_without_urls_is_an_error(sample_gaped: Path, plant: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match="no image URLs") as caught:
        run(sample_gaped)
    assert gaped.INFO.name in caught.value.where and "affectdata sources gaped" in caught.value.fix


def test_two_runs_at_once_are_refused(plant: Callable[..., Path]) -> None:
    root = plant({"1": "image/1.jpg"})
    with locked_folder(root), pytest.raises(UsageError, match="another run"):
        run(root)
    shutil.rmtree(root)
