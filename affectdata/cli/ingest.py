"""`affectdata ingest`: a source tree becomes a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from affectdata.cli._output import (
    bar,
    common_options,
    document,
    note,
    plain_findings,
    progress,
    say,
    say_table,
    workers_option,
)
from affectdata.errors import UsageError

if TYPE_CHECKING:
    from affectdata.ingest import IngestResult

_FIRST_REJECTS = 10


@click.command("ingest")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--source", metavar="NAME", help="Which source it is. [default: recognised from the tree]")
@click.option(
    "--map",
    "map_path",
    type=click.Path(path_type=Path),
    help="Column map (YAML) for --source table, or capd.",
)
@click.option(
    "--name", help="Name of the manifest, for sources that have none of their own (table, image_folder)."
)
@click.option(
    "--onto",
    multiple=True,
    type=click.Path(path_type=Path),
    help="ROOT is a table of labels for the pictures of this manifest; may be repeated.",
)
@click.option("--variant", help="Which reading of a source that has several (`affectdata sources NAME`).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("manifests"),
    show_default=True,
    help="Folder to write to.",
)
@click.option("--strict", is_flag=True, help="Reject pictures that a decoder warns about.")
@click.option("--replace", is_flag=True, help="Replace a manifest that was made from another folder.")
@click.option("--rehash", is_flag=True, help="Open every picture again, also those that did not change.")
@workers_option
@common_options
def command(
    root: Path,
    source: str | None,
    map_path: Path | None,
    name: str | None,
    onto: tuple[Path, ...],
    variant: str | None,
    out: Path,
    strict: bool,
    replace: bool,
    rehash: bool,
    workers: int | None,
) -> int:
    """Turn the folder ROOT of a source, or its .zip or .tar, into a manifest; with --onto, a table of labels.

    Writes NAME.parquet, NAME.rejects.parquet (what is no row, and why) and NAME.edges.parquet
    (near-duplicates), and prints what went where.
    """
    from affectdata.ingest import ingest
    from affectdata.manifest import load_manifest
    from affectdata.overlay import overlay
    from affectdata.sources._protocol import ReadOptions

    if map_path and not source:
        source = "table"
    options = ReadOptions(map_path=map_path, name=name, variant=variant)
    if onto:
        unheeded = {"--strict": strict, "--rehash": rehash, "--workers": workers is not None}
        if any(unheeded.values()):
            names = ", ".join(name for name, given in unheeded.items() if given)
            raise UsageError(
                f"with --onto no picture is opened: {names} would do nothing", fix="leave it out"
            )
        bases = [load_manifest(path) for path in onto]
        _print(overlay(root, bases, source=source, options=options, out=out, replace=replace))
        return 0
    with progress("ingest") as move:
        result = ingest(
            root,
            source=source,
            options=options,
            out=out,
            workers=workers,
            strict=strict,
            replace=replace,
            rehash=rehash,
            progress=move,
        )
    _print(result)
    return 0


def _print(result: IngestResult) -> None:
    info, manifest = result.info, result.manifest
    say(f"{info.title} ({info.name}): {result.why}")
    counts = ", ".join(f"{number} {what}" for what, number in result.counts.items())
    say(f"{result.n_seen} seen: {counts}")
    if info.evidence != "seen":
        note(f"note: this layout was not read in real files (evidence: {info.evidence}); compare counts")
    by_subtype = _counts(result, "subtype")
    if by_subtype:
        say()
        names = {code: subtype.name for code, subtype in info.subtypes.items()}
        say_table(
            ["subtype", "", "pictures"], [[code, names.get(code, ""), n] for code, n in by_subtype.items()]
        )
    by_emotion = _counts(result, "emotion")
    if by_emotion:
        say()
        say_table(["emotion", "pictures"], [[*each] for each in by_emotion.items()])
    histogram = _histogram(result)
    if any(histogram):
        say()
        most = max(histogram)
        rows = [
            [f"{low}–{low + 10}", n, bar(n, most)]
            for low, n in zip(range(0, 100, 10), histogram, strict=True)
        ]
        say_table(["valence", "pictures", ""], rows)
    if result.findings:
        say("\nnoticed")
        for finding in result.findings:
            say(f"  {finding.text}")
    reasons = _say_rejects(result)
    say(f"\nterms: {info.license}")
    if info.estimated:
        say(f"estimated by a machine: {', '.join(info.estimated)}")
    say(f"wrote {manifest.path}")
    document(
        "affectdata/ingest/1",
        {
            "manifest": str(manifest.path),
            "digest": manifest.digest,
            "source": info.name,
            "recognised_by": result.why,
            "counts": result.counts,
            "reasons": reasons,
            "subtypes": by_subtype,
            "emotions": by_emotion,
            "valence_histogram": histogram,
            "findings": plain_findings(result.findings),
        },
    )


def _counts(result: IngestResult, column: str) -> dict[str, int]:
    query = f"SELECT {column}, count(*) AS n FROM manifest WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 1"
    return {row[column]: row["n"] for row in result.manifest.sql(query).to_pylist()}


def _histogram(result: IngestResult) -> list[int]:
    query = (
        "SELECT least(floor(valence / 10), 9)::INT AS bin, count(*) AS n "
        "FROM manifest WHERE valence IS NOT NULL GROUP BY 1"
    )
    counts = {row["bin"]: row["n"] for row in result.manifest.sql(query).to_pylist()}
    return [counts.get(index, 0) for index in range(10)]


def _say_rejects(result: IngestResult) -> dict[str, int]:
    rejects = [row for row in result.rejects.to_pylist() if row["reason"] != "junk"]
    reasons: dict[str, int] = {}
    for row in rejects:
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + 1
    if rejects:
        say("\nnot in the manifest: " + ", ".join(f"{n} {reason}" for reason, n in sorted(reasons.items())))
        for row in rejects[:_FIRST_REJECTS]:
            say(f"  {row['path']}: {row['reason']}: {row['detail']}")
        if len(rejects) > _FIRST_REJECTS:
            say(f"  … all {len(rejects)} are in {result.manifest.path.with_suffix('.rejects.parquet')}")
    return reasons
