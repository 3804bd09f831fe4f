"""`affectdata sample`: a small generated tree in a source's true layout."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import common_options, complete_sources, document, show


@click.command("sample")
@click.argument("name", shell_complete=complete_sources)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the generated images."
)
@common_options
def command(name: str, folder: Path, seed: int) -> int:
    """Write a small generated sample in the layout of source NAME to FOLDER, to try the other commands."""
    from affectdata import api

    api.sample(name, folder, seed=seed)
    show(f"wrote a generated {name} tree to {folder}; it is not the real collection")
    document("affectdata/sample/1", {"source": name, "folder": str(folder), "seed": seed})
    return 0
