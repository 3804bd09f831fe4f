"""A killed check resumes from the splits that it has finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from affectdata.check.check import CheckOutput, run_check
from affectdata.check.evaluate import EvaluateSplit, SplitEvaluation
from affectdata.check.prepare import CheckInput, Split
from affectdata.check.resume import SplitStore

pytestmark = pytest.mark.slow  # the check that the tests share takes seconds


class Killed(BaseException):
    """What a SIGKILL leaves: nothing runs after it."""


@pytest.fixture
def n_evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts evaluations; the second element, if set, is the number after which the run is killed."""
    original, counts = EvaluateSplit.__call__, [0, -1]

    def counting(self: EvaluateSplit, split: Split) -> SplitEvaluation:
        if counts[0] == counts[1]:
            raise Killed
        counts[0] += 1
        return original(self, split)

    monkeypatch.setattr(EvaluateSplit, "__call__", counting)
    return counts


def test_a_killed_check_evaluates_only_the_rest_and_gives_the_same_document(
    prepared: CheckInput, checked: CheckOutput, tmp_path: Path, n_evaluated: list[int]
) -> None:
    store = SplitStore(tmp_path / "splits", prepared.others)
    n_evaluated[1] = 3
    with pytest.raises(Killed):
        run_check(prepared, store=store)
    files = sorted(store.folder.iterdir())
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:100])  # a disk failure costs that split only
    n_evaluated[:] = [0, -1]
    resumed = run_check(prepared, store=store)
    n_splits = len(prepared.crossfit) + 1 + sum(map(len, prepared.regrouped.values()))
    assert n_evaluated[0] == n_splits - 2
    assert resumed.document.to_dict() == checked.document.to_dict()
    assert resumed.predictions.equals(checked.predictions)
    store.clear()
    assert not store.folder.exists()


def test_another_label_feature_or_setting_is_evaluated_again(
    prepared: CheckInput, tmp_path: Path, n_evaluated: list[int]
) -> None:
    store = SplitStore(tmp_path / "splits", {})
    split = prepared.crossfit[0]
    (arm, rows), *_ = split.arms.items()
    target, features = rows.target.copy(), split.test.features.copy()
    target[0] += 1
    features[-1, -1] += 1
    base = EvaluateSplit([], True, _Learner(1))
    others = SplitStore(tmp_path / "splits", {"b": rows})
    keys = {
        store._key(split, base),
        store._key(replace(split, arms={**split.arms, arm: replace(rows, target=target)}), base),
        store._key(replace(split, test=replace(split.test, features=features)), base),
        store._key(split, replace(base, learner=_Learner(2))),
        store._key(split, replace(base, numeric=False)),
        others._key(split, base),
    }
    assert len(keys) == 6
    assert store._key(split, base) == SplitStore(tmp_path, {})._key(split, base)


class _Learner:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def describe(self) -> dict[str, float]:
        return {"rate": float(np.float32(0.5))}
