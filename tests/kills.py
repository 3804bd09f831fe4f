"""Kill a command at each of its file operations, run it again, and compare bytes with a run without a kill.

A kill is `os._exit` just before an operation that changes files (open to write, rename, remove, make or
remove a folder, link, fsync, sync) or a request to a bucket, in a forked process: no clean-up runs. Where a
command has fewer such operations than kills are wanted, further ones are SIGKILL at a random time, half of
them in the last tenth of a run.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from affectdata.check import final, label_model, prepare, scores
from affectdata.cli._main import run
from affectdata.train import heads, saliency
from affectdata.train.heads import GRIDS
from tests.served import bucket_settings, serve_bucket
from tests.walk import Walk

CRASH, KILLED = "crash", "killed"
_EXIT = 137
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_VOLATILE = {"created", "seconds"}  # of JSON documents: these differ between equal runs
_CACHES = (".memo", ".ending.json", ".local.json")
_TIME = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
KILLS = 100  # per command; at least the last ones of its operations are among them
_LAST, _LEAST = 10, 4
_LATE = 0.9  # of the time that a run takes
_IMPORTED_ONCE = (
    *("torch._dynamo", "captum.attr", "vl_convert", "obstore", "affectdata.check.trials"),
    *("affectdata.train.groups", "affectdata.train.saliency", "affectdata.selection.suggestion"),
    *("affectdata.reporting.predictions", "affectdata.reporting.study", "affectdata.reporting.page"),
)


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


class Operations:
    """Counts the file operations of this process, and ends it before number `fatal`."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal, self.n, self._lock = fatal, 0, threading.Lock()
        for name in ("fsync", "sync"):
            setattr(os, name, self._counted(getattr(os, name)))
        for name in ("put", "get", "list"):
            if "obstore" in sys.modules:
                setattr(sys.modules["obstore"], name, self._counted(getattr(sys.modules["obstore"], name)))
        sys.addaudithook(self._hook)

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self._count()
            return function(*arguments, **options)

        return counted

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        changes = event in _CHANGES or (event == "open" and self._writes(*arguments))
        if changes and not self._is_other(arguments[0]):
            self._count()

    @staticmethod
    def _writes(path: Any, mode: Any, flags: Any) -> bool:
        return bool(flags & _WRITES) and isinstance(path, str | bytes | os.PathLike)

    @staticmethod
    def _is_other(path: Any) -> bool:
        """Return whether this is no file of the command: a module that is compiled, or no file at all."""
        text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        return text == os.devnull or "__pycache__" in text

    def _count(self) -> None:
        with self._lock:
            if self.n == self.fatal:
                os._exit(_EXIT)
            self.n += 1


def call(
    folder: Path, arguments: list[str], *, fatal: int | None = None, kill_after: float | None = None
) -> tuple[int | str, int]:
    """Run a command in a forked process; return its exit code, `killed` or `crash`, and its operations."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.chdir(folder)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            operations = Operations(fatal)
            code = run([*arguments, "--quiet"])
            os.write(writer, str(operations.n).encode())
        finally:
            os._exit(code)
    os.close(writer)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    n = int(os.read(reader, 20) or 0)
    os.close(reader)
    if os.WIFSIGNALED(status):
        return (KILLED if kill_after is not None else CRASH), n
    code = os.WEXITSTATUS(status)
    return (KILLED if code == _EXIT else code), n


def contents(folder: Path) -> dict[str, str]:
    """Return a hash per file, without times and memos; every temporary file that was left is in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.endswith(_CACHES):
            continue
        data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        if path.suffix == ".pdf":  # has the time
            data = b""
        if path.suffix == ".html":
            data = _TIME.sub(b"", data)
        if path.suffix == ".json" and not path.is_symlink():
            data = _without_times(data)
        found[name] = hashlib.sha256(data).hexdigest()
    return found


def _without_times(data: bytes) -> bytes:
    """Return a JSON document without times; one that a killed run did not finish as it is."""
    try:
        return json.dumps(_steady(json.loads(data)), sort_keys=True).encode()
    except ValueError:
        return data


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _steady(item) for key, item in value.items() if key not in _VOLATILE}
    return [_steady(item) for item in value] if isinstance(value, list) else value


@dataclass
class Command:
    """A command that writes."""

    name: str
    line: str
    is_refused_when_done: bool = False  # exit 2: what it would write is there

    @property
    def arguments(self) -> list[str]:
        return self.line.split()


NETWORK = "--backbone small_cnn --weights none --device cpu"
_CELLS = {"valence": {"low": [0, 40], "high": [60, 100]}}
_SET = {"name": "set", "cells": _CELLS, "n": 2, "match": ["brightness"]}
_STUDY = {
    "name": "s",
    "best": "r2",
    "seeds": [0],
    "settings": {"mode": "frozen", "backbone": "small_cnn", "weights": "none"},
    "grid": {"head": ["ridge", "svr"]},
}


def make_folder(root: Path, address: str = "", with_model: bool = True) -> Walk:
    """Make a working folder with everything that a command needs.

    Only for a process that tests nothing else: checks have two folds, few settings and resamples from now on.
    """
    _make_checks_small()
    walk = Walk(root)
    walk.split("a", 1)
    recipe = walk.recipe(1)
    call(root, f"balance --recipe {recipe} --manifest manifests/a.parquet --no-report".split())
    release = next((root / "releases").glob("[!.]*/release.json")).parent
    release.rename(root / "released")
    (root / "set.yaml").write_text(yaml.safe_dump(_SET))
    (root / "s.yaml").write_text(yaml.safe_dump(_STUDY))
    rows = [f"{path.name},{1 + number % 9}" for number, path in enumerate(walk.images("b"))]
    (root / "more").mkdir()
    (root / "more" / "r.csv").write_text("\n".join(["file,v", *rows]) + "\n")
    more = {"name": "more", "table": "r.csv", "key": "file", "scales": {"arousal": [1, 9]}}
    more |= {"columns": {"arousal": "v"}, "license": "CC0", "file": "b/{key}"}
    (root / "more.yaml").write_text(yaml.safe_dump(more))
    (root / "new").mkdir()
    for path in walk.images("b")[:4]:
        shutil.copy(path, root / "new")
    Image.new("RGB", (64, 48), "red").save(root / "new" / "one.png")
    if with_model:
        _keep_model(root)
    (root / "web").mkdir()
    links = [f"{number}.jpg,joy,{address}image/{number}.jpg" for number in range(8)]
    (root / "web" / "t.csv").write_text("\n".join(["pic,e,link", *links]) + "\n")
    columns = {"emotion": "e", "url": "link"}
    web = {"name": "web", "table": "t.csv", "key": "pic", "columns": columns, "license": "CC0"}
    (root / "web.yaml").write_text(yaml.safe_dump(web))
    return walk


def _make_checks_small() -> None:
    GRIDS.update(svr={"C": (1.0,), "gamma": (0.1,)}, logistic={"C": (0.01,)}, ridge={"alpha": (100.0,)})
    for module in (heads, label_model, final, prepare):
        module.N_FOLDS = 2  # type: ignore[attr-defined]
    scores.N_RESAMPLES = 50
    saliency._STEPS = 4


def _keep_model(root: Path) -> None:
    kept = "--no-crossfit --no-report --keep-model model.safetensors --workers 1"
    call(root, f"train-check released {NETWORK} {kept}".split())
    shutil.rmtree(root / "checks", ignore_errors=True)


def commands(root: Path) -> list[Command]:
    """Return every command that writes."""
    a, b = "manifests/a.parquet", "manifests/b.parquet"
    rights = "--i-may-redistribute"
    model = "model.safetensors new/one.png"
    check = f"train-check released {NETWORK} --no-report --workers 1"
    return [
        Command("ingest", "ingest a --source table --map a.yaml --rehash --replace"),
        Command("ingest --onto", f"ingest more/r.csv --map more.yaml --onto {b} --name rated"),
        Command("split", f"split {b} --recipe r1.yaml"),
        Command("balance", f"balance --recipe r1.yaml --manifest {a} --no-report --link current"),
        Command("concat", f"concat {a} {b} --name both"),
        *(
            Command(f"export --to {form}", f"export released --to {form} --out x {rights}", True)
            for form in ("folders --by subtype", "hf", "webdataset", "croissant", "fiftyone", "label_studio")
        ),
        Command("download", "download web --map web.yaml"),
        Command("select", f"select {a} --recipe set.yaml --no-report"),
        Command("init", "init project --manifest manifests/a.parquet"),
        Command("publish", "publish released s3://bucket/sets"),
        Command("groups", f"groups {a} {NETWORK}"),
        Command("report", "report released --figures figures"),
        Command("train-check", check),
        Command("train-check --keep-model", f"{check} --no-crossfit --keep-model kept.safetensors"),
        Command("study", "study s.yaml released --device cpu --workers 1"),
        Command("predict --csv --html --maps", f"predict {model} --csv --html p.html --maps maps"),
        Command("suggest", f"suggest new --recipe r1.yaml --manifest {a} --model model.safetensors"),
    ]


def try_kills(
    base: Path,
    scratch: Path,
    rng: random.Random,
    until: float = float("inf"),
    kills: int = KILLS,
    names: Sequence[str] = (),
) -> Iterator[Tally]:
    """Kill every command at its operations, then run it again; yield a tally per command.

    The time `until` an end is shared by the commands, and each is killed four times at least. A bucket is the
    folder `bucket` of the folder `work`.
    """
    listed = [each for each in commands(base) if not names or each.name in names]
    work = scratch / "work"
    with serve_bucket(work / "bucket") as address:
        os.environ.update(bucket_settings(address))
        for number, command in enumerate(listed):
            end = time.monotonic() + (until - time.monotonic()) / (len(listed) - number)
            yield _try_command(command, base, work, rng, end, kills)
    shutil.rmtree(work)


def import_once() -> None:
    """Import what takes seconds before processes are forked: kills then come during the command itself."""
    for name in _IMPORTED_ONCE:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)  # a forked process waits forever for the threads of its parent


def _try_command(
    command: Command, base: Path, work: Path, rng: random.Random, end: float, kills: int
) -> Tally:
    tally = Tally(f"`{command.name}` killed and run again gives the same bytes, nothing else")
    _copy(base, work)
    started = time.monotonic()
    code, n = call(work, command.arguments)
    seconds, expected = time.monotonic() - started, contents(work)
    if code not in (0, 1):
        tally.count(False, f"{command.name} without a kill: exit {code}")
    points, tried = _kill_points(n, kills, rng), 0
    while tally.tries < kills and tried < 3 * kills and (tally.tries < _LEAST or time.monotonic() < end):
        _copy(base, work)
        fatal = points[tried] if tried < len(points) else None
        after_s = rng.uniform(_LATE if tried % 2 else 0, 1) * seconds if fatal is None else None
        tried += 1
        state, _ = call(work, command.arguments, fatal=fatal, kill_after=after_s)
        if state == code:  # finished before the kill
            continue
        after = contents(work) if command.is_refused_when_done else {}
        again, _ = call(work, command.arguments)
        found = contents(work)
        held = state == KILLED and found == expected and (again == code or (again == 2 and after == expected))
        differ = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        where = f"{after_s:.3f} of {seconds:.3f} s" if fatal is None else f"operation {fatal} of {n}"
        note = "before an operation" if after_s is None else "at a random time"
        tally.count(held, f"at {where}: {state}, then exit {again}; differ: {differ[:4]}", note)
    return tally


def _copy(base: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(base, work, symlinks=True)


def _kill_points(n: int, kills: int, rng: random.Random) -> list[int]:
    """Return operations to kill at, the last ones first, at most as many as there are kills."""
    first = max(0, n - _LAST)
    return [*reversed(range(first, n)), *rng.sample(range(first), first)][:kills]
