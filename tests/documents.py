"""Compare the documents of --json with the schemas that `affectdata schema` prints."""

from __future__ import annotations

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from affectdata.cli._documents import DOCUMENTS


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(DOCUMENTS[name].model_json_schema())


def name_of(document: Any) -> str:
    """The name of a document's schema: `ingest` of affectdata/ingest/1; "" of none, or of a test's own."""
    form = document.get("schema") if isinstance(document, dict) else None
    name = form.split("/")[1] if isinstance(form, str) else ""
    return "" if name == "test" else name


def problems(document: Any) -> list[str]:
    """What its schema says against a document; schemas are documents without a form."""
    name = name_of(document)
    if not name:
        return []
    return [f"{error.json_path}: {error.message}" for error in _validator(name).iter_errors(document)]
