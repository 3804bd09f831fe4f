"""The page that `balance` and `train-check` write where the extra `report` is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from affectdata.cli._memory import has_memory_for_charts
from affectdata.cli._output import note, show

if TYPE_CHECKING:
    from affectdata.results import ReportResult

F = TypeVar("F", bound=Callable[..., Any])
_NEEDS = ("altair", "vl_convert", "jinja2")


def no_report_option(command: F) -> F:
    """Add --no-report."""
    return click.option(
        "--no-report",
        is_flag=True,
        envvar="AFFECTDATA_NO_REPORT",
        help="Write no HTML report. [also: AFFECTDATA_NO_REPORT=1]",
    )(command)


def may_report(no_report: bool) -> bool:
    """Return whether to write a page: it is wanted, the extra `report` is installed, and memory suffices."""
    if no_report or not all(find_spec(name) for name in _NEEDS):
        return False
    if not has_memory_for_charts():
        note("no report: the address space is limited (ulimit -v)")
        return False
    return True


def write_report(
    report: Callable[..., ReportResult],
    release: Path | str | None,
    out: Path,
    roots: Mapping[str, str | Path],
    no_report: bool,
) -> None:
    """Write the page about a release (None: the newest) if the extra `report` is installed."""
    if may_report(no_report):
        show(f"wrote {report(release, out=out, roots=roots).path}")
