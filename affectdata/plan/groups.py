"""Tables of groups: images that must stay together, as `affectdata groups` writes them (`split.groups`)."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from affectdata.errors import RecipeError
from affectdata.images.duplicates import assign_groups
from affectdata.plan.user_table import read_user_table
from affectdata.recipe.recipe import HashedFile
from affectdata.schema import EDGES

_COLUMNS = ("image_id", "group")
_GROUP = "group of a table"  # no column of a manifest has this name
_WHERE = "split.groups"


def join_groups(table: pa.Table, groups: HashedFile) -> pa.Table:
    """Return the rows with one `group_id` for all images of a group of the table, and those of their groups.

    Raises:
        RecipeError: the table cannot be read, is not that of the recipe, or knows none of the images.
    """
    group_of = _read(groups)
    group = pa.array([group_of.get(image_id) for image_id in table["image_id"].to_pylist()], pa.string())
    if group_of and group.null_count == len(group):
        raise RecipeError(
            f"no image of {Path(groups.file).name} is in the manifest",
            where=_WHERE,
            fix="run `affectdata groups` on this manifest again",
        )
    named = table.append_column(_GROUP, group)
    return assign_groups(named, EDGES.empty_table(), ["group_id", _GROUP]).drop_columns([_GROUP])


def _read(groups: HashedFile) -> dict[str, str]:
    """Return the group of each image of a table."""
    header, rows = read_user_table(groups, _WHERE)
    if not {*_COLUMNS} <= {*header}:
        raise RecipeError(
            f"{groups.file} needs the columns {' and '.join(_COLUMNS)}",
            where=f"{_WHERE}: it has {', '.join(header)}",
        )
    image, group = (header.index(name) for name in _COLUMNS)
    group_of: dict[str, str] = {}
    for row in rows:
        if not row[image] or not row[group]:
            raise RecipeError(f"{groups.file} has a row without image_id or group", where=_WHERE)
        if group_of.setdefault(row[image], row[group]) != row[group]:
            raise RecipeError(f"{groups.file} has {row[image][:16]}… in two groups", where=_WHERE)
    return group_of
