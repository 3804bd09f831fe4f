"""Settings from YAML: strict models that refuse unknown keys and report every problem at once."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from affectdata.errors import RecipeError
from affectdata.store.files import read_regular

_SHORT = reprlib.Repr()  # of what may be any length
_SHORT.maxstring = _SHORT.maxother = 80


class StrictModel(BaseModel):
    """A frozen model that refuses keys it does not know and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML without aliases, by which a few bytes stand for any number of values.

    A key that is written twice is an error, not a silent loss of the first.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"an alias (*{event.anchor}): write out what it stands for", event.start_mark
            )
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.composer.ComposerError(
                    "while reading a mapping",
                    node.start_mark,
                    f"the key {key.value!r} is there twice",
                    key.start_mark,
                )
            seen.add(name)
        return node


def read_yaml(path: Path) -> Any:
    """Read one YAML document by safe loading.

    Raises:
        RecipeError: the file cannot be read or is not YAML; with line and column where known.
    """
    try:
        return yaml.load(read_regular(path).decode(), _StrictLoader)
    except OSError as error:
        raise RecipeError(f"cannot read {path.name}: {error.strerror}", where=str(path)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: UTF-8, or no such date
        raise RecipeError(f"{path.name} is not valid YAML: {error}", where=str(path)) from error


Model = TypeVar("Model", bound=BaseModel)


def parse_model(model: type[Model], data: Any, where: str, folder: Path | None = None) -> Model:
    """Build `model` from plain data; `where` names the file in the error, `folder` is for its validators.

    Raises:
        RecipeError: listing every problem with its path, e.g. ``balance.max_copies: …``.
    """
    try:
        return model.model_validate(data, context={"folder": folder or Path()})
    except ValidationError as error:
        raise RecipeError(
            _all_problems(error, data, where), where=where, fix="correct what is named above"
        ) from error


def _all_problems(error: ValidationError, data: Any, where: str) -> str:
    words: dict[str, list[str]] = {}
    for item in _without_other_ways(error.errors()):
        words.setdefault(_path(item, data) or "(top level)", []).append(_in_plain_words(item))
    problems = [f"  {path}: {'; or '.join(said)}" for path, said in words.items()]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"{count} in {Path(where).name}:", *problems])


def _without_other_ways(items: list[Any]) -> list[Any]:
    """Leave out that a mapping could have been a word instead (`split: none`), where that is not all."""
    meant = [item for item in items if item["type"] != "literal_error" or not isinstance(item["input"], dict)]
    return meant or items


def _path(item: Any, data: Any) -> str:
    """Return where a problem stands in the file; pydantic's names for alternatives are no part of it."""
    parts, node = [], data
    for part in item["loc"]:
        if (isinstance(node, list) and isinstance(part, int)) or (isinstance(node, dict) and part in node):
            node = node[part]
        elif item["type"] != "missing" or part != item["loc"][-1]:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _in_plain_words(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown key"
    if not item["loc"] and item["type"].startswith("model_"):
        return "the file is empty" if item["input"] is None else "no mapping of keys"
    if item["type"] == "missing":
        return "required, but not there"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{message} (got {_SHORT.repr(item['input'])})" if not isinstance(item["input"], dict) else message
