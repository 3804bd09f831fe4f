"""The fixtures that the tests of check and train share, and a release that is checked once."""

from tests.fixtures import (  # noqa: F401
    _one_thread,
    _small_grids,
    backbone,
    checked,
    checks,
    manifest,
    planted,
    prepared,
    publish,
    pytest_collection_modifyitems,
    recipe_of,
    release,
)
