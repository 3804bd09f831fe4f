"""`affectdata ingest`: a source tree becomes a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from affectdata.cli._output import (
    PathOrAddress,
    bar,
    common_options,
    complete_sources,
    document,
    engine_option,
    note,
    plain_findings,
    progress,
    show,
    show_table,
    workers_option,
)

if TYPE_CHECKING:
    from affectdata.manifest.ingest import IngestResult

_FIRST_REJECTS = 10
_FIRST_KINDS = 8  # of junk


@click.command("ingest")
@click.argument("root", type=PathOrAddress())
@click.option(
    "--source",
    metavar="NAME",
    shell_complete=complete_sources,
    help="Source of the images. [default: recognised from the files]",
)
@click.option(
    "--map",
    "map_path",
    type=click.Path(path_type=Path),
    help="Column map (YAML) for --source table, or capd.",
)
@click.option("--name", help="Name of the manifest, for sources without a fixed name (table, image_folder).")
@click.option(
    "--onto",
    multiple=True,
    type=PathOrAddress(),
    help="Treat ROOT as a table of labels for the images of this manifest; repeatable.",
)
@click.option("--variant", help="Variant of the source's labels (`affectdata sources NAME` lists them).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("manifests"),
    show_default=True,
    help="Folder to write to.",
)
@click.option(
    "--strict", is_flag=True, help="Reject images that a decoder warns about, and refuse unusable votes."
)
@click.option("--replace", is_flag=True, help="Replace a manifest that was made from another folder.")
@click.option("--rehash", is_flag=True, help="Open every image again, even if it did not change.")
@click.option(
    "--trust-names",
    is_flag=True,
    help="Keep images that look different from the indexed image of the same name.",
)
@workers_option
@engine_option
@common_options
def command(
    root: Path | str,
    source: str | None,
    map_path: Path | None,
    name: str | None,
    onto: tuple[Path | str, ...],
    variant: str | None,
    out: Path,
    strict: bool,
    replace: bool,
    rehash: bool,
    trust_names: bool,
    workers: int | None,
    engine: str,
) -> int:
    """Turn the folder ROOT of a source, or its .zip or .tar, into a manifest; with --onto, a table of labels.

    Writes NAME.parquet, NAME.rejects.parquet (everything that is not a row, with a reason) and
    NAME.edges.parquet (look-alikes), and prints how many files went where.
    """
    from affectdata import api
    from affectdata.recipe.packaged import find_recipe_for

    with progress() as move:
        result = api.ingest(
            root,
            source=source,
            column_map=map_path,
            name=name,
            onto=onto,
            variant=variant,
            out=out,
            strict=strict,
            replace=replace,
            rehash=rehash,
            trust_names=trust_names,
            workers=workers,
            engine=engine,
            progress=move,
        )
    _print(result, find_recipe_for(result.path.stem))
    return 0


def _print(result: IngestResult, recipe: str | None) -> None:
    info = result.info
    show(f"{info.title} ({info.name}): {result.why}")
    counts = ", ".join(f"{number} {what}" for what, number in result.counts.items())
    show(f"{result.n_seen} seen: {counts}")
    if info.evidence != "seen":
        note(f"note: this layout is untested on real files (evidence: {info.evidence}); compare counts")
    by_subtype = result.count("subtype")
    if by_subtype:
        show()
        names = {code: subtype.name for code, subtype in info.subtypes.items()}
        show_table(
            ["subtype", "", "images"], [[code, names.get(code, ""), n] for code, n in by_subtype.items()]
        )
    by_emotion = result.count("emotion")
    if by_emotion:
        show()
        show_table(["emotion", "images"], [[*each] for each in by_emotion.items()])
    histogram = result.valence_histogram()
    if any(histogram):
        show()
        most = max(histogram)
        rows = [
            [f"{low}–{low + 10}", n, bar(n, most)]
            for low, n in zip(range(0, 100, 10), histogram, strict=True)
        ]
        show_table(["valence", "images", ""], rows)
    if result.findings:
        show("\nfindings")
        for finding in result.findings:
            show(f"  {finding.text}")
    reasons, junk = _print_rejects(result), result.junk()
    if junk:
        more = f", and {len(junk) - _FIRST_KINDS} more kinds" if len(junk) > _FIRST_KINDS else ""
        kinds = [f"{n} {kind}" for kind, n in junk.items()][:_FIRST_KINDS]
        show(f"\njunk: {', '.join(kinds)}{more}")
    show(f"\nterms: {info.license}")
    if info.estimated:
        show(f"estimated by a machine: {', '.join(info.estimated)}")
    show(f"wrote {result.path}")
    show(f"next: {_next(recipe)}")
    document(
        "affectdata/ingest/1",
        {
            "manifest": str(result.path),
            "digest": result.digest,
            "source": info.name,
            "recognised_by": result.why,
            "counts": result.counts,
            "reasons": reasons,
            "junk": junk,
            "subtypes": by_subtype,
            "emotions": by_emotion,
            "valence_histogram": histogram,
            "findings": plain_findings(result.findings),
        },
    )


def _next(recipe: str | None) -> str:
    """Return the next command: to balance by a packaged recipe for this manifest alone, or to write one."""
    if recipe:
        return f"affectdata balance --recipe {recipe} --dry-run"
    return "affectdata init .    # writes a recipe that fits"


def _print_rejects(result: IngestResult) -> dict[str, int]:
    reasons, rejects = result.reasons(), result.rejects_without_junk
    if reasons:
        show("\nnot in the manifest: " + ", ".join(f"{n} {reason}" for reason, n in reasons.items()))
        for row in rejects.slice(0, _FIRST_REJECTS).to_pylist():
            show(f"  {row['path']}: {row['reason']}: {row['detail']}")
        if len(rejects) > _FIRST_REJECTS:
            show(f"  … all {len(rejects)} are in {result.path.with_suffix('.rejects.parquet')}")
        if result.fix:
            show(f"  fix for {result.fix}")
    return reasons
