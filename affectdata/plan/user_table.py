"""Read a table that a recipe names, and check that it is the one that the recipe was resolved with."""

from __future__ import annotations

from pathlib import Path

from affectdata.errors import RecipeError, SourceError
from affectdata.hashing import file_hash
from affectdata.reading.tables import read_table
from affectdata.reading.tree import Tree
from affectdata.recipe.recipe import HashedFile
from affectdata.store.files import read_regular


def read_user_table(spec: HashedFile, where: str) -> tuple[list[str], list[list[str]]]:
    """Return the column names and the rows; `where` is the key of the recipe.

    Raises:
        RecipeError: the file cannot be read, or has another hash than in the recipe.
    """
    path = Path(spec.file)
    try:
        if file_hash(read_regular(path)) != spec.sha256:
            raise RecipeError(
                f"{spec.file} differs from the {spec.kind} that the recipe was resolved with",
                where=f"{where}.sha256: {spec.sha256}",
                fix="restore the file, or remove sha256 from the recipe to use the current one",
            )
        header, lines = read_table(Tree(path.parent, (path.name,)), path.name)
        return header, list(lines)
    except (OSError, SourceError) as error:
        raise RecipeError(f"cannot read {spec.file}: {error}", where=f"{where}.file") from error
