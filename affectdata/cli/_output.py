"""How commands speak: results on stdout, progress and notes on stderr, one JSON document with --json."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click
from click.types import StringParamType

from affectdata.records import Finding
from affectdata.registry import find_data, find_plugins
from affectdata.store.addresses import is_address

if TYPE_CHECKING:
    from affectdata.plan.plan import SplitSummary

F = TypeVar("F", bound=Callable[..., Any])
_LOG_EVERY_S = 60.0
_BAR = 40  # characters of the longest bar


@dataclass(slots=True)
class Settings:
    """The values of the common options."""

    as_json: bool = False
    quiet: bool = False
    verbose: int = 0


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
        setattr(ctx.ensure_object(Settings), name, value)

    return callback


def common_options(command: F) -> F:
    """Add --json, --quiet and -v to a command; their values lie in the context's `Settings`."""
    options: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
        ("--json", "as_json", "Print one JSON document.", {"is_flag": True}),
        ("--quiet", "quiet", "Print no progress and no notes.", {"is_flag": True}),
        ("-v", "verbose", "Print more; -vv adds tracebacks.", {"count": True}),
    )
    for flag, name, text, kind in options:
        command = click.option(flag, expose_value=False, callback=_keep(name), help=text, **kind)(command)
    return command


def workers_option(command: F) -> F:
    """Add --workers."""
    return click.option(
        "--workers",
        type=click.IntRange(1),
        help="Number of workers. [default: one per core]",
    )(command)


def engine_option(command: F) -> F:
    """Add --engine."""
    text = "What runs the workers; ray: the cluster of RAY_ADDRESS, else Ray on this machine."
    choice = click.Choice(find_plugins("engines"))
    return click.option("--engine", type=choice, default="threads", show_default=True, help=text)(command)


class PathOrAddress(click.Path):
    """A path, or an address in a bucket, which stays a text."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if is_address(value) else super().convert(value, param, ctx)


class Address(StringParamType):
    """A text that is, or has, an address in a bucket."""

    name = "address"


def settings() -> Settings:
    """Return the settings of the running command."""
    return click.get_current_context().ensure_object(Settings)


def echo(text: str, err: bool = False) -> None:
    """Print a line; where nobody reads any more (`| head`), go on without: the verdict is not to be lost."""
    try:
        click.echo(text, err=err)
    except BrokenPipeError:
        discard(sys.stderr if err else sys.stdout)


def alarm(text: str, err: bool = False) -> str:
    """Return text in red for a terminal, unless NO_COLOR is set (https://no-color.org)."""
    stream = sys.stderr if err else sys.stdout
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    return click.style(text, fg="red", bold=True) if coloured else text


def discard(stream: TextIO) -> None:
    """Send what a stream still holds, and all that follows, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def show(text: str = "") -> None:
    """Print a line of the result, unless --json asks for a document instead."""
    if not settings().as_json:
        echo(text)


def note(text: str) -> None:
    """Print a line on stderr, unless --quiet."""
    if not settings().quiet:
        echo(text, err=True)


def plain_findings(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """Return findings as a document lists them."""
    return [asdict(finding) for finding in findings]


def document(schema: str, content: dict[str, Any]) -> None:
    """Print the one document of --json; `schema` names its form, e.g. ``affectdata/ingest/1``."""
    if settings().as_json:
        echo(json.dumps({"schema": schema, **content}, indent=2, ensure_ascii=False, allow_nan=False))


def wrap(text: str, indent: str = "", hanging: int = 0) -> str:
    """Return indented text, wrapped on a terminal; later lines are indented by `hanging` more."""
    if not sys.stdout.isatty():
        return indent + text
    width = shutil.get_terminal_size().columns
    return textwrap.fill(
        text, width, initial_indent=indent, subsequent_indent=indent + " " * hanging, break_on_hyphens=False
    )


def show_table(header: Sequence[str], rows: Sequence[Sequence[Any]], indent: str = "  ") -> None:
    """Print a table: text to the left, numbers to the right, no lines."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(header), *cells]) for at in range(len(header))]
    numeric = [
        all(isinstance(row[at], int | float) or row[at] is None for row in rows) for at in range(len(header))
    ]
    for line in [list(header), *cells]:
        aligned = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        show((indent + "  ".join(aligned)).rstrip())


def show_splits(summary: SplitSummary) -> None:
    """Print the images per split and fold, and how far each is from the whole."""
    for name, parts in (("split", summary), ("fold", summary.folds)):
        if parts:
            bins, cells = parts.distance.bin, parts.distance.cell
            rows = [[part, n, bins.get(part), cells.get(part)] for part, n in parts.rows.items()]
            show_table([name, "images", "distance over bins", "over cells"], rows)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def bar(count: float, most: float) -> str:
    """Draw a count as a bar."""
    return "█" * round(_BAR * count / most) if most else ""


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """Give a callback (stage, done, total): a bar on a terminal's stderr, elsewhere a line per minute."""
    stream = sys.stderr
    if settings().quiet:
        yield None
        return
    if not stream.isatty():
        yield _log_progress()
        return
    with ExitStack() as stack:
        bars: dict[str, Any] = {}

        def move(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                stack.close()  # the bar of the stage before
                bar = click.progressbar(length=total, label=stage, file=stream, show_pos=True)
                bars[stage] = stack.enter_context(bar)
            bars[stage].length = total
            bars[stage].update(done - bars[stage].pos)

        yield move


def _log_progress() -> Callable[[str, int, int], None]:
    """Return a callback that prints how far work is, once a minute."""
    last = time.monotonic()

    def log(stage: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _LOG_EVERY_S:
            last = time.monotonic()
            echo(f"{stage}: {done} of {total}", err=True)

    return log


def folder_option(flag: str, default: str, text: str) -> Callable[[F], F]:
    """Return an option that takes a folder."""
    return click.option(
        flag, type=click.Path(path_type=Path), default=Path(default), show_default=True, help=text
    )


def roots_option(command: F) -> F:
    """Add --root, repeatable."""
    text = "Folder of a source's images, if they were moved; repeatable."
    given = click.option("--root", "roots", multiple=True, metavar="SOURCE=PATH", type=Address(), help=text)
    return given(command)


def parse_roots(given: Sequence[str]) -> dict[str, str | Path]:
    """Read the values of --root."""
    pairs = [item.partition("=") for item in given]
    for source, equals, path in pairs:
        if not (source and equals and path):
            raise click.BadParameter(f"{source + equals + path!r} is not SOURCE=PATH", param_hint="--root")
    return {source: path if is_address(path) else Path(path) for source, _, path in pairs}


def complete_recipes(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of recipes that begin so, for the completion of shells."""
    folders = (Path("recipes"), find_data("recipes"))
    names = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    return sorted(name for name in names if name.startswith(incomplete))


def complete_sources(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of sources that begin so."""
    return [name for name in find_plugins("sources") if name.startswith(incomplete)]


DROP_TRAIN = "drop-train"


def split_from_option(command: F) -> F:
    """Add --split-from."""
    text = "Take over the splits of an earlier release."
    return click.option("--split-from", metavar="RELEASE", type=PathOrAddress(), help=text)(command)


def on_conflict_option(command: F) -> F:
    """Add --on-conflict."""
    text = "What to do if images that must stay together already have different splits."
    choice = click.Choice(["error", DROP_TRAIN])
    return click.option("--on-conflict", type=choice, default="error", show_default=True, help=text)(command)
