"""`affectdata publish`: a release or a manifest goes to a bucket."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import Address, common_options, document, note, progress, show


@click.command("publish")
@click.argument("subject", metavar="RELEASE|MANIFEST", type=click.Path(path_type=Path))
@click.argument("address", type=Address())
@common_options
def command(subject: Path, address: str) -> int:
    """Write a release or a manifest to a bucket, as ADDRESS/<its name>: s3://, gs:// or az://.

    Commands that read a release or a manifest take that address in its place. Credentials come from the
    store's own configuration. Run the command again after an interruption: it continues, and until its end
    readers find nothing.
    """
    from affectdata import api

    with progress() as move:
        target, is_new = api.publish(subject, address, note=note, progress=move)
    show(f"published {target}" if is_new else f"{target} already exists, with the same contents")
    document("affectdata/publish/1", {"release": str(subject), "address": target, "new": is_new})
    return 0
