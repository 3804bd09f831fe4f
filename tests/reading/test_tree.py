"""A source tree is listed safely: nothing outside the root, one order, every name accounted for."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from affectdata.errors import SourceError
from affectdata.reading import tree as tree_module
from affectdata.reading.links import check_links, explain_link
from affectdata.reading.tree import Tree, are_images, are_junk, is_image_name, is_junk, read_tree


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_files_are_listed_sorted_with_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, "b.txt", "a/z.bmp", "a/b/c.bmp", "a.bmp", "B.txt")
    assert read_tree(tmp_path).files == ("B.txt", "a.bmp", "a/b/c.bmp", "a/z.bmp", "b.txt")


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_file_system_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    touch(tmp_path, *(f"{folder}/{name}.bmp" for folder in "abc" for name in range(9)), "t.txt")
    (tmp_path / "link").symlink_to("t.txt")
    expected = read_tree(tmp_path)
    scandir = os.scandir

    def shuffled(folder: str) -> list[os.DirEntry[str]]:
        entries = list(scandir(folder))
        random.Random(seed).shuffle(entries)
        return entries

    monkeypatch.setattr(tree_module.os, "scandir", shuffled)
    assert read_tree(tmp_path) == expected


def test_links_are_listed_apart_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    touch(outside, "secret.bmp", "folder/more.bmp")
    root = tmp_path / "root"
    touch(root, "a.bmp")
    (root / "file.bmp").symlink_to(outside / "secret.bmp")
    (root / "folder").symlink_to(outside / "folder")
    (root / "gone.bmp").symlink_to("nowhere.bmp")
    (root / "self").symlink_to(root)
    os.mkfifo(root / "pipe.bmp")
    tree = read_tree(root)
    assert tree.files == ("a.bmp",)
    assert tree.links == ("file.bmp", "folder", "gone.bmp", "pipe.bmp", "self")


def test_links_inside_the_root_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "blobs/1", "blobs/2", "pool/a.jpg", "pool/deep/b.jpg", "train/happy/own.jpg")
    (tmp_path / "train" / "happy" / "1.jpg").symlink_to("../../blobs/1")
    (tmp_path / "train" / "happy" / "2.jpg").symlink_to(tmp_path / "blobs" / "2")
    (tmp_path / "train" / "sad").symlink_to("../pool")
    tree = read_tree(tmp_path)
    assert list(tree.images()) == [
        *("pool/a.jpg", "pool/deep/b.jpg", "train/happy/1.jpg", "train/happy/2.jpg", "train/happy/own.jpg"),
        *("train/sad/a.jpg", "train/sad/deep/b.jpg"),
    ]
    assert tree.targets == ("blobs/1", "blobs/2", "pool/a.jpg", "pool/deep/b.jpg")
    assert tree.links == ()


def test_links_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "b/y.jpg")
    (tmp_path / "a" / "to_b").symlink_to("../b")
    (tmp_path / "b" / "to_a").symlink_to("../a")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "b" / "loop").symlink_to("loop")
    tree = read_tree(tmp_path)
    assert list(tree.files) == ["a/to_b/y.jpg", "a/x.jpg", "b/to_a/x.jpg", "b/y.jpg"]
    assert {explain_link(tmp_path, path) for path in ("a/up", "a/to_b/to_a")} == {
        "a link to a folder around it, or inside a linked folder; not followed"
    }
    assert explain_link(tmp_path, "b/loop") == "a link without a file behind it"


def test_links_that_lead_out_are_refused_with_the_way_out(tmp_path: Path) -> None:
    touch(tmp_path, "cache/blobs/1.jpg", "cache/blobs/2.jpg", "cache/snapshot/readme.txt")
    for number, word in ((1, "happy"), (2, "sad")):
        (tmp_path / "cache/snapshot" / word).mkdir()
        (tmp_path / "cache/snapshot" / word / f"{number}.jpg").symlink_to(f"../../blobs/{number}.jpg")
    root = tmp_path / "cache/snapshot"
    with pytest.raises(SourceError, match=r"2 links .* lead out of it") as caught:
        check_links(read_tree(root))
    assert f"affectdata ingest '{tmp_path / 'cache'}'" in caught.value.fix and "cp -rL" in caught.value.fix
    assert "happy/1.jpg" in caught.value.where
    check_links(read_tree(tmp_path / "cache"))


def test_a_few_links_that_lead_out_are_no_error(tmp_path: Path) -> None:
    touch(tmp_path, "other.jpg", "root/a.jpg", "root/b.jpg")
    (tmp_path / "root" / "c.jpg").symlink_to("../other.jpg")
    tree = read_tree(tmp_path / "root")
    check_links(tree)
    assert explain_link(tree.root, "c.jpg") == "a link that leads out of the folder; not followed"


def test_links_without_their_files_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "readme.txt")
    (tmp_path / "a.jpg").symlink_to(".git/annex/objects/a.jpg")
    with pytest.raises(SourceError, match=r"1 link .* no file behind it") as caught:
        check_links(read_tree(tmp_path))
    assert "git annex get" in caught.value.fix


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    touch(tmp_path / "root", "a.bmp")
    (tmp_path / "link").symlink_to("root")
    assert read_tree(tmp_path / "link").files == ("a.bmp",)


def test_names_that_are_not_utf8_are_listed_apart(tmp_path: Path) -> None:
    touch(tmp_path, "good.bmp")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.bmp")).touch()
    bad_folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    touch(bad_folder, "inside.bmp")
    tree = read_tree(tmp_path)
    assert tree.files == ("good.bmp",)
    assert tree.bad_names == ("\\xff/inside.bmp", "caf\\xe9.bmp")


@pytest.mark.slow
def test_a_tree_deeper_than_the_stack_of_python(tmp_path: Path) -> None:
    depth = 1500  # of one-letter folders: longer than a path may be, so made from inside
    here = Path.cwd()
    try:
        os.chdir(tmp_path)
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("a.bmp").touch()
    finally:
        os.chdir(here)
    try:
        assert read_tree(tmp_path).files == ("d/" * depth + "a.bmp",)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # shutil's rmtree is recursive


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.write_text("x"), "is a file, not a folder"),
        (lambda root: root.mkdir(), "is empty"),
        (lambda root: (root / "a/b").mkdir(parents=True), "is empty"),
    ],
)
def test_a_root_that_is_not_a_folder(tmp_path: Path, make: object, message: str) -> None:
    root = tmp_path / "root"
    make(root)  # type: ignore[operator]
    with pytest.raises(SourceError, match=message) as caught:
        read_tree(root)
    assert "unpacked" in caught.value.fix


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/b.bmp")
    scandir = os.scandir

    def locked(folder: os.PathLike[str]) -> object:
        if os.fspath(folder).rstrip("/").endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(tree_module.os, "scandir", locked)
    with pytest.raises(SourceError, match=r"cannot list .*Permission denied"):
        read_tree(tmp_path)


def test_a_file_that_went_away_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b.txt")
    tree = read_tree(tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(SourceError, match=r"cannot read a\.txt"):
        tree.read_bytes("a.txt")


@pytest.mark.parametrize(
    ("path", "image", "junk"),
    [
        ("a/b.JPG", True, False),
        ("a/b.jpeg", True, False),
        ("a/b.txt", False, False),
        ("a/Thumbs.db", False, True),
        ("a/.DS_Store", False, True),
        ("a/._b.jpg", True, True),
        ("__MACOSX/a/b.jpg", True, True),
        (".git/objects/ab", False, True),
        ("jpg", False, False),
        (".jpg", False, True),
        ("a/.ipynb_checkpoints/b-checkpoint.jpg", True, True),
        ("@eaDir/b.jpg", True, True),
        ("$RECYCLE.BIN/S-1-5/b.jpg", True, True),
        ("a/__pycache__/b.pyc", False, True),
        ("System Volume Information/b.jpg", True, True),
        ("#recycle/b.jpg", True, True),
        ("lost+found/#12.jpg", True, True),
        ("a/~$ratings.xlsx", False, True),
        ("a/@b.jpg", True, False),
        ("a/__b.jpg", True, False),
        ("recycled paper/b.jpg", True, False),
    ],
)
def test_what_is_an_image_by_its_name_and_what_is_junk(path: str, image: bool, junk: bool) -> None:
    assert (is_image_name(path), is_junk(path)) == (image, junk)


def test_images_are_without_junk(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "._a.jpg", "b.txt", "__MACOSX/c.jpg", "d/e.PNG")
    assert read_tree(tmp_path).images() == ["a.jpg", "d/e.PNG"]


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8)


@given(st.sets(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=8))
def test_every_name_is_listed_once(tmp_path_factory: pytest.TempPathFactory, drawn: set[str]) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name in drawn:
        (root / name).touch()
    tree = read_tree(root)
    assert sorted(drawn) == list(tree.files)


def test_paths_are_a_sequence_of_text(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.jpg", "b/1.jpg", "a.txt", "b/c/3.png", "ü.jpg", "._b.jpg")
    tree = read_tree(tmp_path)
    assert list(tree.files) == ["._b.jpg", "a.txt", "b/1.jpg", "b/2.jpg", "b/c/3.png", "ü.jpg"]
    assert [path in tree.files for path in ("ü.jpg", "a.txt", "b", "z", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert (tree.files[1], tree.files[-1], list(tree.files[1:2])) == ("a.txt", "ü.jpg", ["a.txt"])
    assert tree.images().one_per_folder() == ["b/1.jpg", "b/c/3.png", "ü.jpg"]
    assert list(tree.images().inside("b/")) == ["b/1.jpg", "b/2.jpg", "b/c/3.png"]
    assert list(tree.others()) == ["a.txt"]


@given(
    st.text(st.sampled_from("aJ.P/g_\nthumbs"), min_size=1, max_size=12),
    st.sampled_from(["", ".JPG", ".git/x"]),
)
def test_arrays_of_paths_are_classified_like_single_paths(stem: str, end: str) -> None:
    path = stem + end
    assert are_images(pa.array([path])).to_pylist() == [is_image_name(path)]
    assert are_junk(pa.array([path])).to_pylist() == [is_junk(path)]


def test_a_file_with_an_unknown_suffix_is_an_image_by_its_first_bytes(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8))
    containers = {"a": "PNG", "b.jpg_large": "JPEG", "c.img": "BMP", "d.x": "AVIF", "e.y": "JPEG2000"}
    for name, container in containers.items():
        image.save(tmp_path / name, container)
    image.save(tmp_path / "table.dat", "PNG")  # a suffix of tables: not opened
    image.save(tmp_path / "camera.nef", "TIFF")  # camera raw: its TIFF is a preview
    image.save(tmp_path / "._f.img", "PNG")
    (tmp_path / "notes.x").write_text("BM, and other words")
    tree = read_tree(tmp_path)
    assert list(tree.images()) == list(containers)
    assert list(tree.others()) == ["camera.nef", "notes.x", "table.dat"]
    assert list(Tree(tmp_path, ["gone.x", "z.jxl"]).images()) == ["z.jxl"]
