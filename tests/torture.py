"""Try to break the promises of docs/reliability.md for some time, and write there what held: `make torture`.

python -m tests.torture [--seconds 300] [--seed 0] [--out docs/reliability.md]

Commands run in forked processes, so that a kill is a real one. Exit code 70 anywhere is a failure. In an
hour every command is killed 100 times, in less time less often.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import affectdata.api
import affectdata.release.publish
import affectdata.release.verify  # noqa: F401
from affectdata.errors import DecodeError
from affectdata.images.decode import decode
from affectdata.release.info import CONTENT_HASH, info_hash
from tests.flips import prepare, try_flips
from tests.kills import Tally, call, import_once, make_folder, try_kills
from tests.served import serve
from tests.walk import Walk


def code_of(folder: Path, arguments: list[str]) -> int | str:
    """Run a command in a forked process; return its exit code, or `crash`."""
    return call(folder, arguments)[0]


def try_cuts(base: Path, scratch: Path, rng: random.Random, until: float) -> Iterator[Tally]:
    """Cut the end off a file of a release."""
    tally = Tally("a file of a release cut anywhere: `verify` exits 3 or 4")
    files = sorted(path for path in (base / "released").rglob("*") if path.is_file())
    while time.monotonic() < until and tally.tries < 300:
        path = rng.choice(files)
        original = path.read_bytes()
        path.write_bytes(original[: rng.randrange(len(original))])
        code = code_of(base, ["verify", "released"])
        tally.count(code in (3, 4), f"{path.name} cut: exit {code}")
        path.write_bytes(original)
    yield tally


def try_forgeries(base: Path, scratch: Path, rng: random.Random, until: float) -> Iterator[Tally]:
    """Change each value in release.json; then sign it anew."""
    path = base / "released" / "release.json"
    original = path.read_bytes()
    edited = Tally("a value of `release.json` changed: `verify` exits 3 or 4")
    signed = Tally("a value of `release.json` changed and its hash recomputed: not exit 70")
    for keys in _leaves(json.loads(original)):
        if keys == ["created"]:  # outside the hash: see the text
            continue
        for tally in (edited, signed):
            info = json.loads(original)
            _change(info, keys)
            if tally is signed and keys != [CONTENT_HASH]:
                info[CONTENT_HASH] = info_hash(info)
            path.write_text(json.dumps(info))
            code = code_of(base, ["verify", "released"])
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
    seeds = [
        _image(kind) for kind in ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG2000", "PPM", "AVIF")
    ]
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


def _image(kind: str) -> bytes:
    small = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC).save(buffer, kind)
    return buffer.getvalue()


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
    balance = ["balance", "--recipe", "r1.yaml", "--manifest", "manifests/a.parquet", "--dry-run"]
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
        code = code_of(keep, command)
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
    tallies: list[Tally] = []
    import_once()
    with serve(_image("JPEG")) as site:
        make_folder(base, site.address)
        end = time.monotonic() + given.seconds
        _show(tallies, try_kills(base, scratch, rng, started + 0.6 * given.seconds))
    prepare(base)
    _show(tallies, try_flips(base, scratch, rng, max(12, min(300, int(given.seconds // 4)))))
    left = max(30.0, end - time.monotonic())
    for share, trial in ((0.1, try_cuts), (0.1, try_forgeries), (0.3, try_doors)):
        _show(tallies, trial(base, scratch, rng, time.monotonic() + share * left))
    for share, search in ((0.1, try_decoders), (0.4, try_walks)):
        _show(tallies, search(scratch, rng, time.monotonic() + share * left))
    shutil.rmtree(scratch)
    _write(given.out, tallies, given.seed, time.monotonic() - started)
    return 1 if any(tally.failures for tally in tallies) else 0


def _show(tallies: list[Tally], found: Iterator[Tally]) -> None:
    """Add what was found, and print each as soon as it is known."""
    for tally in found:
        tallies.append(tally)
        sys.stdout.write("\n".join([tally.row(), *tally.failures[:5], ""]))
        sys.stdout.flush()


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
