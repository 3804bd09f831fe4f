"""Commands in any order, with crashes between: what was held out stays out of train (`tests.walk`)."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.walk import STEPS, Walk, cluster_of


class Commands(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.walk = Walk(self.folder / "work")

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(seed=st.integers(0, 2**32), step=st.sampled_from(STEPS))
    def step(self, seed: int, step: str) -> None:
        self.walk.step(random.Random(seed), step)


Commands.TestCase.settings = settings(
    max_examples=4, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.slow
class TestCommands(Commands.TestCase):
    pass


@pytest.mark.slow
def test_an_image_that_comes_back_with_a_look_alike_stays_out_of_train(tmp_path: Path) -> None:
    walk = Walk(tmp_path / "work")
    walk.split("a", 1)
    held = sorted(image for image in walk.images("a") if {cluster_of(image.name)} & walk.held["a"])
    assert held
    for image in held:
        image.rename(walk.root / "away_a" / image.name)
    walk.ingest("a")
    for image in held:
        walk.add("a", like=cluster_of(image.name))
        (walk.root / "away_a" / image.name).rename(image)
    walk.remove_manifest("a")
    walk.ingest("a")
    for seed in range(3):
        walk.balance("a", seed)
        walk.balance("b", seed, fill_from="a")
    assert walk.n_checked >= 3
