"""Flip single bits in every file that the package writes and reads again: refused, or the same is read."""

from __future__ import annotations

import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from affectdata.check.blocks import read_document
from affectdata.errors import AffectdataError
from affectdata.manifest.manifest import load_manifest
from affectdata.reading.indexes import read_index
from affectdata.reading.rating_digests import read_digests
from affectdata.registry import find_data
from affectdata.store.parquet import read_table
from affectdata.store.sealed import read_sealed
from affectdata.train.features import FeatureCache
from affectdata.train.model_file import load_model
from tests.kills import NETWORK, Tally, call

_SAME, _OTHER = 0, 1
_HUNG_S = 120
Read = Callable[[Path], Any]


def prepare(root: Path) -> None:
    """Add what a check and a study leave to a folder of `kills.make_folder`."""
    call(root, f"train-check released {NETWORK} --no-crossfit --no-report --workers 1".split())
    call(root, ["study", "s.yaml", "released", "--device", "cpu", "--workers", "1"])
    call(root, f"groups manifests/a.parquet {NETWORK}".split())
    shutil.copytree(find_data("manifests/index"), root / "index")


def _features(path: Path) -> Any:
    """Return the features in a file of the cache as they are used: a page that is damaged is left out."""
    keys = pq.read_table(path.with_suffix(".keys"), partitioning=None)["key"].to_pylist()

    class Key:
        key = path.parent.name

    found = FeatureCache(path.parent.parent, Key()).read(keys)
    return {key: found[key].tobytes() for key in keys if key in found}


def _model(path: Path) -> Any:
    model = load_model(path, device="cpu")
    heads = {
        stage: {n: a.numpy().tobytes() for n, a in head.arrays.items()} for stage, head in model.heads.items()
    }
    return heads, model.targets, model.labels


def readers(root: Path) -> dict[Path, Read]:
    """Return how each file is read."""
    manifests, checks = root / "manifests", root / "checks"
    found: dict[Path, Read] = {manifests / "a.parquet": lambda path: load_manifest(path).table}
    for kind in ("ledger", "rejects", "edges"):
        found[manifests / f"a.{kind}.parquet"] = lambda path, kind=kind: read_table(path, kind)[0]  # type: ignore[misc]
    found |= {root / "index" / "gaped.csv": read_index, root / "index" / "gaped.ratings.csv": read_digests}
    found |= dict.fromkeys(checks.glob("*/train-check.json"), read_document)
    found |= {
        path: lambda path: read_table(path, "predictions") for path in checks.glob("*/predictions.parquet")
    }
    found |= {path: lambda path: read_sealed(path, "") for path in checks.glob("*/studies/*/.runs/*.json")}
    found |= dict.fromkeys(checks.glob(".features/*/*.parquet"), _features)
    found[root / "model.safetensors"] = _model
    return found


def _judge(function: Callable[[], bool]) -> int:
    """Return 0 if a function holds in a forked process, 1 if not, 3 or 4 if it refuses, else another code."""
    child = os.fork()
    if not child:
        code = 70
        signal.alarm(_HUNG_S)
        try:
            code = _SAME if function() else _OTHER
        except AffectdataError as error:
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, pa.Table):
        return bool(one.equals(other))
    return bool(one == other)


def try_flips(base: Path, scratch: Path, rng: random.Random, n: int) -> Iterator[Tally]:
    """Flip `n` bits, evenly over the kinds of files; yield a tally for each kind."""
    work = scratch / "work"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work, symlinks=True)
    files: dict[Path, Callable[[], bool]] = {}
    for path, read in readers(work).items():
        if read is _features:
            shutil.copy(path, path.with_suffix(".keys"))
        expected = read(path)
        if read is _features:  # what is left out is computed again
            files[path] = lambda p=path, e=expected: _features(p).items() <= e.items()  # type: ignore[misc]
        else:
            files[path] = lambda p=path, r=read, e=expected: _equal(r(p), e)  # type: ignore[misc]
    inside = {path for path in (work / "released").rglob("*") if path.is_file()}
    hidden = {path for path in (work / "manifests").glob(".*") if path.is_file()}
    kinds = {
        "a manifest, ledger, table of rejects or of edges": {
            each for each in files if "manifests" in each.parts
        },
        "an index or its digests": {each for each in files if "index" in each.parts},
        "a check, a run of a study, features or a kept model": {
            each for each in files if not {"manifests", "index"} & {*each.parts}
        },
        "a release": inside,
        "a memo": hidden,
    }
    for kind, paths in kinds.items():
        tally = Tally(f"a flipped bit in {kind}: exit 3 or 4, or the same is read")
        for _ in range(n // len(kinds)):
            path = rng.choice(sorted(paths))
            data = bytearray(path.read_bytes())
            original, at, bit = bytes(data), rng.randrange(len(data)), rng.randrange(8)
            data[at] ^= 1 << bit
            path.write_bytes(data)
            if path in files:
                code: int | str = _judge(files[path])
            else:
                code = _verify(work) if path in inside else _ingest_again(work)
            notes: dict[int | str, str] = {_SAME: "the same was read", 3: "exit 3", 4: "exit 4"}
            name = path.relative_to(work).as_posix()
            tally.count(code in notes, f"{name} byte {at} bit {bit}: {code}", notes.get(code, ""))
            path.write_bytes(original)
        yield tally
    shutil.rmtree(work)


def _verify(work: Path) -> int | str:
    code = call(work, ["verify", "released"])[0]
    return _OTHER if code == 0 else code


def _ingest_again(work: Path) -> int | str:
    """Ingest with a damaged memo; the manifest is the same, or the command refuses."""
    manifest = work / "manifests" / "a.parquet"
    before, kept = manifest.read_bytes(), {p: p.read_bytes() for p in (work / "manifests").iterdir()}
    code = call(work, ["ingest", "a", "--source", "table", "--map", "a.yaml", "--replace"])[0]
    same = manifest.read_bytes() == before
    for path, data in kept.items():
        path.write_bytes(data)
    return (_SAME if same else _OTHER) if code in (0, 1) else code
