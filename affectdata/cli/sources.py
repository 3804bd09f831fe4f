"""`affectdata sources`: the collections that `ingest` knows."""

from __future__ import annotations

import inspect

import click

from affectdata.cli._output import common_options, document, say, say_table
from affectdata.errors import UsageError
from affectdata.registry import find_plugins, load_plugin

_EVIDENCE = {
    "seen": "seen (this layout was read in real files)",
    "unverified": "unverified (this layout is known from code and papers, not from real files)",
}


@click.command("sources")
@click.argument("name", required=False)
@click.option("--cite", is_flag=True, help="Print only the BibTeX entry of NAME.")
@common_options
def command(name: str | None, cite: bool) -> int:
    """List the known sources with their terms, or show the data sheet of NAME."""
    if cite:
        return _cite(name)
    if name:
        module = load_plugin("sources", name)
        info = module.INFO
        say(inspect.getdoc(module) or info.title)
        say(f"\nlayout:   {info.layout}\nterms:    {info.license}")
        if info.variants:
            say(f"variants: {', '.join(info.variants)} (--variant; the first is the default)")
        say(f"from:     {info.url}\ncite:     {info.citation}\nevidence: {_EVIDENCE[info.evidence]}")
        content = {"name": info.name, "title": info.title, "layout": info.layout, "license": info.license}
        more = {
            "citation": info.citation,
            "bibtex": info.bibtex,
            "evidence": info.evidence,
            "variants": info.variants,
        }
        document("affectdata/source/1", {**content, "url": info.url, **more})
        return 0
    infos = [load_plugin("sources", each).INFO for each in find_plugins("sources")]
    say_table(
        ["source", "title", "terms"], [[info.name, info.title, info.license] for info in infos], indent=""
    )
    rows = [
        {"name": i.name, "title": i.title, "license": i.license, "layout": i.layout, "url": i.url}
        for i in infos
    ]
    document("affectdata/sources/1", {"sources": rows})
    return 0


def _cite(name: str | None) -> int:
    if not name:
        raise UsageError("--cite needs a source", fix="affectdata sources NAME --cite")
    info = load_plugin("sources", name).INFO
    if not info.bibtex:
        raise UsageError(f"{name} has no paper to cite", where=info.citation)
    say(info.bibtex)
    document("affectdata/citation/1", {"name": name, "citation": info.citation, "bibtex": info.bibtex})
    return 0
