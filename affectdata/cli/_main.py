"""Find the commands, run one, and turn what it raises into a message and an exit code.

0 done; 1 done, but a gate failed or there are findings; 2 usage; 3 bad input; 4 integrity; 5 something
optional is missing; 130 interrupted, and the same command goes on; 141 nobody read the help to its end.
"""

from __future__ import annotations

import errno
import re
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from functools import partial
from importlib.abc import MetaPathFinder
from itertools import pairwise
from types import ModuleType
from typing import Any

import click

import affectdata
from affectdata.cli._commands import COMMANDS
from affectdata.cli._memory import check_memory, explain_memory
from affectdata.cli._output import Address, PathOrAddress, Settings, alarm, discard, echo
from affectdata.errors import AffectdataError, InputError, MissingError, PluginWarning, UsageError
from affectdata.registry import find_plugins, load_plugin, suggest
from affectdata.store.addresses import SCHEMES
from affectdata.workers import keep_freed_memory

_EXTRAS = dict.fromkeys(("torch", "torchvision", "sklearn", "safetensors", "threadpoolctl"), "train") | {
    "httpx2": "download",
    "ray": "ray",
    "obstore": "remote",
    **dict.fromkeys(("altair", "vl_convert", "jinja2"), "report"),
}
INTERRUPTED = 130
_UNREAD = 141  # 128 + SIGPIPE
_SUMMARY = 62  # characters of a line of help
_REMOTE = re.compile(r"(?:[\w-]+=)?([a-z][a-z0-9+.-]+)://")
_SAME_SCHEME = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "azure": "az"}
_BUG = 70  # EX_SOFTWARE: never to be taken for a gate that failed
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FREE_SPACE = "\n  fix:   free some space, or choose another folder (--out), and run the same command again"


class Commands(click.Group):
    """The modules of this folder, loaded when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = [name.replace("_", "-") for name in find_plugins("cli")]
        return [*COMMANDS, *(name for name in names if name not in COMMANDS)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line per command, of those of this package without importing them."""
        others = [name for name in self.list_commands(ctx) if name not in COMMANDS]
        loaded = {name: self.get_command(ctx, name) for name in others}
        lines = {name: summary for name, (summary, _) in COMMANDS.items()}
        lines |= {name: each.get_short_help_str(_SUMMARY) for name, each in loaded.items() if each}
        with formatter.section("Commands, in the order of the work"):
            formatter.write_dl(list(lines.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            hint = suggest(args[0], known).rstrip()
            raise click.UsageError(f"No such command {args[0]!r}" + (f": {hint}" if hint else "."), ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module: ModuleType = load_plugin("cli", cmd_name.replace("-", "_"))
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command is not a click command")
        if cmd_name in COMMANDS:
            command.epilog = f"Example: affectdata {COMMANDS[cmd_name][1]}"
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SystemExit as error:  # no command of ours ends so
            raise InputError(
                f"a file that this command loaded called sys.exit({error.code!r})",
                fix="let it raise an exception instead; -vv shows where it is",
            ) from error


@click.command(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(affectdata.__version__, prog_name="affectdata")
def cli() -> None:
    """Balanced affective image datasets.

    The main job: `affectdata ingest ROOT`, `affectdata balance --recipe R`, `affectdata train-check`.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        keep_freed_memory()
        warnings.showwarning = partial(_show_warning, warnings.showwarning)
        given = sys.argv[1:] if arguments is None else arguments
        if given[:1] == ["ingest"]:
            _import_pandas_late()
        code = run(given)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the work is done: end with its exit code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = _interrupted()
    sys.exit(code)


def _show_warning(
    show: Any, message: Warning | str, category: type[Warning], *where: Any, **more: Any
) -> None:
    """Print a warning about a plugin as a message, without the line of code that `show` prints of others."""
    if issubclass(category, PluginWarning):
        echo(f"warning: {message}", err=True)
    else:
        show(message, category, *where, **more)


class _PandasLater(MetaPathFinder):
    """Makes `import pandas` fail while it is in `sys.meta_path`."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is imported when it is needed")


def _import_pandas_late() -> None:
    """Keep pyarrow from importing pandas at its first conversion of a list, which costs .2 s of CPU.

    pyarrow tries once, and again when a DataFrame is requested: then pandas is imported.
    """
    import pyarrow

    finder = _PandasLater()
    sys.meta_path.insert(0, finder)
    try:
        pyarrow.array([])
    finally:
        sys.meta_path.remove(finder)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; messages go to stderr."""
    code = _run(arguments, Settings())
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed before we began
        try:
            stream.flush()
        except BrokenPipeError:
            discard(stream)
    return code


def _run(arguments: list[str], settings: Settings) -> int:
    try:
        _refuse_remote(arguments)
        if arguments and "--help" not in arguments:
            check_memory(arguments[0])
        code = cli.main(args=arguments, prog_name="affectdata", obj=settings, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        with suppress(BrokenPipeError):
            error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted()
    except SystemExit as error:  # click's: 0 after a shell completion, 1 where the reader of --help has gone
        return _UNREAD if error.code else 0
    except Exception as error:
        return _report(error, settings)


def _refuse_remote(arguments: list[str]) -> None:
    """Refuse addresses where they would be read as names of local folders.

    Raises:
        UsageError: an argument is one.
    """
    for before, argument in pairwise(["", *arguments]):
        match = _REMOTE.match(argument)
        if match and not (match[1] in SCHEMES and _may_be_address(arguments[0], before, argument)):
            raise UsageError(
                f"{argument}: only local paths can be used here", fix=_instead(arguments[0], match[1])
            )


def _instead(name: str, scheme: str) -> str:
    """Return what can be done with an address that a command does not take."""
    if scheme == "file":
        return "give the path without file://"
    if scheme in _SAME_SCHEME:
        return f"write the scheme as {_SAME_SCHEME[scheme]}://"
    if scheme not in SCHEMES:
        return f"copy it to this machine first; buckets are read by {', '.join(f'{s}://' for s in SCHEMES)}"
    command = cli.get_command(click.Context(cli), name)
    parameters = [each for each in command.params if _takes_address(each)] if command else []
    named = ", ".join(
        each.opts[0] if each.param_type_name == "option" else each.human_readable_name for each in parameters
    )
    takes = f"; {name} takes addresses for {named}" if named else ""
    return f"use a local folder; `affectdata publish` writes releases and manifests to a bucket{takes}"


def _takes_address(parameter: click.Parameter) -> bool:
    return isinstance(parameter.type, PathOrAddress | Address)


def _may_be_address(name: str, before: str, word: str) -> bool:
    """Return whether a word, after `before`, is a value that a command takes addresses for."""
    command = cli.get_command(click.Context(cli), name)
    parameters = command.params if command else []
    options = {flag: each for each in parameters if isinstance(each, click.Option) for flag in each.opts}
    flag = word.partition("=")[0] if word.startswith("-") else before
    option = options.get(flag)
    if option and not (option.is_flag or option.count):
        return _takes_address(option)
    return any(_takes_address(each) for each in parameters if isinstance(each, click.Argument))


def _interrupted() -> int:
    echo("interrupted; the same command goes on from here", err=True)
    return INTERRUPTED


def _report(error: Exception, settings: Settings) -> int:
    code, words = _explain(error)
    if settings.verbose >= 2 or code == _BUG:
        echo("".join(traceback.format_exception(error)).rstrip("\n"), err=True)
    echo(f"{alarm('error:', err=True)} {words}", err=True)
    return code


def _explain(error: Exception) -> tuple[int, str]:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] in _EXTRAS:
        extra = _EXTRAS[(error.name or "").split(".")[0]]
        error = MissingError(f"{error.name} is not installed", fix=f"pip install 'affectdata[{extra}]'")
    if isinstance(error, AffectdataError):
        return error.exit_code, str(error)
    if out_of_memory := explain_memory(error):
        return out_of_memory.exit_code, str(out_of_memory)
    if isinstance(error, OSError):
        text = f"{error.strerror or error}\n  where: {error.filename or 'unknown file'}"
        return 3, text + (_FREE_SPACE if error.errno in _FULL else "")
    return _BUG, "this is a bug in affectdata; please report it with the lines above"
