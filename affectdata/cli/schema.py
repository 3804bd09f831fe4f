"""`affectdata schema`: what the keys of a file mean, as JSON."""

from __future__ import annotations

import json
from typing import Any

import click

from affectdata.cli._output import common_options, echo

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FORMS = ["train-check", "recipe", "manifest"]


@click.command("schema")
@click.argument("form", type=click.Choice(_FORMS), metavar="|".join(_FORMS))
@common_options
def command(form: str) -> int:
    """Print the JSON Schema of train-check.json or of a recipe, or the columns of a manifest."""
    from affectdata.check.blocks import CheckDocument
    from affectdata.recipe.recipe import Recipe
    from affectdata.schema import describe_manifest

    found: dict[str, Any] = describe_manifest()
    if form != "manifest":
        found = {"$schema": _DIALECT, **(Recipe if form == "recipe" else CheckDocument).model_json_schema()}
    echo(json.dumps(found, indent=2, ensure_ascii=False))
    return 0
