"""The fixtures that the tests of check and train share."""

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
