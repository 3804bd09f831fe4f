"""`affectdata download`: images of which a source ships only the addresses."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from affectdata.cli._output import common_options, document, note, progress, show

_FIRST_FAILURES = 10


@click.command("download")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--source", metavar="NAME", help="Source of the images. [default: recognised from the files]")
@click.option(
    "--map", "map_path", type=click.Path(path_type=Path), help="Column map (YAML) for --source table."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to. [default: ROOT]")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Request at most N images.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Number of connections, at most two per host.",
)
@common_options
def command(
    root: Path, source: str | None, map_path: Path | None, out: Path | None, limit: int | None, workers: int
) -> int:
    """Download the images whose URLs are in the tables of ROOT; then run `ingest` on ROOT.

    Each outcome is recorded in download.parquet. The same command resumes: it requests missing images and
    those with temporary failures, and exits with 1 while such failures remain. Without download.parquet it
    requests every missing image again.
    """
    from affectdata import api

    with progress() as move:
        result = api.download(
            root,
            source=source,
            column_map=map_path,
            out=out,
            limit=limit,
            workers=workers,
            note=note,
            progress=move,
        )
    counts = ", ".join(f"{number} {what}" for what, number in result.counts.items())
    show(f"{result.n_listed} listed: {counts}")
    statuses = dict(sorted(Counter(str(row["status"]) for row in result.failures).items()))
    if statuses:
        show("\nnot fetched: " + ", ".join(f"{number} {status}" for status, number in statuses.items()))
        for row in result.failures[:_FIRST_FAILURES]:
            show(f"  {row['path']}: {row['status']}: {row['error']} ({row['url']})")
        if len(result.failures) > _FIRST_FAILURES:
            show(f"  … all {len(result.failures)} are in {result.notes}")
        if result.n_temporary:
            show(f"{result.n_temporary} of these failures may be temporary: run it again")
    show(f"\nterms: {result.info.license}")
    document(
        "affectdata/download/1",
        {
            "source": result.info.name,
            "notes": str(result.notes),
            "listed": result.n_listed,
            "counts": result.counts,
            "statuses": statuses,
            "may_pass": result.n_temporary,
        },
    )
    return 1 if result.n_temporary else 0
