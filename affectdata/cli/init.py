"""`affectdata init`: a project folder, and a recipe for the manifest in it."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from affectdata.cli._output import common_options, document, show


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    help="Manifest to write a recipe for. [default: each in DIR/manifests without one]",
)
@common_options
def command(folder: Path, manifest: Path | None) -> int:
    """Write a project folder: README.md, .gitignore, and recipes/NAME.yaml for every manifest.

    A recipe has the bins, subtypes and sizes of its manifest, with comments on what to change. Existing files
    are kept.
    """
    from affectdata import api

    result = api.init(folder, manifest=manifest)
    for path in result.kept:
        show(f"kept {path}")
    for path in result.written:
        show(f"wrote {path}")
    command = "ingest ROOT && affectdata init ."
    if result.recipes:
        command = f"balance --recipe {result.recipes[0].stem} --dry-run"
    show(f"next: {'' if folder == Path() else f'cd {shlex.quote(str(folder))} && '}affectdata {command}")
    listed = {"written": result.written, "kept": result.kept, "recipes": result.recipes}
    document("affectdata/init/1", {name: [str(path) for path in paths] for name, paths in listed.items()})
    return 0
