"""The page that `balance` and `train-check` write where the extra `report` is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click

from affectdata.cli._output import show

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


def write_report(release: Path | None, out: Path, roots: Mapping[str, str | Path], no_report: bool) -> None:
    """Write the page about a release (None: the newest) if the extra `report` is installed."""
    from affectdata import api

    if not no_report and all(find_spec(name) for name in _NEEDS):
        show(f"wrote {api.report(release, out=out, roots=roots).path}")
