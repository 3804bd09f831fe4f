"""`affectdata doctor`: what is unfinished, left over, foreign, orphaned or broken in a working folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from affectdata.cli._output import common_options, document, show
from affectdata.records import count_text


@click.command("doctor")
@click.argument("folder", default=".", type=click.Path(path_type=Path))
@common_options
def command(folder: Path) -> int:
    """Examine manifests/, releases/ and checks/ in FOLDER (default: here); exit 1 if there is anything to do.

    Nothing is changed. Every finding comes with the command that fixes it.
    """
    from affectdata import api

    found = api.doctor(folder)
    for each in found:
        show(f"{each.kind}: {each.path}: {each.text}\n  fix:   {each.fix}")
    show(f"{folder}: {count_text(len(found), 'finding') if found else 'nothing to mend'}")
    listed = [{**asdict(each), "path": str(each.path)} for each in found]
    document("affectdata/doctor/1", {"findings": listed})
    return 1 if found else 0
