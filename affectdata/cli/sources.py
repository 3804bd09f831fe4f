"""`affectdata sources`: the collections that `ingest` knows."""

from __future__ import annotations

import inspect
from dataclasses import asdict

import click

from affectdata.cli._output import alarm, common_options, complete_sources, document, show
from affectdata.errors import UsageError
from affectdata.records import SourceInfo
from affectdata.registry import check_outside, find_plugins, load_plugin

EVIDENCE = {
    "seen": "seen (this layout was read in real files)",
    "unverified": "unverified (this layout is known from code and papers, not from real files)",
}


@click.command("sources")
@click.argument("name", required=False, shell_complete=complete_sources)
@click.option("--cite", is_flag=True, help="Print only the BibTeX entry of NAME.")
@common_options
def command(name: str | None, cite: bool) -> int:
    """List the known sources with terms, URL and layout, or show the data sheet of NAME."""
    if cite:
        return _cite(name)
    if name:
        return _show(name)
    outside = {each.name: each for each in check_outside("sources")}
    broken = [each for each in outside.values() if each.error]
    usable = [name for name in find_plugins("sources") if name not in {each.name for each in broken}]
    infos = [load_plugin("sources", name).INFO for name in usable]
    for info in infos:
        show(f"{info.name}: {info.title}")
        show(f"    terms   {info.license}\n    from    {info.url or '–'}\n    layout  {info.layout}")
        if info.name in outside:
            show(f"    package {outside[info.name].package}")
    for each in broken:
        show(alarm(f"{each.name}: cannot be used"))
        show(f"    package {each.package}\n    error   {each.error}")
    plugins = [asdict(each) for each in outside.values()]
    document("affectdata/sources/1", {"sources": [_sheet(info) for info in infos], "plugins": plugins})
    return 0


def _show(name: str) -> int:
    source = load_plugin("sources", name)
    info = source.INFO
    show(inspect.getdoc(source) or info.title)
    show(f"\nlayout:   {info.layout}\nterms:    {info.license}")
    if info.variants:
        show(f"variants: {', '.join(info.variants)} (--variant; the first is the default)")
    if info.estimated:
        show(f"machine:  estimated {', '.join(info.estimated)}")
    show(f"from:     {info.url}\ncite:     {info.citation}\nevidence: {EVIDENCE[info.evidence]}")
    more = {"bibtex": info.bibtex, "variants": info.variants, "estimated": info.estimated}
    document("affectdata/source/1", {**_sheet(info), **more})
    return 0


def _sheet(info: SourceInfo) -> dict[str, str]:
    names = ("name", "title", "license", "url", "layout", "citation", "evidence")
    return {name: getattr(info, name) for name in names}


def _cite(name: str | None) -> int:
    if not name:
        raise UsageError("--cite needs a source", fix="affectdata sources NAME --cite")
    info = load_plugin("sources", name).INFO
    if not info.bibtex:
        raise UsageError(f"{name} has no paper to cite", where=info.citation)
    show(info.bibtex)
    document("affectdata/citation/1", {"name": name, "citation": info.citation, "bibtex": info.bibtex})
    return 0
