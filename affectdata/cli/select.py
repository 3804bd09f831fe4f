"""`affectdata select`: a stimulus set, matched between its cells."""

from __future__ import annotations

from pathlib import Path

import click

from affectdata.cli._output import (
    PathOrAddress,
    common_options,
    document,
    folder_option,
    note,
    show,
    show_table,
)
from affectdata.cli._report import may_report, no_report_option


@click.command("select")
@click.argument("manifest", type=PathOrAddress())
@click.option(
    "--recipe",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML file of the request, such as set.yaml.",
)
@folder_option("--out", "selections", "Folder of selections.")
@no_report_option
@common_options
def command(manifest: Path | str, recipe: Path, out: Path, no_report: bool) -> int:
    """Select images of MANIFEST: n per cell of a design, matched between cells, in lists without overlap.

    Differences are in SD of the candidates. If a request cannot be met, the message names the limiting cell
    and the largest possible n.
    """
    from affectdata import api
    from affectdata.selection.selection import SCHEMA

    result = api.select(manifest, recipe, out=out)
    rows = [[cell, n, result.request.n * result.request.lists] for cell, n in result.candidates.items()]
    show_table(["cell", "candidates", "selected"], rows)
    show()
    summary = result.summary
    header = ["column", "difference before", "after", "pairs", "equivalent", "least p", "between lists"]
    show_table(header, summary.astype(object).where(summary.notna(), None).to_numpy().tolist())
    if not result.is_optimal:
        note("note: not proven to be the best match; the search reached its limit")
    show(f"wrote {result.folder}/list.csv")
    if may_report(no_report):
        from affectdata.reporting.selection import selection_page
        from affectdata.store.atomic import write_text

        write_text(result.folder / "report.html", selection_page(result))
        show(f"wrote {result.folder}/report.html")
    document(SCHEMA, result.to_dict())
    return 0
