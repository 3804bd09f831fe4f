"""The packaged recipes, and which of them is for one source."""

from __future__ import annotations

import yaml

from affectdata.registry import find_data


def find_recipe_for(source: str) -> str | None:
    """Return the first packaged recipe, by name, whose only source is this one."""
    for path in sorted(find_data("recipes").glob("*.yaml")):
        if yaml.safe_load(path.read_bytes()).get("sources") == [source]:
            return path.stem
    return None
