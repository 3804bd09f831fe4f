"""Try to break the promises of docs/reliability.md for some time, and write there what held: `make torture`.

python -m tests.torture [--seconds 300] [--seed 0] [--out docs/reliability.md]

Commands run in forked processes, so that SIGKILL is a real one. Exit code 70 anywhere is a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import affectdata.api
import affectdata.release.publish
import affectdata.release.verify  # noqa: F401
from affectdata.cli._main import run
from affectdata.errors import AffectdataError, DecodeError
from affectdata.images.decode import decode
from affectdata.manifest.manifest import load_manifest
from affectdata.release.info import CONTENT_HASH, content_hash
from tests.walk import Walk

_CRASH = "crash"
_VOLATILE = {"created"}  # keys of release.json that differ between equal releases


@dataclass
class Tally:
    """What was tried for one promise: how often, how often it held, and the first failures."""

    promise: str
    tries: int = 0
    failures: list[str] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)

    def count(self, held: bool, what: str, note: str = "") -> None:
        self.tries += 1
        if not held:
            self.failures.append(what)
        if note:
            self.notes[note] = self.notes.get(note, 0) + 1

    def row(self) -> str:
        notes = "; ".join(f"{n} {note}" for note, n in sorted(self.notes.items()))
        return f"| {self.promise} | {self.tries} | {self.tries - len(self.failures)} | {notes} |"


class Folder:
    """A working folder with a small source, made again for each try."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.walk = Walk(root)
        self.walk.split("a", 1)
        self.recipe = self.walk.recipe(1)

    def command(self, name: str) -> list[str]:
        release = next((self.root / "releases").glob("[!.]*/release.json"), Path("none/none")).parent.name
        manifest = "manifests/a.parquet"
        commands = {
            "ingest": "ingest a --source table --map a.yaml --rehash --replace",
            "split": f"split manifests/b.parquet --recipe {self.recipe}",
            "balance": f"balance --recipe {self.recipe} --manifest {manifest} --no-report",
            "concat": f"concat {manifest} manifests/b.parquet --name both",
            "export": f"export releases/{release} --to webdataset --out x --i-may-redistribute",
        }
        return commands[name].split()


def call(folder: Path, arguments: list[str], kill_after: float | None = None) -> int | str:
    """Run a command in a forked process; return its exit code, `killed`, or `crash` for a signal not ours."""
    child = os.fork()
    if not child:
        os.chdir(folder)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os._exit(run([*arguments, "--quiet"]))
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed" if kill_after is not None else _CRASH
    return os.WEXITSTATUS(status)


def contents(folder: Path) -> dict[str, str]:
    """Return a hash per file of what a command wrote, without times and caches."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.endswith((".memo", ".ending.json", ".local.json")):
            continue
        data = path.read_bytes()
        if path.name == "release.json":
            document = {key: value for key, value in json.loads(data).items() if key not in _VOLATILE}
            data = json.dumps(document, sort_keys=True).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def try_kills(base: Path, scratch: Path, rng: random.Random, until: float) -> Iterator[Tally]:
    """SIGKILL at a random time, the same command again: the same bytes as without the kill."""
    names = ("ingest", "split", "balance", "concat", "export")
    for number, name in enumerate(names):
        tally = Tally(f"`{name}` killed at a random time and run again gives the same bytes")
        command, work = Folder.command(_Opened(base), name), scratch / "work"

        def start(work: Path = work, name: str = name) -> None:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(base, work)
            if name == "balance":
                shutil.rmtree(work / "releases")

        start()
        started = time.monotonic()
        code = call(work, command)
        tally.count(code in (0, 1), f"{name} without a kill: exit {code}")
        duration, expected = time.monotonic() - started, contents(work)
        end = time.monotonic() + max(0, until - time.monotonic()) / (len(names) - number)
        while time.monotonic() < end and tally.tries < 250:
            start()
            state = call(work, command, kill_after=rng.uniform(0, 1.1 * duration))
            again = call(work, command)
            same = contents(work) == expected
            is_done = again == 2 and name == "export"  # it was finished: the folder exists
            held = same and (again in (0, 1) or is_done)
            note = "killed while running" if state == "killed" else "finished before the kill"
            tally.count(held, f"{name}: {state}, then exit {again}, same bytes: {same}", note)
        shutil.rmtree(work)
        yield tally


class _Opened(Folder):
    def __init__(self, root: Path) -> None:
        self.root, self.recipe = root, "r1.yaml"


def try_flips(base: Path, scratch: Path, rng: random.Random, until: float) -> Iterator[Tally]:
    """One bit, or the end of a file: exit 3 or 4, or equal rows."""
    release = next((base / "releases").glob("[!.]*/release.json")).parent
    files = sorted(path for path in release.rglob("*") if path.is_file())
    flips = Tally("a flipped bit in any file of a release: `verify` exits 3 or 4")
    cuts = Tally("a file of a release cut anywhere: `verify` exits 3 or 4")
    manifest = base / "manifests" / "a.parquet"
    table = load_manifest(manifest).table
    rows = Tally("a flipped bit in a manifest: refused, or the logical rows are equal")
    end = time.monotonic() + (until - time.monotonic())
    while time.monotonic() < end and flips.tries < 2000:
        path = rng.choice(files)
        data = bytearray(path.read_bytes())
        original = bytes(data)
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        code = call(base, ["verify", str(release.relative_to(base))])
        flips.count(code in (3, 4), f"{path.name} byte {at} bit {bit}: exit {code}")
        path.write_bytes(original[: rng.randrange(len(original))])
        code = call(base, ["verify", str(release.relative_to(base))])
        cuts.count(code in (3, 4), f"{path.name} cut: exit {code}")
        path.write_bytes(original)
        data = bytearray(manifest.read_bytes())
        original = bytes(data)
        at, bit = rng.randrange(len(data)), rng.randrange(8)
        data[at] ^= 1 << bit
        manifest.write_bytes(data)
        try:
            same = load_manifest(manifest).table.equals(table)
            rows.count(same, f"manifest byte {at} bit {bit}: other rows", "opened with equal rows")
        except AffectdataError as error:
            rows.count(error.exit_code in (3, 4), f"exit {error.exit_code}", "refused")
        except Exception as error:
            rows.count(False, f"manifest byte {at} bit {bit}: {error!r}")
        manifest.write_bytes(original)
    yield from (flips, cuts, rows)


def try_forgeries(base: Path, scratch: Path, rng: random.Random, until: float) -> Iterator[Tally]:
    """Change each value in release.json; then sign it anew."""
    path = next((base / "releases").glob("[!.]*/release.json"))
    original = path.read_bytes()
    edited = Tally("a value of `release.json` changed: `verify` exits 3 or 4")
    signed = Tally("a value of `release.json` changed and its hash computed anew: not exit 70")
    for keys in _leaves(json.loads(original)):
        if keys == ["created"]:  # outside the hash: see the text
            continue
        for tally in (edited, signed):
            info = json.loads(original)
            _change(info, keys)
            if tally is signed and keys != [CONTENT_HASH]:
                info[CONTENT_HASH] = content_hash(info)
            path.write_text(json.dumps(info))
            code = call(base, ["verify", str(path.parent.relative_to(base))])
            if tally is edited:
                tally.count(code in (3, 4), f"{'.'.join(map(str, keys))}: exit {code}")
            else:
                found = code in (3, 4)
                note = "found, as it follows from rows, recipe or data sheet" if found else "not found"
                tally.count(code in (0, 3, 4), f"{'.'.join(map(str, keys))}: exit {code}", note)
    path.write_bytes(original)
    yield from (edited, signed)


def _leaves(value: Any, keys: tuple[Any, ...] = ()) -> Iterator[list[Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not items or not value:
        yield list(keys)
    for key, item in items if value else ():
        yield from _leaves(item, (*keys, key))


def _change(info: Any, keys: list[Any]) -> None:
    for key in keys[:-1]:
        info = info[key]
    value = info[keys[-1]]
    if isinstance(value, bool):
        changed: Any = not value
    elif isinstance(value, int | float):
        changed = value + 1
    else:
        changed = f"{value}x" if isinstance(value, str) else "x"
    info[keys[-1]] = changed


def try_decoders(scratch: Path, rng: random.Random, until: float) -> Iterator[Tally]:
    """Mutated images: decoded, or a DecodeError."""
    tally = Tally("a damaged image (flips, cuts, blocks) is decoded or rejected, nothing else")
    small = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    image = Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC)
    seeds = []
    for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000", "PPM", "AVIF"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        seeds.append(buffer.getvalue())
    while time.monotonic() < until:
        data = _mutate(rng.choice(seeds), rng)
        try:
            decode(data)
            tally.count(True, "", "decoded")
        except DecodeError:
            tally.count(True, "", "rejected")
        except Exception as error:
            tally.count(False, repr(error)[:100])
    yield tally


def _mutate(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if len(changed) > 1:
                del changed[at:]
            case 2:
                changed[at : at + rng.randrange(64)] = rng.randbytes(rng.randrange(64))
            case _:
                changed[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        if not changed:
            return b"\0"
    return bytes(changed)


def try_doors(base: Path, scratch: Path, rng: random.Random, until: float) -> Iterator[Tally]:
    """Mutated recipes, column maps and tables: an error of the user's, never a bug of ours."""
    balance = [*Folder.command(_Opened(base), "balance"), "--dry-run"]
    ingest = ["ingest", "b", "--source", "table", "--map", "b.yaml", "--replace"]
    doors = {
        "recipe": ("r1.yaml", balance),
        "column map": ("b.yaml", ingest),
        "rating table": ("b/r.csv", ingest),
        "manifest": ("manifests/a.parquet", balance),
        "ledger": ("manifests/a.ledger.parquet", ["split", "manifests/a.parquet", "--recipe", "r1.yaml"]),
    }
    tallies = {name: Tally(f"a damaged {name}: never exit 70 or a crash") for name in doors}
    keep = scratch / "doors"
    shutil.copytree(base, keep)
    while time.monotonic() < until:
        name = rng.choice(list(tallies))
        path, command = keep / doors[name][0], doors[name][1]
        original = path.read_bytes()
        path.write_bytes(_mutate(original, rng))
        code = call(keep, command)
        tallies[name].count(code in (0, 1, 2, 3, 4), f"{name}: exit {code}", f"exit {code}")
        shutil.rmtree(keep)
        shutil.copytree(base, keep)
    yield from tallies.values()


def try_walks(scratch: Path, rng: random.Random, until: float) -> Iterator[Tally]:
    """Commands in any order."""
    tally = Tally(
        "no image that was held out, look-alike or group of it, is in train later (checked releases)"
    )
    n_steps = n_walks = 0
    while time.monotonic() < until:
        seed = rng.randrange(2**32)
        walk, steps = Walk(scratch / f"walk{seed}"), random.Random(seed)
        n_walks += 1
        try:
            for _ in range(60):
                walk.step(steps)
                n_steps += 1
        except AssertionError as error:
            tally.count(False, f"walk {seed}: {str(error).splitlines()[-1]}")
        tally.tries += walk.n_checked
        shutil.rmtree(walk.root)
    tally.notes = {"walks": n_walks, "steps": n_steps}
    yield tally


def main() -> int:
    """Run everything and write the table; 1 if a promise did not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/reliability.md"))
    given = parser.parse_args()
    rng, started = random.Random(given.seed), time.monotonic()
    scratch = Path(tempfile.mkdtemp())
    base = scratch / "base"
    Folder(base)
    call(base, Folder.command(_Opened(base), "balance"))
    tallies: list[Tally] = []
    shares = {"kills": 0.45, "flips": 0.15, "forgeries": 0.05, "doors": 0.15, "decoders": 0.05, "walks": 0.15}
    end = started
    for name, share in shares.items():
        end = max(end, time.monotonic()) + share * given.seconds
        common = (scratch, rng, end)
        if name == "kills":
            clean = scratch / "clean"
            shutil.copytree(base, clean)
            tallies += try_kills(clean, *common)
        elif name == "flips":
            tallies += try_flips(base, *common)
        elif name == "forgeries":
            tallies += try_forgeries(base, *common)
        elif name == "doors":
            tallies += try_doors(base, *common)
        else:
            tallies += (try_decoders if name == "decoders" else try_walks)(*common)
    shutil.rmtree(scratch)
    _write(given.out, tallies, given.seed, time.monotonic() - started)
    failures = [f"{tally.promise}: {failure}" for tally in tallies for failure in tally.failures[:5]]
    sys.stdout.write("\n".join([*(tally.row() for tally in tallies), *failures, ""]))
    return 1 if failures else 0


_BEGIN, _END = "<!-- torture: begin -->\n", "<!-- torture: end -->\n"


def _write(path: Path, tallies: list[Tally], seed: int, seconds: float) -> None:
    """Replace the table in the page."""
    rows = "\n".join(tally.row() for tally in tallies)
    table = (
        f"Seed {seed}, {seconds:.0f} s.\n\n| promise | tries | held | |\n| --- | --- | --- | --- |\n{rows}\n"
    )
    text = path.read_text() if path.is_file() else f"{_BEGIN}{_END}"
    above, _, rest = text.partition(_BEGIN)
    path.write_text(f"{above}{_BEGIN}{table}{_END}{rest.partition(_END)[2]}")


if __name__ == "__main__":
    sys.exit(main())
