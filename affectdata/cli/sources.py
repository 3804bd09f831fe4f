"""`affectdata sources`: the collections that `ingest` knows."""

from __future__ import annotations

import inspect

import click

from affectdata.cli._output import common_options, document, say, say_table
from affectdata.registry import find_plugins, load_plugin


@click.command("sources")
@click.argument("name", required=False)
@common_options
def command(name: str | None) -> int:
    """List the known sources with their terms, or show the data sheet of NAME."""
    if name:
        module = load_plugin("sources", name)
        info = module.INFO
        say(inspect.getdoc(module) or info.title)
        say(f"\nlayout:   {info.layout}\nterms:    {info.license}")
        say(f"from:     {info.url}\ncite:     {info.citation}")
        content = {"name": info.name, "title": info.title, "layout": info.layout, "license": info.license}
        document("affectdata/source/1", {**content, "url": info.url, "citation": info.citation})
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
