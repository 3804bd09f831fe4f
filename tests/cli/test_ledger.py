"""No held-out image reaches train: not after it was away, re-encoded, concatenated, or offered as a fill.

Every image is a number; its copies (re-encoded, mirrored) have the same number. What was ever held out is
kept here by number, from what the commands wrote, and compared with the train rows of every release.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import imagehash
import numpy as np
import pyarrow.compute as pc
import pytest
import yaml
from PIL import Image

from affectdata.manifest.manifest import load_manifest
from affectdata.release.held_out import read_held_out
from affectdata.release.lineage import check_lineage
from affectdata.release.release import LEDGER_FILE, open_release
from affectdata.store.files import hash_file
from affectdata.store.parquet import write_table

pytestmark = pytest.mark.slow

Cli = Callable[..., Any]
REST: dict[str, Any] = {
    "target": "valence",
    "bins": {"width": 20},
    "strata": [],
    "split": {"val": 0.15, "test": 0.15},
    "image": {"size_px": [16, 16]},
    "pipelines": {"flip": [{"HorizontalFlip": {"p": 0.5}}]},
    "subtypes": {"default": {"pipeline": "flip"}},
    "mode": "virtual",
}


def draw(number: int) -> Image.Image:
    small = np.random.default_rng(number).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC)


class Line:
    """A source folder, its manifest, and the numbers of the images that it ever held out (val, test)."""

    def __init__(self, name: str, cli: Cli, first: int = 0, n: int = 0, themes_group: bool = True) -> None:
        self.name, self.cli, self.folder, self.themes_group = name, cli, Path(name), themes_group
        self.number: dict[str, int] = {}  # by path
        self.rated: dict[str, str] = {}  # the row of the table, by path
        self.held: set[int] = set()
        self.folder.mkdir()
        for number in range(first, first + n):
            self.add(number)

    def add(self, number: int, how: str = "plain", theme: str = "", declared: str = "") -> str:
        path, image = f"{self.name}{number}_{how}{len(self.rated)}.jpg", draw(number)
        if how == "mirrored":
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        elif how == "encoded":
            image.save(self.folder / path, quality=75)
            assert imagehash.phash(image) - imagehash.phash(Image.open(self.folder / path)) <= 6
        if how != "encoded":
            image.save(self.folder / path, quality=92)
        values = [1.5, 3, 5, 7, 8.5] if self.name == "b" else [5, 5, 5, 7, 5, 3]
        self.number[path] = number
        self.rated[path] = f"{path},{values[number % len(values)]},{theme},{declared}"
        return path

    def remove(self, path: str) -> None:
        (self.folder / path).rename(Path("away") / path)

    def bring_back(self, path: str) -> None:
        (Path("away") / path).rename(self.folder / path)

    @property
    def manifest(self) -> Path:
        return Path(f"manifests/{self.name}.parquet")

    def ingest(self, *more: object) -> dict[str, Any]:
        (self.folder / "r.csv").write_text("\n".join(["file,v,theme,split", *self.rated.values()]) + "\n")
        columns = {"valence": "v", "theme" if self.themes_group else "gender": "theme", "split": "split"}
        document = {"name": self.name, "table": "r.csv", "key": "file", "scales": {"valence": [1, 9]}}
        groups = ["theme"] if self.themes_group else []
        document |= {"columns": columns, "groups": groups, "license": "CC BY 4.0"}
        Path(f"{self.name}.yaml").write_text(yaml.safe_dump(document))
        ran = self.cli("ingest", self.folder, "--map", f"{self.name}.yaml", "--json", *more)
        assert ran.code == 0, ran.err
        self.note()
        found: dict[str, Any] = ran.document
        return found

    def note(self) -> None:
        self.held |= {self.number[path] for path, split in self.splits().items() if split in ("val", "test")}

    def splits(self) -> dict[str, str | None]:
        rows = load_manifest(self.manifest).table.select(["path", "split"]).to_pylist()
        return {row["path"]: row["split"] for row in rows}

    def split(self, *more: object, seed: int = 1) -> Any:
        write_recipe(f"r{self.name}", seed=seed)
        ran = self.cli("split", self.manifest, "--recipe", f"r{self.name}.yaml", *more)
        if ran.code == 0:
            self.note()
        return ran

    def tests(self) -> list[str]:
        return sorted(path for path, split in self.splits().items() if split == "test")


def write_recipe(name: str, seed: int = 1, fill_from: list[str] | None = None, **changes: Any) -> None:
    balance = {"max_copies": 2, **({"fill_from": fill_from} if fill_from else {})}
    document = {"name": name, "seed": seed, **REST, "balance": balance, **changes}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(document))


def balance(
    cli: Cli, line: Line, *more: object, seed: int = 2, fill: list[str] | None = None, **changes: Any
) -> Any:
    write_recipe("release", seed, fill, sources=[line.name], **changes)
    return cli("balance", "--recipe", "release.yaml", "--json", *more)


def trained(ran: Any, line: Line) -> set[int]:
    """The numbers of the images of a line in the train split of a release."""
    assert ran.code == 0, ran.err
    rows = open_release(ran.document["release"]).split("train").select(["path", "source"]).to_pylist()
    return {line.number[row["path"]] for row in rows if row["source"] == line.name}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("away").mkdir()


@pytest.fixture
def a(cli: Cli) -> Line:
    """Thirty images, split."""
    line = Line("a", cli, n=30)
    line.ingest()
    assert line.split().code == 0
    assert len(line.held) > 5 and line.tests()
    return line


def texts(document: dict[str, Any]) -> list[str]:
    return [each["text"] for each in document["findings"] if each["kind"] == "splits"]


# --- away and back ---------------------------------------------------------------------------------------


def test_images_that_were_away_come_back_to_their_split(cli: Cli, a: Line) -> None:
    before = a.splits()
    gone = a.tests()
    for path in gone:
        a.remove(path)
    said = texts(a.ingest())
    assert said[0].startswith(f"{30 - len(gone)} images keep the former split")
    assert said[1].startswith(f"no longer in the manifest: {len(gone)} image")
    for path in gone:
        a.bring_back(path)
    for number in range(100, 130):
        a.add(number)
    assert [text for text in texts(a.ingest()) if text.startswith("30 images keep")]
    after = a.splits()
    assert {path: after[path] for path in before} == before
    assert trained(balance(cli, a), a).isdisjoint(a.held)


@pytest.mark.parametrize("how", ["encoded", "mirrored"])
@pytest.mark.parametrize("away", [True, False])
def test_a_copy_of_a_held_out_image_has_its_split(cli: Cli, a: Line, how: str, away: bool) -> None:
    gone = a.tests()
    for path in gone if away else ():
        a.remove(path)
        del a.rated[path]
    a.ingest()
    new = [a.add(a.number[path], how) for path in gone]
    (said,) = [text for text in texts(a.ingest()) if "near-duplicate" in text]
    assert said.startswith(f"{len(new)} images inherit the split")
    assert sum(path in said for path in new) == min(3, len(new))
    assert {a.splits()[path] for path in new} == {"test"}
    assert trained(balance(cli, a), a).isdisjoint(a.held)


def test_a_member_of_a_declared_group_has_the_split_of_those_that_are_gone(cli: Cli) -> None:
    a = Line("a", cli, n=30)
    themes = {number: f"theme {number // 3}" for number in range(40, 70)}
    for number, theme in themes.items():
        a.add(number, theme=theme)
    a.ingest()
    a.split()
    theme = next(themes[n] for n in sorted(a.held) if n in themes)
    for path in [path for path in a.rated if a.rated[path].split(",")[2] == theme]:
        del a.rated[path]
        a.remove(path)
    a.ingest()
    new = a.add(200, theme=theme)
    a.ingest()
    assert a.splits()[new] in ("val", "test")


@pytest.mark.parametrize("way", ["deleted", "replaced", "broken"])
def test_the_ledger_outlives_its_manifest(a: Line, way: str) -> None:
    before = a.splits()
    if way == "deleted":
        a.manifest.unlink()
    elif way == "broken":
        a.manifest.write_bytes(b"no manifest")
    else:
        shutil.copytree("a", "other/a")
        a.folder = Path("other/a")
    a.ingest(*(["--replace"] if way == "replaced" else []))
    assert a.splits() == before


def test_a_manifest_without_a_ledger_gets_one(a: Line) -> None:
    ledger = Path("manifests/a.ledger.parquet")
    written = ledger.read_bytes()
    ledger.unlink()
    gone = a.tests()
    for path in gone:
        a.remove(path)
    a.ingest()
    for path in gone:
        a.bring_back(path)
    a.ingest()
    assert ledger.read_bytes() == written


def test_a_ledger_that_changed_is_reason_enough_to_ingest_again(a: Line, cli: Cli) -> None:
    a.ingest()
    before = a.splits()
    Path("manifests/a.parquet").unlink()
    a.ingest()
    Path("manifests/a.ledger.parquet").unlink()
    a.ingest()  # from the manifest
    assert Path("manifests/a.ledger.parquet").exists() and a.splits() == before


def test_the_remembered_split_beats_another_of_the_source(cli: Cli) -> None:
    a = Line("a", cli, n=20)
    path = a.add(50, declared="test")
    a.ingest()
    assert a.splits()[path] == "test"
    a.rated[path] = a.rated[path].replace("test", "train")
    (said,) = [text for text in texts(a.ingest()) if "another split" in text]
    assert f"{path} (train in the source, test kept)" in said
    assert "affectdata split manifests/a.parquet --forget" in said
    assert a.splits()[path] == "test"
    assert cli("split", a.manifest, "--forget").code == 0
    a.ingest()
    assert a.splits()[path] == "train"


def test_a_failure_before_the_manifest_is_there_forgets_nothing(
    cli: Cli, a: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("split", a.manifest, "--forget").code == 0

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("affectdata.manifest.manifest.write_manifest", full)
        assert a.split(seed=1).code != 0
    assert set(a.splits().values()) == {None}
    assert trained(balance(cli, a), a).isdisjoint(a.held)  # the ledger has what the manifest has not
    assert a.split(seed=9).code == 0
    assert trained(balance(cli, a), a).isdisjoint(a.held)


# --- forgetting ------------------------------------------------------------------------------------------


def test_splits_are_forgotten_when_asked(cli: Cli, a: Line) -> None:
    a.remove(a.tests()[0])
    a.ingest()
    ran = cli("split", a.manifest, "--forget", "--json")
    assert (ran.code, ran.document["forgotten"]) == (0, 30)
    assert ran.document["digest"] == load_manifest(a.manifest).digest
    assert not Path("manifests/a.ledger.parquet").exists()
    assert set(a.splits().values()) == {None}
    a.ingest()
    assert set(a.splits().values()) == {None}
    ran = cli("split", a.manifest, "--forget")
    assert ran.out == f"forgot the splits of 0 images of {a.manifest}\n"


def test_a_ledger_without_a_manifest_is_forgotten_too(cli: Cli, a: Line) -> None:
    a.manifest.unlink()
    assert "30 images" in cli("split", a.manifest, "--forget").out
    assert cli("split", a.manifest, "--forget").code == 3
    a.ingest()
    assert set(a.splits().values()) == {None}


@pytest.mark.parametrize("more", [(), ("--forget", "--recipe", "ra.yaml"), ("--forget", "--split-from", "x")])
def test_a_recipe_or_forget_and_not_both(cli: Cli, a: Line, more: tuple[str, ...]) -> None:
    before = a.splits()
    assert cli("split", a.manifest, *more).code == 2
    assert a.splits() == before


# --- other ways into train -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["encoded", "mirrored"])
@pytest.mark.parametrize("command", ["balance", "split"])
def test_a_copy_of_an_earlier_release_s_test_image_is_test(cli: Cli, how: str, command: str) -> None:
    a = Line("a", cli, n=30)
    a.ingest()
    ran = balance(cli, a)
    release, old = ran.document["release"], open_release(ran.document["release"]).table
    held = {a.number[path] for path in old["path"].to_pylist()} - trained(ran, a)
    other = Line("c", cli)
    for number in range(30):
        other.add(number, how)
    other.ingest()
    if command == "balance":
        assert trained(balance(cli, other, "--split-from", release), other).isdisjoint(held)
    else:
        assert other.split("--split-from", release).code == 0
        assert {other.number[p] for p, s in other.splits().items() if s in ("val", "test")} == held


def test_train_that_looks_like_a_retired_test_image_is_refused(cli: Cli, a: Line) -> None:
    """The test image came with its split, when its look-alike was in train already."""
    path = next(path for path, split in a.splits().items() if split == "train")
    new = a.add(a.number[path], "encoded", declared="test")
    a.ingest()
    assert a.splits()[new] == "test"
    assert balance(cli, a).code == 4
    a.remove(new)
    a.ingest()
    ran = balance(cli, a)
    assert ran.code == 4
    assert "one group is in two splits" in ran.err and "in train" in ran.err and "--on-conflict" in ran.err
    assert trained(balance(cli, a, "--on-conflict", "drop-train"), a).isdisjoint(a.held)


def test_concat_remembers_what_its_parts_do(cli: Cli, a: Line) -> None:
    gone = a.tests()
    for path in gone:
        a.remove(path)
    a.ingest()
    b = Line("b", cli, first=1000, n=20)
    new = [b.add(a.number[path], "encoded") for path in gone]
    b.ingest()
    assert cli("concat", a.manifest, b.manifest, "--name", "all").code == 0
    rows = load_manifest("manifests/all.parquet").table.select(["path", "split"]).to_pylist()
    assert {row["split"] for row in rows if row["path"] in new} == {"test"}
    for path in gone:
        a.bring_back(path)
    a.ingest()
    Path("manifests/all.parquet").unlink()
    Path("manifests/a.ledger.parquet").unlink()
    assert cli("concat", a.manifest, b.manifest, "--name", "all").code == 0
    write_recipe("release", sources=["all"])
    ran = cli("balance", "--recipe", "release.yaml", "--json")
    assert (trained(ran, a) | trained(ran, b)).isdisjoint(a.held)


@pytest.mark.parametrize("where", ["rows", "retired", "release", "group", "copies"])
def test_no_held_out_image_of_another_manifest_fills(cli: Cli, where: str) -> None:
    a, b = Line("a", cli, n=30), Line("b", cli, first=1000, n=30)
    a.ingest()
    b.ingest()
    more: list[object] = []
    if where == "release":
        ran = balance(cli, b)
        b.held = set(b.number.values()) - trained(ran, b)
        more = ["--split-from", ran.document["release"]]
    else:
        b.split()
    held = sorted(path for path in b.rated if b.number[path] in b.held)
    if where in ("retired", "copies"):
        for path in held:
            b.remove(path)
            del b.rated[path]
        b.ingest()
    lines = [b]
    if where == "copies":  # in a third manifest, where they have no split
        lines.append(Line("d", cli, first=2000, n=30))
        for number in b.held:
            lines[1].add(number, "encoded")
        lines[1].ingest()
    if where == "group":
        b.add(3000, theme="one")
        b.rated[held[0]] = b.rated[held[0]].replace(",,", ",one,", 1)
        b.held.add(3000)
        b.ingest()
    ran = balance(cli, a, *more, fill=[line.name for line in lines])
    assert ran.code == 0, ran.err
    found = set().union(*(trained(ran, line) for line in lines))
    assert len(found) > 3  # something fills
    assert found.isdisjoint(b.held)


# --- along a chain of releases ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["plain", "encoded", "mirrored", "theme", "group column"])
@pytest.mark.parametrize("command", ["balance", "split"])
def test_a_chain_of_releases_remembers_what_one_of_them_lacks(cli: Cli, how: str, command: str) -> None:
    """By bytes, look-alikes and groups; no manifest has splits before the last step."""
    a = Line("a", cli, themes_group=how != "group column")
    for number in range(30):
        a.add(number, theme=f"t{number // 2}" if how in ("theme", "group column") else "")
    a.ingest()
    split = {**REST["split"], **({"groups": ["gender"]} if how == "group column" else {})}
    first = balance(cli, a, split=split)
    held = set(range(30)) - trained(first, a)
    gone = {path: row for path, row in a.rated.items() if a.number[path] in held}
    assert len(gone) > 5
    for path in gone:
        a.remove(path)
        del a.rated[path]
    a.ingest()
    second = balance(cli, a, "--split-from", first.document["release"], split=split)
    assert trained(second, a) == set(range(30)) - held
    for path, row in gone.items():
        if how == "plain":
            a.bring_back(path)
            a.rated[path] = row
        elif how in ("encoded", "mirrored"):
            a.add(a.number[path], how)
        else:  # new images of the same group
            a.number[a.add(100 + a.number[path], theme=row.split(",")[2])] = a.number[path]
    a.ingest()
    release = second.document["release"]
    for seed in range(3 if command == "balance" else 0):
        third = balance(cli, a, "--split-from", release, split=split, seed=seed)
        assert trained(third, a).isdisjoint(held)
        assert cli("verify", third.document["release"]).code == 0
    if command == "split":
        write_recipe("ra", split=split)
        assert cli("split", a.manifest, "--recipe", "ra.yaml", "--split-from", release).code == 0
        assert held <= {a.number[path] for path, side in a.splits().items() if side in ("val", "test")}


def test_the_ledger_of_a_manifest_takes_over_what_a_release_remembers(cli: Cli) -> None:
    a = Line("a", cli, n=30)
    a.ingest()
    first = balance(cli, a)
    held = set(range(30)) - trained(first, a)
    gone = [path for path in a.rated if a.number[path] in held]
    for path in gone:
        a.remove(path)
    a.ingest()
    assert a.split("--split-from", first.document["release"]).code == 0
    for path in gone:
        a.bring_back(path)
    a.ingest()
    assert trained(balance(cli, a), a).isdisjoint(held)


def test_what_a_recipe_leaves_out_of_a_release_is_remembered(cli: Cli, a: Line) -> None:
    """A test image that `where` drops; a later release is made of look-alikes in another manifest."""
    first = balance(cli, a, where="split = 'train' OR split = 'val' OR theme = 'none'")
    left_out = {a.number[path] for path in a.tests()}
    assert first.code == 0, first.err
    b = Line("b", cli)
    for number in range(30):
        b.add(number, "encoded")
    b.ingest()
    ran = balance(cli, b, "--split-from", first.document["release"])
    assert trained(ran, b).isdisjoint(left_out)


@pytest.mark.parametrize("damage", ["missing", "changed", "other", "fifo"])
def test_a_release_without_its_ledger_is_refused(cli: Cli, a: Line, damage: str) -> None:
    for path in a.tests():
        a.remove(path)
    a.ingest()
    release = Path(balance(cli, a).document["release"])
    ledger = release / ".affectdata" / "ledger.parquet"
    assert open_release(release).info["ledger_sha256"] and cli("verify", release).code == 0
    data = ledger.read_bytes()
    ledger.unlink()
    if damage == "fifo":
        os.mkfifo(ledger)
    elif damage != "missing":
        ledger.write_bytes(
            data[:-1] + b"x" if damage == "changed" else Path("manifests/a.parquet").read_bytes()
        )
    for command in (("verify", release), ("balance", "--recipe", "release.yaml", "--split-from", release)):
        ran = cli(*command)
        assert ran.code == 4 and ".affectdata/ledger.parquet" in ran.out + ran.err


def test_verify_finds_in_train_what_the_ledger_holds_out(cli: Cli, a: Line) -> None:
    """A release whose ledger was made from its own train images, each related to one in another way."""
    tests = a.tests()
    for path in tests:
        a.remove(path)
    a.ingest()
    release = open_release(balance(cli, a).document["release"])
    held, train = read_held_out(release), release.split("train")
    train = train.filter(pc.equal(train["copy"], 0))
    for name, message in (
        ("image_id", "held it out"),
        ("pixel_id", "has the pixels"),
        ("group_id", "in the group"),
        ("phash", "looks alike"),
    ):
        columns = ["phash", "phash_views"] if name == "phash" else [name]
        forged = held.slice(0, 1)
        for column in columns:
            at = forged.column_names.index(column)
            forged = forged.set_column(at, held.schema.field(column), train[column].slice(0, 1))
        path = release.path / LEDGER_FILE
        write_table(forged, path, "ledger")
        info = {**release.info, "ledger_sha256": hash_file(path)}
        found = check_lineage(replace(release, info=info))
        assert len(found) == 1 and message in found[0].text


# --- a walk ----------------------------------------------------------------------------------------------


class Walk:
    """Two lines and what is made of both, changed at random; `held` is what each line ever held out."""

    def __init__(self, seed: int, cli: Cli) -> None:
        self.random, self.cli = Random(seed), cli
        self.a, self.b = Line("a", cli, n=24), Line("b", cli, first=1000, n=24)
        self.away: list[tuple[Line, str]] = []
        self.held_all: set[int] = set()
        self.n_checked = 0
        for line in (self.a, self.b):
            line.ingest()
        self.a.split()

    def step(self) -> None:
        steps = [self.remove, self.remove, self.bring_back, self.copy, self.copy, self.new, self.split]
        self.random.choice(steps)()
        self.random.choice([self.check_line, self.check_fill, self.check_concat])()

    @property
    def line(self) -> Line:
        return self.random.choice([self.a, self.b])

    def remove(self) -> None:
        line = self.line
        there = sorted(path for path in line.rated if (line.folder / path).exists())
        held = [path for path in there if line.number[path] in line.held]
        for path in self.random.sample(held or there, min(len(held or there), self.random.randint(1, 4))):
            line.remove(path)
            self.away.append((line, path))
        line.ingest()

    def bring_back(self) -> None:
        for _ in range(min(len(self.away), 3)):
            line, path = self.away.pop(self.random.randrange(len(self.away)))
            line.bring_back(path)
            line.ingest()

    def copy(self) -> None:
        """Put copies of images of either line into one."""
        line, known = self.line, sorted({*self.a.held, *self.b.held}) or [0]
        for number in self.random.sample(known, min(3, len(known))):
            line.add(number, self.random.choice(["encoded", "mirrored"]))
        line.ingest()

    def new(self) -> None:
        for _ in range(5):
            declared = self.random.choice(["", "", "test"])
            self.line.add(self.random.randrange(2000, 9000), declared=declared)
        for line in (self.a, self.b):
            line.ingest()

    def split(self) -> None:
        assert self.line.split(seed=self.random.randrange(99)).code in (0, 4)

    def concat(self) -> bool:
        ran = self.cli("concat", self.a.manifest, self.b.manifest, "--name", "all", "--on-conflict", "first")
        assert ran.code in (0, 4), ran.err  # 4: one image has two splits
        if ran.code == 0:
            self.held_all |= self.a.held | self.b.held
        return bool(ran.code == 0)

    def check_line(self) -> None:
        line = self.line
        self._check(lambda *more: balance(self.cli, line, *more, seed=self.random.randrange(99)), line.held)

    def check_fill(self) -> None:
        held = self.a.held | self.b.held
        self._check(lambda *more: balance(self.cli, self.a, *more, fill=["b"]), self.a.held, held)

    def check_concat(self) -> None:
        if self.concat():
            write_recipe("release", sources=["all"])
            self._check(
                lambda *more: self.cli("balance", "--recipe", "release.yaml", "--json", *more), self.held_all
            )

    def _check(self, make: Callable[..., Any], held: set[int], from_b: set[int] | None = None) -> None:
        ran = make()
        assert ran.code in (0, 4), ran.err
        if ran.code == 4:
            ran = make("--on-conflict", "drop-train")
        if ran.code == 4:  # a quarrel between val and test, which is for a person to settle
            assert "in val" in ran.err and "in test" in ran.err
            return
        self.n_checked += 1
        assert trained(ran, self.a).isdisjoint(held)
        assert trained(ran, self.b).isdisjoint(from_b or held)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_nothing_that_was_held_out_is_trained_on(cli: Cli, seed: int) -> None:
    walk = Walk(seed, cli)
    for _ in range(12):
        walk.step()
    assert walk.n_checked > 2
