"""`affectdata diff`: what changed between two releases."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import PathOrAddress, common_options, document, show, show_table

_SHOWN = 3


@click.command("diff")
@click.argument("old", type=PathOrAddress())
@click.argument("new", type=PathOrAddress())
@common_options
def command(old: Path | str, new: Path | str) -> int:
    """Show what changed from release OLD to NEW, and the version step; exit 1 if anything changed."""
    from affectdata import api

    found = api.diff(old, new)
    content = found.document()
    rows = []
    for what in ("added", "removed", "moved", "relabelled", "redrawn", "described"):
        ids = content[what]
        rows.append([what, len(ids), ", ".join(ids[:_SHOWN]) + (" …" if len(ids) > _SHOWN else "")])
    show_table(["", "rows", ""], rows, indent="")
    if found.cells:
        show()
        show_table(
            ["cell of train", "before", "after"], [[name, *pair] for name, pair in found.cells.items()]
        )
    show(f"\nversion step: {found.step}")
    document("affectdata/diff/1", content)
    return 0 if found.step == "none" else 1
