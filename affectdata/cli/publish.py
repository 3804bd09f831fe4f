"""`affectdata publish`: a release goes to a bucket."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import Address, common_options, document, note, progress, show


@click.command("publish")
@click.argument("release", type=click.Path(path_type=Path))
@click.argument("address", type=Address())
@common_options
def command(release: Path, address: str) -> int:
    """Write RELEASE to a bucket, as ADDRESS/<its name>: s3://, gs:// or az://.

    `verify`, `export` and `train-check` take that address in place of a folder. Credentials come from the
    store's own configuration. An interrupted run goes on; until its end, readers find no release.
    """
    from affectdata import api

    with progress() as move:
        target, is_new = api.publish(release, address, note=note, progress=move)
    show(f"published {target}" if is_new else f"{target} is there already, and the same")
    document("affectdata/publish/1", {"release": str(release), "address": target, "new": is_new})
    return 0
