"""`affectdata schema`: what the keys of a document mean, as JSON."""

from __future__ import annotations

import json
from typing import Any

import click
from pydantic import BaseModel

from affectdata.cli._output import common_options, echo
from affectdata.errors import UsageError
from affectdata.registry import suggest

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FILES = ("manifest", "recipe")


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in _names() if name.startswith(incomplete)]


def _names() -> list[str]:
    from affectdata.cli._documents import DOCUMENTS

    return sorted({*DOCUMENTS, *_FILES})


@click.command("schema")
@click.argument("form", required=False, shell_complete=_complete)
@common_options
def command(form: str | None) -> int:
    """Print the JSON Schema of FORM; without it, list all forms.

    FORM is `recipe`, `manifest` (its columns), or the middle part of the `schema` of a document: `ingest`
    for what `affectdata ingest --json` prints, `release` for release.json, `train-check`, `study`, …
    """
    if form is None:
        echo("\n".join(_names()))
        return 0
    echo(json.dumps(_describe(form), indent=2, ensure_ascii=False))
    return 0


def _describe(form: str) -> dict[str, Any]:
    """Return the schema of a document; the files that editors and programs ask for load nothing else."""
    if form == "manifest":
        from affectdata.schema import describe_manifest

        return describe_manifest()
    return {"$schema": _DIALECT, **_find(form).model_json_schema()}


def _find(form: str) -> type[BaseModel]:
    if form == "recipe":
        from affectdata.recipe.recipe import Recipe

        return Recipe
    if form == "train-check":
        from affectdata.check.blocks import CheckDocument

        return CheckDocument
    from affectdata.cli._documents import DOCUMENTS

    if form not in DOCUMENTS:
        known = _names()
        fix = f"{suggest(form, known)}known: {', '.join(known)}"
        raise UsageError(f"no document is called {form!r}", fix=fix)
    return DOCUMENTS[form]
