"""FIFOs, sockets, devices and links in place of every file that a command is given: a message, never a wait.

The cases follow from the parameters of the commands: a new option is tested without a change here.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from affectdata.cli._commands import COMMANDS
from affectdata.cli._main import cli as group
from affectdata.cli._main import run
from tests.kills import NETWORK, import_once, make_folder

pytestmark = pytest.mark.slow

_MANIFEST = "manifests/a.parquet"
# What each command needs beside the parameter under test, by name of the parameter.
NEEDS: dict[str, dict[str, list[str]]] = {
    "balance": {"recipe_name": ["--recipe", "r1.yaml"], "manifests": ["--manifest", _MANIFEST]},
    "compare": {"first": ["new/one.png"], "second": ["new/one.png"]},
    "concat": {"manifests": [_MANIFEST, "manifests/b.parquet"], "name": ["--name", "both"]},
    "diff": {"old": ["released"], "new": ["released"]},
    "doctor": {"folder": ["."]},
    "download": {"root": ["web"], "map_path": ["--map", "web.yaml"]},
    "export": {"release": ["released"], "to": ["--to", "croissant"]},
    "groups": {"manifest": [_MANIFEST], "network": NETWORK.split()},
    "ingest": {"root": ["a"], "map_path": ["--map", "a.yaml"]},
    "init": {"folder": ["project"], "manifest": ["--manifest", _MANIFEST]},
    "predict": {"model": ["model.safetensors"], "images": ["new/one.png"]},
    "publish": {"release": ["released"], "address": ["s3://nowhere/sets"]},
    "query": {"sql": ["SELECT 1"]},
    "report": {"subject": ["released"]},
    "sample": {"name": ["gaped"], "folder": ["drawn"]},
    "schema": {"form": ["release"]},
    "select": {"manifest": [_MANIFEST], "recipe": ["--recipe", "set.yaml"]},
    "sources": {},
    "split": {"manifest": [_MANIFEST], "recipe_name": ["--recipe", "r1.yaml"]},
    "study": {"study": ["s.yaml"], "release_path": ["released"]},
    "suggest": {
        "folder": ["new"],
        "recipe": ["--recipe", "r1.yaml"],
        "manifest": ["--manifest", _MANIFEST],
        "model": ["--model", "model.safetensors"],
    },
    "train-check": {"release_path": ["released"], "network": ["--no-crossfit", *NETWORK.split()]},
    "verify": {"release": ["released"]},
}
KINDS = ("fifo", "device", "dangling", "socket", "loop", "link to fifo")
_MAY_WORK = {"out", "link", "html", "figures", "keep_model", "roots", "releases"}  # written, or not needed
_HUNG_S = 300
_MANY = 4  # files of one kind
_PATH_LIKE = {"FILE", "PATH", "R", "RELEASE", "STUDY.yaml", "FILE|none|DEFAULT", "SOURCE=PATH", "DIR"}


def parameters() -> Iterator[tuple[str, str]]:
    """Every command and parameter that takes a path, or a name that may be one."""
    context = click.Context(group)
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            metavar = (parameter.metavar or "").strip("[]")
            is_path = isinstance(parameter.type, click.Path) or metavar in _PATH_LIKE
            if is_path or parameter.name == "backbone":
                assert parameter.name
                yield name, parameter.name


def line_of(name: str, parameter_name: str, value: str) -> list[str]:
    """Return a command line with a value for one parameter, and with what is needed for the others."""
    command = group.get_command(click.Context(group), name)
    assert command is not None
    given: dict[str, list[str]] = dict(NEEDS[name])
    parameter = next(each for each in command.params if each.name == parameter_name)
    if isinstance(parameter, click.Option):
        value = f"a={value}" if parameter.metavar == "SOURCE=PATH" else value
        value = f"{value}:Net" if parameter_name == "backbone" else value
        given[parameter_name] = [max(parameter.opts, key=len), value]
        network = given.get("network", [])
        if given[parameter_name][0] in network:
            at = network.index(given[parameter_name][0])
            given["network"] = network[:at] + network[at + 2 :]
    else:
        given[parameter_name] = [value]
    order = [each.name for each in command.params if isinstance(each, click.Argument)]
    arguments = [value for each in order for value in given.pop(str(each), [])]
    return [name, *(value for values in given.values() for value in values), *arguments]


def make_special(path: Path, kind: str) -> None:
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server, _inside(path.parent):
                server.bind(path.name)
        case "device":
            path.symlink_to("/dev/zero")  # a device cannot be made without rights
        case "dangling":
            path.symlink_to(path.parent / "nothing" / "there")
        case "loop":
            path.symlink_to(path)
        case "link to fifo":
            os.mkfifo(path.with_name("pipe"))
            path.symlink_to(path.with_name("pipe"))


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Change to a folder: the path of a socket is short."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_apart(folder: Path, arguments: list[str]) -> tuple[int, str]:
    """Run a command in a forked process; return its exit code, or the negative signal that ended it."""
    log = folder / "log"
    child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_HUNG_S)
        os.chdir(folder)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os._exit(run([*arguments, "--quiet"]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, log.read_text(errors="replace")


_MESSAGE = re.compile(r"^(error|Error|changed|missing): ", re.MULTILINE)


def problem_of(code: int, text: str, may_work: bool) -> str:
    """Return what is wrong with the outcome of a command, or nothing."""
    if code == -signal.SIGALRM:
        return "it hangs"
    if code in (2, 3, 4, 5):
        return "" if _MESSAGE.search(text) else f"no message: {text[:200]!r}"
    return "" if code in (0, 1) and may_work else f"exit {code}: {text[-300:]!r}"


def try_parameters(base: Path, work: Path, kinds: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Put special files into each parameter; yield the case, and what is wrong or nothing."""
    for name, parameter in parameters():
        for kind in kinds:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(base, work, symlinks=True)
            special = (
                "special.py"
                if parameter == "backbone"
                else "special.parquet"
                if "manifest" in parameter
                else "special"
            )
            make_special(work / special, kind)
            line = line_of(name, parameter, special)
            yield f"{' '.join(line)} ({kind})", problem_of(*run_apart(work, line), parameter in _MAY_WORK)


# Files in the folder that commands read without being given them.
READERS = {
    "a/*": ["ingest a --map a.yaml"],
    "a.yaml": ["ingest a --map a.yaml"],
    "manifests/.*": ["ingest a --map a.yaml", f"balance --recipe r1.yaml --manifest {_MANIFEST}"],
    "manifests/a.*": [
        "ingest a --map a.yaml",
        f"split {_MANIFEST} --recipe r1.yaml",
        f"balance --recipe r1.yaml --manifest {_MANIFEST}",
        f"concat {_MANIFEST} manifests/b.parquet --name both",
        "doctor",
        "query 'SELECT * FROM a'",
    ],
    "released/**/*": [
        "verify released",
        f"balance --recipe r1.yaml --manifest {_MANIFEST} --split-from released",
        "export released --to hf --out x --i-may-redistribute",
        "report released",
    ],
    "checks/.features/*": [f"groups {_MANIFEST} {NETWORK}"],
}


def try_files(base: Path, work: Path, kinds: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Replace files that commands read of themselves; yield the case, and what is wrong or nothing."""
    for pattern, lines in READERS.items():
        files = [path.relative_to(base) for path in sorted(base.glob(pattern)) if path.is_file()]
        for file in files[:_MANY] if "*" in pattern else files:
            for kind in kinds:
                for line in lines:
                    shutil.rmtree(work, ignore_errors=True)
                    shutil.copytree(base, work, symlinks=True)
                    (work / file).unlink()
                    make_special(work / file, kind)
                    outcome = run_apart(work, shlex.split(line))
                    yield f"{file}, {line} ({kind})", problem_of(*outcome, True)


def main(root: str, kinds: str) -> None:
    """Print a line per case."""
    base, work = Path(root) / "base", Path(root) / "work"
    import_once()
    make_folder(base)
    for trial in (try_parameters, try_files):
        for case, problem in trial(base, work, tuple(kinds.split(","))):
            sys.stdout.write(f"{case}\t{problem}\n")
            sys.stdout.flush()


def test_special_files_are_named_and_never_waited_for(tmp_path: Path) -> None:
    """FIFOs, in a process of its own, as it forks; the other kinds take minutes each."""
    command = [sys.executable, "-m", "tests.cli.test_special_files", str(tmp_path), KINDS[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    cases = [line.split("\t") for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(cases) > len(list(parameters())), done.stderr
    assert [case for case in cases if case[1]] == []


def test_every_command_is_known_here() -> None:
    assert set(NEEDS) == set(COMMANDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
