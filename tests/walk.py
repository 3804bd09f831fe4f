"""A working folder in which commands run in any order, and an independent record of what was held out.

The record knows what each image was made from, and nothing of what the package stores. An image that was ever
val or test in a manifest, its look-alikes and its group must not be in train of a later release of it, nor of
one that takes its splits from a release (--split-from), whatever that one lacks, nor be filled in elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from PIL import Image

from affectdata.cli._main import run

SOURCES = ("a", "b")
STEPS = (
    *("add", "like", "move", "back", "ingest", "split", "balance", "fill", "from"),
    *("concat", "remove", "export", "reimport", "chain"),
)
EXPORTED = "e"  # the manifest of an export that was ingested again
FORMS = (("folders", "--by", "subtype"), ("webdataset",), ("hf",))
_OK = (0, 1)


class Killed(BaseException):
    """What a SIGKILL leaves: nothing runs after it."""


@contextlib.contextmanager
def killed_at(n_renames: int) -> Iterator[None]:
    """Kill the process, as far as files can tell, at a rename; none of the clean-up reaches the disk."""
    original, left = Path.replace, [n_renames]

    def replace(self: Path, target: Path) -> Path:
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return original(self, target)

    Path.replace = replace  # type: ignore[method-assign, assignment]
    try:
        yield
    except Killed:
        pass
    finally:
        Path.replace = original  # type: ignore[method-assign]


def cluster_of(path: str) -> str:
    """Return what an image was made from: `g3-s1-v2.png` is version 2 of image 3 of subject 1."""
    return Path(path).name.split("-")[0]


def subject_of(path: str) -> str:
    return Path(path).name.split("-")[1]


@dataclass
class Walk:
    """Commands over a working folder; each raises AssertionError if the promise is broken."""

    root: Path
    held: dict[str, set[str]] = field(
        default_factory=dict
    )  # by manifest: keys of images, and of their groups
    releases: list[Path] = field(default_factory=list)
    n_images: int = 0
    n_checked: int = 0
    log: list[str] = field(default_factory=list)
    last: str = ""
    _of_exports: set[Path] = field(default_factory=set)
    _held_by: dict[Path, set[str]] = field(default_factory=dict)  # by release: what its line held out

    def __post_init__(self) -> None:
        for source in SOURCES:
            (self.root / source).mkdir(parents=True)
            (self.root / f"away_{source}").mkdir()
            columns = {"valence": "v", "subject_id": "s", "subtype": "k"}
            mapped = {"name": source, "table": "r.csv", "key": "file", "scales": {"valence": [1, 9]}}
            mapped |= {"columns": columns, "license": "CC BY 4.0"}
            (self.root / f"{source}.yaml").write_text(yaml.safe_dump(mapped))
            for _ in range(12):
                self.add(source)
            self.ingest(source)

    # --- the tree

    def add(self, source: str, like: str | None = None) -> None:
        """Add an image: a new one, or another version of `like` (re-encoded, or larger)."""
        self.n_images += 1
        number = self.n_images
        key = like or f"g{number}"
        seed = int(key[1:])
        subject = f"s{seed // 4}" if seed % 3 == 0 else f"t{seed}"
        small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
        size = (64, 48) if number % 2 else (80, 60)
        pixels = Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC).resize(size)
        suffix = "jpg" if number % 3 else "png"
        pixels.save(self.root / source / f"{key}-{subject}-v{number}.{suffix}")

    def images(self, folder: str) -> list[Path]:
        return sorted(path for path in (self.root / folder).iterdir() if path.suffix in (".jpg", ".png"))

    def move(self, source: str, number: int, back: bool) -> None:
        """Take an image away, or bring one back."""
        here, there = (f"away_{source}", source) if back else (source, f"away_{source}")
        images = self.images(here)
        if len(images) > (0 if back else 6):
            image = images[number % len(images)]
            image.rename(self.root / there / image.name)

    def _write_table(self, source: str) -> None:
        lines = ["file,v,s,k"]
        for path in self.images(source):
            seed = int(cluster_of(path.name)[1:])
            lines.append(f"{path.name},{1 + seed * 7 % 9},{subject_of(path.name)},{'xy'[seed % 2]}")
        (self.root / source / "r.csv").write_text("\n".join(lines) + "\n")

    # --- commands

    def run(self, *arguments: str, kill_at: int | None = None) -> int | None:
        """Run a command; return its exit code, None if it was killed."""
        self.log.append(" ".join(arguments) + ("" if kill_at is None else f"  # killed at {kill_at}"))
        code, out = None, io.StringIO()
        kill = contextlib.nullcontext() if kill_at is None else killed_at(kill_at)
        streams = contextlib.redirect_stderr(out), contextlib.redirect_stdout(out)
        with contextlib.chdir(self.root), streams[0], streams[1], kill:
            code = run([*arguments, "--quiet"])
        self.last = out.getvalue()
        assert code != 70, "\n".join([*self.log, self.last])
        return code

    def ingest(self, source: str, kill_at: int | None = None) -> None:
        self._write_table(source)
        code = self.run("ingest", source, "--source", "table", "--map", f"{source}.yaml", kill_at=kill_at)
        assert code in (*_OK, None), self.log
        self._remember(source)

    def recipe(self, seed: int, fill_from: str | None = None, where: bool = False) -> str:
        document = {
            "name": "r",
            "seed": seed,
            "target": "valence",
            "bins": {"width": 50},
            "strata": [],
            "split": {"val": 0.15, "test": 0.25},
            "image": {"size_px": [64, 48]},
            "where": "valence < 80" if where else None,
            "balance": {"max_copies": 1, **({"fill_from": [fill_from]} if fill_from else {})},
        }
        path = self.root / f"r{seed}{fill_from or ''}{'w' if where else ''}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path.name

    def manifests(self) -> list[str]:
        folder = self.root / "manifests"
        return sorted(path.stem for path in folder.glob("*.parquet") if "." not in path.stem)

    def split(self, name: str, seed: int, split_from: int | None = None, kill_at: int | None = None) -> None:
        options = ["split", f"manifests/{name}.parquet", "--recipe", self.recipe(seed)]
        earlier = self._earlier(split_from)
        options += ["--split-from", str(earlier.relative_to(self.root))] if earlier else []
        if self.run(*options, kill_at=kill_at) in _OK and earlier:
            self.held.setdefault(name, set()).update(self._held_by[earlier])
        self._remember(name)

    def _earlier(self, number: int | None) -> Path | None:
        """Return a release to take splits from; the newest one for -1."""
        if number is None or not self.releases:
            return None
        return self.releases[number if number < 0 else number % len(self.releases)]

    def concat(self) -> None:
        if {*SOURCES} <= {*self.manifests()}:
            paths = [f"manifests/{source}.parquet" for source in SOURCES]
            if self.run("concat", *paths, "--name", "both", "--on-conflict", "first") in _OK:
                inherited = set().union(*(self.held.get(source, set()) for source in SOURCES))
                self.held.setdefault("both", set()).update(inherited)
                self._remember("both")

    def balance(
        self,
        name: str,
        seed: int,
        fill_from: str | None = None,
        split_from: int | None = None,
        kill_at: int | None = None,
        where: bool = False,
    ) -> None:
        """Make a release and check that its train split has nothing that its lines ever held out."""
        if name not in self.manifests() or (fill_from and fill_from not in self.manifests()):
            return
        fill_from = None if fill_from == name or name not in SOURCES else fill_from
        recipe = self.recipe(seed, fill_from, where)
        options = ["balance", "--recipe", recipe, "--manifest", f"manifests/{name}.parquet", "--json"]
        options += ["--no-report", "--workers", "1"]
        earlier = self._earlier(split_from)
        if earlier:
            options += ["--split-from", str(earlier.relative_to(self.root)), "--on-conflict", "drop-train"]
        before = self._listed()
        if self.run(*options, kill_at=kill_at) not in _OK:
            return
        for release in sorted(self._listed() - before):
            self._check(release, name, fill_from, earlier)

    def _listed(self) -> set[Path]:
        return {path.parent for path in (self.root / "releases").glob("[!.]*/release.json")}

    def _check(self, release: Path, name: str, fill_from: str | None, earlier: Path | None) -> None:
        """Check train against what the release, its manifest and an earlier release hold out.

        What is filled in from another manifest is checked against that one too.
        """
        rows = _read_rows(release / "manifest.parquet")
        held = self.held.get(name, set()) | (self._held_by[earlier] if earlier else set())
        own = set().union(*(_keys(row) for row in rows if row["split"] in ("val", "test")), held)
        filled = own | self.held.get(fill_from or "", set())
        train = [row for row in rows if row["split"] == "train"]
        limits = [(row, filled if row["source"] == fill_from else own) for row in train]
        leaked = sorted(row["path"] for row, limit in limits if _keys(row) & limit)
        self.n_checked += 1
        message = f"{release.name}: in train, and was held out or is like what was: {leaked}"
        assert not leaked, "\n".join([*self.log, message])
        self._held_by[release] = own
        if name == EXPORTED:
            self._of_exports.add(release)
        self.releases.append(release)
        if self.n_checked % 4 == 0:
            assert self.run("verify", str(release.relative_to(self.root))) == 0, self.last

    def export(self, number: int, kill_at: int | None = None) -> None:
        """Export a release as folders, perhaps killed on the way."""
        if not self.releases:
            return
        release = self.releases[number % len(self.releases)]
        out = self.root / "exported"
        shutil.rmtree(out, ignore_errors=True)
        options = ["export", str(release.relative_to(self.root)), "--to", "folders", "--by", "subtype"]
        self.run(*options, "--out", "exported", "--i-may-redistribute", kill_at=kill_at)

    def reimport(self, number: int, kill_at: int | None = None) -> None:
        """Export a release and ingest what was written."""
        made_of = [release for release in self.releases if release not in self._of_exports]
        if not made_of:
            return
        release, form = made_of[number % len(made_of)], FORMS[number % len(FORMS)]
        shutil.rmtree(self.root / "exported", ignore_errors=True)
        source = str(release.relative_to(self.root))
        done = self.run("export", source, "--to", *form, "--out", "exported", "--i-may-redistribute")
        assert done == 0, self.last
        code = self.run("ingest", "exported", "--name", EXPORTED, "--replace", kill_at=kill_at)
        assert code in (*_OK, None), "\n".join([*self.log, self.last])
        self._remember(EXPORTED)

    def remove_manifest(self, source: str) -> None:
        """Remove a manifest, and not its ledger: the next ingest makes it anew."""
        (self.root / "manifests" / f"{source}.parquet").unlink(missing_ok=True)

    def step(self, rng: random.Random, name_of_step: str | None = None) -> None:  # noqa: C901
        """Take a step, or one chosen by chance."""
        source, number = rng.choice(SOURCES), rng.randrange(100)
        name = rng.choice([*SOURCES, "both", EXPORTED])
        kill_at = rng.choice([None, None, None, 0, 1, 2, 3, 6])
        match name_of_step or rng.choice(STEPS):
            case "add":
                self.add(source)
            case "like":
                images = self.images(source) + self.images(f"away_{source}")
                self.add(rng.choice(SOURCES), cluster_of(rng.choice(images).name))
            case "move" | "back" as way:
                for _ in range(3):
                    self.move(source, rng.randrange(100), way == "back")
                self.ingest(source, kill_at)
            case "ingest":
                self.ingest(source, kill_at)
            case "split" if name in self.manifests():
                self.split(name, number % 4, number if number % 3 == 0 else None, kill_at)
            case "balance":
                self.balance(name, number % 4, kill_at=kill_at, where=number % 5 == 0)
            case "fill":
                self.balance(source, number % 4, fill_from=SOURCES[source == SOURCES[0]])
            case "from":
                self.balance(name, number % 4, split_from=number, where=number % 5 == 0)
            case "chain":  # images come and go between releases, each made with --split-from the last one
                for back in (False, True):
                    for _ in range(4):
                        self.move(source, rng.randrange(100), back)
                    self.ingest(source)
                    self.balance(source, rng.randrange(4), split_from=-1)
            case "concat":
                self.concat()
            case "remove":
                self.remove_manifest(source)
            case "export":
                self.export(number, kill_at)
            case "reimport":
                self.reimport(number, kill_at)

    def _remember(self, name: str) -> None:
        """Record what a manifest holds out now."""
        path = self.root / "manifests" / f"{name}.parquet"
        if path.is_file():
            for row in _read_rows(path):
                if row["split"] in ("val", "test"):
                    self.held.setdefault(name, set()).update(_keys(row))


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Read the rows of a manifest or release; the path of a re-imported image is that of its original."""
    rows = pq.read_table(path, columns=["path", "split", "source", "extra"]).to_pylist()
    return [{**row, "path": json.loads(row["extra"]).get("path", row["path"])} for row in rows]


def _keys(row: dict[str, str]) -> set[str]:
    """Return the keys of an image that must stay on one side: what it was made from, and its subject.

    A subject of one source is not that of another.
    """
    return {cluster_of(row["path"]), f"{row['source']}/{subject_of(row['path'])}"}
