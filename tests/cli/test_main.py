"""Exceptions become exit codes and messages; commands are found by file name; stdout holds results only."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from affectdata import __version__
from affectdata.cli import _main
from affectdata.cli import sources as sources_command
from affectdata.cli._commands import COMMANDS
from affectdata.cli._main import run
from affectdata.cli._output import Settings, common_options, document, note, progress, show, show_table
from affectdata.errors import (
    AffectdataError,
    ImagesNotFound,
    IntegrityError,
    MissingError,
    RecipeError,
    SourceError,
    UsageError,
)
from affectdata.registry import find_plugins, load_plugin
from affectdata.workers import keep_freed_memory
from tests.made import publish


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], list[str]]:
    """Put a function in the place of `affectdata sources`; return the arguments that call it."""

    def install(body: Callable[[], Any]) -> list[str]:
        monkeypatch.setattr(sources_command, "command", common_options(click.command("sources")(body)))
        return ["sources"]

    return install


def raising(error: BaseException) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AffectdataError("what"), 1),
        (UsageError("what"), 2),
        (SourceError("what"), 3),
        (RecipeError("what"), 3),
        (ImagesNotFound("what"), 3),
        (IntegrityError("what"), 4),
        (MissingError("what"), 5),
        (OSError(errno.ENOSPC, "No space left on device", "out.parquet"), 3),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (click.UsageError("what"), 2),
        (click.BadParameter("what"), 2),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 5),
        (ModuleNotFoundError("No module named 'sklearn.svm'", name="sklearn.svm"), 5),
        (ModuleNotFoundError("No module named 'mine'", name="mine"), 70),
        (ValueError("what"), 70),
        (RecursionError("what"), 70),
        (MemoryError(), 3),
    ],
)
def test_exit_codes(command: Any, cli: Any, error: BaseException, code: int) -> None:
    ran = cli(*command(raising(error)))
    assert ran.code == code and ran.out == "" and ran.err


@pytest.mark.parametrize(("answer", "code"), [(0, 0), (1, 1), (None, 0), (True, 1)])
def test_the_answer_of_a_command_is_the_exit_code(command: Any, cli: Any, answer: Any, code: int) -> None:
    assert cli(*command(lambda: answer)).code == code


def test_an_error_says_what_where_and_what_to_do_without_a_traceback(command: Any, cli: Any) -> None:
    ran = cli(*command(raising(SourceError("no 'Valence'", where="A.txt, line 1", fix="restore it"))))
    assert ran.err == "error: no 'Valence'\n  where: A.txt, line 1\n  fix:   restore it\n"


@pytest.mark.parametrize(
    ("flags", "traced"), [([], False), (["-v"], False), (["-vv"], True), (["-v", "-v"], True)]
)
def test_a_traceback_is_shown_with_vv_only(command: Any, cli: Any, flags: list[str], traced: bool) -> None:
    ran = cli(*command(raising(SourceError("what"))), *flags)
    assert ran.code == 3 and ("Traceback" in ran.err) == traced and "error: what" in ran.err


def test_a_bug_shows_its_traceback_once_and_says_so(command: Any, cli: Any) -> None:
    for flags in ([], ["-vv"]):
        ran = cli(*command(raising(ValueError("unforeseen"))), *flags)
        assert ran.err.count("Traceback") == 1 and "this is a bug in affectdata" in ran.err


def test_an_operating_system_error_names_its_file(command: Any, cli: Any) -> None:
    ran = cli(*command(raising(PermissionError(13, "Permission denied", "/locked/a.txt"))))
    assert ran.err == "error: Permission denied\n  where: /locked/a.txt\n"


def test_a_missing_extra_prints_the_pip_line(command: Any, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed

    def body() -> None:
        import torch  # noqa: F401

    ran = cli(*command(body))
    assert ran.code == 5
    assert ran.err == "error: torch is not installed\n  fix:   pip install 'affectdata[train]'\n"


# --- usage


def test_every_command_is_listed_with_a_line_of_help(cli: Any) -> None:
    ran = cli("--help")
    assert ran.code == 0 and ran.err == ""
    listed = ran.out.split("order of the work:\n")[1].splitlines()
    named = [line.split()[0] for line in listed if line.strip()]
    assert sorted(named) == [name.replace("_", "-") for name in find_plugins("cli")]  # each on one line
    assert named.index("ingest") < named.index("balance") < named.index("train-check") < named.index("export")
    assert all(line.endswith(".") and "..." not in line for line in listed if line.strip())
    assert cli("-h").out == ran.out


@pytest.mark.parametrize("name", find_plugins("cli"))
def test_every_command_has_help_and_the_common_options(cli: Any, name: str) -> None:
    ran = cli(name.replace("_", "-"), "--help")
    assert ran.code == 0
    for option in ("--json", "--quiet", "-v", "--help"):
        assert option in ran.out, option
    assert f"Example: affectdata {name.replace('_', '-')} " in ran.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_has_arguments_that_it_takes(name: str) -> None:
    command = load_plugin("cli", name.replace("-", "_")).command
    first, *arguments = shlex.split(COMMANDS[name][1])
    assert first == name
    command.make_context(name, arguments, obj=Settings(), resilient_parsing=False)


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "bal", ["balance"]),
        (["balance", "--recipe"], "valence_b", ["valence_bins", "valence_bins_oasis"]),
        (["split", "x.parquet", "--recipe"], "und", ["undersample"]),
        (["sources"], "gap", ["gaped"]),
        (["ingest", "x", "--source"], "web", ["webdataset"]),
    ],
)
def test_a_shell_completes_commands_recipes_and_sources(
    words: list[str], incomplete: str, expected: list[str]
) -> None:
    completer = ShellComplete(_main.cli, {}, "affectdata", "_AFFECTDATA_COMPLETE")
    assert [each.value for each in completer.get_completions(words, incomplete)] == expected


def test_the_version(cli: Any) -> None:
    assert cli("--version").out == f"affectdata, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no-such-command"], "No such command 'no-such-command'"),
        (["_main"], "No such command"),
        (["balence"], "No such command 'balence': did you mean 'balance'?"),
        (["ingest", "x", "--out", "s3://bucket/out"], "ingest takes addresses for ROOT, --onto"),
        (["export", "--to", "s3://bucket/out"], "s3://bucket/out: only local paths can be used here"),
        (["split", "s3://bucket/a"], "s3://bucket/a: only local paths can be used here"),
        (
            ["verify", "--root", "gaped=https://x.org/g"],
            "copy it to this machine first; buckets are read by s3://",
        ),
        (["ingest", "file:///data"], "give the path without file://"),
        (["ingest", "s3a://bucket/data"], "write the scheme as s3://"),
        (["balance", "--recipe", "valence_bin"], "did you mean 'valence_bins.yaml'?"),
        (["ingest"], "Missing argument 'ROOT'"),
        (["ingest", "x", "--no-such-option"], "No such option"),
        (["ingest", "x", "--workers", "0"], "0 is not in the range"),
        (["sample", "gaped"], "Missing argument 'FOLDER'"),
        (["sample", "gaped", "x", "--seed", "-1"], "-1 is not in the range"),
    ],
)
def test_usage_errors(cli: Any, arguments: list[str], said: str) -> None:
    ran = cli(*arguments)
    assert ran.code == 2 and said in ran.err and ran.out == "" and "Traceback" not in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["ingest", "--rehash", "s3://bucket/images"],
        ["export", "--i-may-redistribute", "s3://bucket/r", "--to", "hf"],
        ["train-check", "--no-report", "s3://bucket/r"],
        ["verify", "-vv", "s3://bucket/r"],
        ["publish", "--", "releases/r", "s3://bucket/releases"],
    ],
)
def test_an_address_may_follow_a_flag_where_one_is_read(arguments: list[str]) -> None:
    _main._refuse_remote(arguments)


def test_no_argument_at_all_shows_the_help(cli: Any) -> None:
    ran = cli()
    assert ran.code in (0, 2) and "Commands, in" in ran.out + ran.err


# --- output


def test_text_and_json_exclude_each_other(command: Any, cli: Any) -> None:
    def body() -> None:
        show("a line")
        show_table(["a"], [[1]])
        document("affectdata/test/1", {"ü": 1.5, "none": None})

    arguments = command(body)
    assert cli(*arguments).out == "a line\n  a\n  1\n"
    ran = cli(*arguments, "--json")
    assert ran.document == {"schema": "affectdata/test/1", "ü": 1.5, "none": None}
    assert "ü" in ran.out and ran.err == ""


def test_json_holds_no_nan(command: Any, cli: Any) -> None:
    assert cli(*command(lambda: document("x/1", {"a": float("nan")})), "--json").code == 70


def test_notes_go_to_stderr_unless_quiet(command: Any, cli: Any) -> None:
    arguments = command(lambda: note("by the way"))
    assert cli(*arguments).err == "by the way\n" and cli(*arguments).out == ""
    assert cli(*arguments, "--quiet").err == ""


def test_a_table_puts_text_left_and_numbers_right(command: Any, cli: Any) -> None:
    rows = [["a", 1, 0.5, None], ["long", 100, None, "x"]]
    ran = cli(*command(lambda: show_table(["name", "n", "share", ""], rows, indent="")))
    assert ran.out.splitlines() == [
        "name    n  share",
        "a       1  0.500  –",
        "long  100      –  x",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_is_a_line_a_minute(
    command: Any, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 59.0, 61.0, 61.0, 100.0])
    monkeypatch.setattr("affectdata.cli._output.time.monotonic", lambda: next(clock))

    def body() -> None:
        with progress() as move:
            for done in (1, 2, 3, 4):
                move("features", done, 4)

    ran = cli(*command(body))
    assert ran.err == "features: 3 of 4\n" and ran.out == ""


@pytest.mark.parametrize(("flags", "drawn"), [([], True), (["--quiet"], False)])
def test_progress_is_drawn_on_a_terminal_only(
    command: Any, cli: Any, monkeypatch: pytest.MonkeyPatch, flags: list[str], drawn: bool
) -> None:
    def body() -> None:
        with progress() as move:
            for done in range(1, 4) if move else ():
                move("working", done * 10, 30)

    arguments = command(body)
    assert cli(*arguments).err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert run([*arguments, *flags]) == 0
    assert ("working" in terminal.getvalue() and "30/30" in terminal.getvalue()) == drawn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["sources"], 0),
        (["sources", "nobody", "-vv"], 2),
        (["sources", "--nothing"], 2),
        (["--help"], 141),
    ],
)
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_where_nobody_reads_the_verdict_is_not_lost(
    start: Any, arguments: list[str], code: int, stream: str
) -> None:
    with start(*arguments) as process:
        getattr(process, stream).close()
        other = (process.stderr if stream == "stdout" else process.stdout).read()
    assert process.returncode == (code if code != 141 or stream == "stdout" else 0)
    assert "BrokenPipe" not in other


@pytest.mark.slow
def test_findings_nobody_reads_are_still_found(start: Any, gaped_copy: Path, tmp_path: Path) -> None:
    release = publish(gaped_copy, tmp_path).path
    (release / "README.md").write_text("changed")
    with start("verify", release) as process:
        process.stdout.close()
    assert process.returncode == 4


@pytest.mark.parametrize("code", [0, 3, None])
def test_a_file_of_the_user_that_exits_is_no_success(command: Any, cli: Any, code: int | None) -> None:
    ran = cli(*command(raising(SystemExit(code))))
    assert ran.code == 3 and f"sys.exit({code})" in ran.err


def test_a_shell_completion_is_a_success(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AFFECTDATA_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "affectdata ver")
    monkeypatch.setenv("COMP_CWORD", "1")
    with start() as process:
        assert process.stdout.read() == "plain,verify\n"
    assert process.returncode == 0


def test_the_module_is_the_command() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "affectdata", "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("affectdata, version")


# --- memory


def test_only_the_command_line_sets_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:  # trap 14
    calls: list[tuple[int, int]] = []

    class Libc:
        @staticmethod
        def mallopt(parameter: int, value: int) -> int:
            calls.append((parameter, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc)
    assert run(["--version"]) == 0 and calls == []
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(SystemExit):
        _main.main(["--version"])
    assert dict(calls).keys() == {-1, -2, -3}


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_without_glibc_nothing_is_set(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # musl: a libc without mallopt
    monkeypatch.setattr(sys, "platform", platform)
    keep_freed_memory()


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="no glibc"
)
def test_glibc_takes_the_settings() -> None:
    code = (
        "import ctypes\nfrom affectdata.workers import _MALLOC\n"
        "assert all(ctypes.CDLL(None).mallopt(*each) == 1 for each in _MALLOC.items())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_installed_command_exists() -> None:
    assert (Path(sys.executable).parent / "affectdata").exists()


def test_an_interrupt_at_the_first_line_is_130_with_one_line(start: Callable[..., Any]) -> None:
    first = (
        "import os, signal\n"
        "import affectdata.cli._main as m\n"
        "m.keep_freed_memory = lambda: os.kill(os.getpid(), signal.SIGINT)"
    )
    process = start("sources", first=first)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted; the same command goes on from here\n"


@pytest.mark.slow
@pytest.mark.parametrize("gib", [0.5, 1])
@pytest.mark.parametrize("command", ["ingest", "balance", "verify", "train-check", "report"])
def test_too_little_address_space_is_exit_3(start: Callable[..., Any], command: str, gib: float) -> None:
    n_bytes = int(gib * (1 << 30))
    first = f"import resource\nresource.setrlimit(resource.RLIMIT_AS, ({n_bytes}, {n_bytes}))"
    process = start(command, first=first)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert f"address space is limited to {gib:.2f} GiB" in err and "ulimit -v" in err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 51380224 bytes"),
    ],
)
def test_whatever_says_that_memory_is_short_is_exit_3(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(sources_command, "check_outside", fail)
    ran = cli("sources")
    assert ran.code == 3
    assert "not enough memory" in ran.err and "--workers" in ran.err


def test_a_full_disk_is_exit_3_with_the_way_out(
    cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "manifests/gaped.parquet")

    monkeypatch.setattr(sources_command, "check_outside", fail)
    ran = cli("sources")
    assert ran.code == 3
    assert "where: manifests/gaped.parquet" in ran.err and "free some space" in ran.err


def test_predict_passes_over_leftovers_in_a_folder(tmp_path: Path) -> None:
    from affectdata.cli.predict import _files

    for name in ("a.jpg", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    assert _files(tmp_path) == [tmp_path / "a.jpg"]
