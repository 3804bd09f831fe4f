"""`affectdata query`: SQL over the manifests."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from affectdata.cli._output import PathOrAddress, common_options, document, show, show_table
from affectdata.records import count_text


@click.command("query")
@click.argument("sql", metavar="SELECT")
@click.option(
    "--manifests",
    type=PathOrAddress(),
    default=Path("manifests"),
    show_default=True,
    help="Folder of manifests, or its address in a bucket.",
)
@common_options
def command(sql: str, manifests: Path | str) -> int:
    """Run one SELECT over all manifests in a folder and print the rows.

    Every manifest is a table of the same name; `manifest` has the rows of all, distinguished by `source`.
    Other files and the network are not accessible.
    """
    from affectdata import api

    found = api.query(sql, manifests=manifests)
    rows = [{name: _plain(value) for name, value in row.items()} for row in found.to_pylist()]
    if rows:
        show_table(found.column_names, [list(row.values()) for row in rows])
    show(count_text(len(rows), "row"))
    document("affectdata/query/1", {"columns": found.column_names, "rows": rows})
    return 0


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; NaN and infinity are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str | list | dict) else str(value)
