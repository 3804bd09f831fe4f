"""Fixtures shared by the tests of check and train."""

from tests.fixtures import (  # noqa: F401
    _one_thread,
    _small_grids,
    backbone,
    checks,
    manifest,
    planted,
    publish,
    recipe_of,
    release,
)
