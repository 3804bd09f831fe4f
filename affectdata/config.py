"""Read settings from YAML into strict models, which refuse unknown keys and report every problem at once."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from affectdata.errors import RecipeError
from affectdata.records import count_text
from affectdata.store.files import read_regular

NAME_PATTERN = r"^[a-z0-9][a-z0-9_]{0,63}$"  # names of recipes, studies and stimulus sets
MANIFEST_PATTERN = r"^[a-z0-9][a-z0-9_]*$"
_RULES = {  # what the patterns allow, for people
    NAME_PATTERN: "use 1 to 64 of the characters a-z, 0-9 and _, the first not _",
    MANIFEST_PATTERN: "use the characters a-z, 0-9 and _, the first not _",
}
_SHORT = reprlib.Repr()  # for values of any length
_SHORT.maxstring = _SHORT.maxother = 80


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# libyaml parses a megabyte in a second, the parser in Python in a minute.
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_BYTES = 1 << 20  # of a YAML file
_NUMBERS, _MAX_DIGITS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"), 100


def parse_yaml(text: str) -> Any:
    """Parse one YAML document by safe loading.

    Aliases are refused: they could expand a few bytes to any number of values. A duplicate key is an error
    too; PyYAML silently drops the first.

    Raises:
        yaml.YAMLError, ValueError, RecursionError: it is not YAML, or larger than 1 MiB.
    """
    if len(text) > _MAX_BYTES:
        raise ValueError(f"it has {len(text)} characters; the limit is {_MAX_BYTES}")
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise _error(f"aliases are not allowed (*{event.anchor}): repeat the value", event.start_mark)
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _check_nodes(node)
        return None if node is None else loader.construct_document(node)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:  # `!!bool x`, `!!int ""`
        raise ValueError("a value is not of the type of its tag") from error
    finally:
        loader.dispose()


def _check_nodes(root: yaml.Node | None) -> None:
    """Refuse a mapping with two equal keys, and numbers that take long to compute or cannot be printed."""
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.ScalarNode) and node.tag in _NUMBERS and len(node.value) > _MAX_DIGITS:
            raise _error(f"a number of {len(node.value)} characters", node.start_mark)
        elif isinstance(node, yaml.MappingNode):
            seen: set[tuple[str, str]] = set()
            for key, value in node.value:
                name = (key.tag, str(key.value))
                if name in seen:
                    raise _error(f"duplicate key {key.value!r}", key.start_mark)
                seen.add(name)
                nodes += [key, value]


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def read_yaml(path: Path) -> Any:
    """Read one YAML document by safe loading.

    Raises:
        RecipeError: the file cannot be read or is not YAML; with line and column if known.
    """
    try:
        return parse_yaml(read_regular(path, _MAX_BYTES).decode())
    except OSError as error:
        fix = "name a file that can be read, of at most 1 MiB"
        raise RecipeError(f"cannot read {path.name}: {error.strerror}", where=str(path), fix=fix) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or no such date
        fix = "correct the file at the place that is named, or compare it with one of `affectdata init`"
        raise RecipeError(f"{path.name} is not valid YAML: {error}", where=str(path), fix=fix) from error


Model = TypeVar("Model", bound=BaseModel)


def parse_model(model: type[Model], data: Any, where: str, folder: Path | None = None) -> Model:
    """Build `model` from plain data; `where` names the file in errors, `folder` is passed to validators.

    Raises:
        RecipeError: lists every problem with its path, e.g. ``balance.max_copies: …``.
    """
    try:
        return model.model_validate(data, context={"folder": folder or Path()})
    except ValidationError as error:
        raise RecipeError(
            _list_problems(error, data, where), where=where, fix="correct the keys listed above"
        ) from error


def _list_problems(error: ValidationError, data: Any, where: str) -> str:
    messages: dict[str, list[str]] = {}
    for item in _drop_literal_alternatives(error.errors()):
        messages.setdefault(_path(item, data) or "(top level)", []).append(_message(item))
    problems = [f"  {path}: {'; or '.join(texts)}" for path, texts in messages.items()]
    count = count_text(len(problems), "problem")
    return "\n".join([f"{count} in {Path(where).name}:", *problems])


def _drop_literal_alternatives(items: list[Any]) -> list[Any]:
    """Drop the error that a mapping is not a literal (`split: none`), unless it is the only one."""
    rest = [item for item in items if item["type"] != "literal_error" or not isinstance(item["input"], dict)]
    return rest or items


def _path(item: Any, data: Any) -> str:
    """Return the path of a problem in the file, without pydantic's names for union members."""
    parts, node = [], data
    for part in item["loc"]:
        if (isinstance(node, list) and isinstance(part, int)) or (isinstance(node, dict) and part in node):
            node = node[part]
        elif item["type"] != "missing" or part != item["loc"][-1]:
            continue
        parts.append(str(part))
    return ".".join(parts)


def _message(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "unknown key"
    if not item["loc"] and item["type"].startswith("model_"):
        return "the file is empty" if item["input"] is None else "must be a mapping of keys"
    if item["type"] == "missing":
        return "missing"

    rule = _RULES.get(item.get("ctx", {}).get("pattern"))
    message = rule or str(item["msg"]).removeprefix("Value error, ")
    return f"{message} (got {_SHORT.repr(item['input'])})" if not isinstance(item["input"], dict) else message
