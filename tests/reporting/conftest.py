"""What tests of the report share with those of training."""

from tests.fixtures import *  # noqa: F403
