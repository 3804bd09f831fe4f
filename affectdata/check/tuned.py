"""Networks as the learner of a check (`evaluate.Learner`): one for every arm and stage, fine-tuned.

Every arm gets the same number of optimiser steps, whatever its number of rows. The regressor is a network
with one linear output, trained by squared error; the classifier, another network, takes the image and the
regressor's output for it (out of fold for its training rows). Predictions are kept, networks are not: an
interrupted check resumes from the predictions, and within a network from its checkpoint.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from affectdata.check.arms import WITH
from affectdata.check.evaluate import Curve
from affectdata.check.prepare import CheckInput
from affectdata.check.study_targets import StudyTarget
from affectdata.check.target_arms import FittedTarget
from affectdata.errors import IntegrityError
from affectdata.hashing import file_hash
from affectdata.store.sealed import read_kept, write_kept
from affectdata.train.finetune import FittedNetwork, finetune
from affectdata.train.heads import FittedHead, fit_classifier, fit_regressor, predict_out_of_fold
from affectdata.train.images import IMAGES, Progress, store_images
from affectdata.train.loop import run_key
from affectdata.train.losses import POLARITY_OF_CLASSES
from affectdata.train.networks import Network, build_network
from affectdata.train.rows import Rows
from affectdata.train.task import Examples, Settings
from affectdata.train.trunks import Note
from affectdata.train.weights import NONE

RUNS = ".runs"  # folder below that of a release's checks
_N_FOLDS = 2  # for predictions out of fold: one network per fold
_POINTS = 10  # of a curve of few steps
_HEAD_FRAC = 1 / 6  # of the steps train the last layer alone


def choose_settings(network: Network, n_rows: int, **given: Any) -> Settings:
    """Return settings of training; those not given, or None, follow from the network's weights.

    The curve has a point per epoch if `epochs` are given, otherwise ten, or one per 50 steps. Random weights
    (also those of a class without a file) have no first phase, and one rate for all layers.

    Raises:
        UsageError: a value is out of range.
    """
    given = {name: value for name, value in given.items() if value is not None}
    settings = Settings(**given)
    steps = settings.count_steps(n_rows)
    every = -(-n_rows // settings.batch) if settings.epochs else min(settings.every, steps // _POINTS)
    implied: dict[str, Any] = {"head_steps": round(_HEAD_FRAC * steps), "every": max(1, every)}
    if network.weights == NONE or (network.code and not Path(network.weights).is_file()):
        implied |= {"head_steps": 0, "lr_trunk": settings.lr_head}
    return replace(settings, **{**implied, **given})


@dataclass(frozen=True, eq=False)
class LazyNetwork:
    """A network that is trained at its first prediction; `folder` keeps its predictions."""

    network: Network
    images: np.ndarray
    examples: Examples
    settings: Settings
    folder: Path
    note: Note
    labels: np.ndarray
    curve: Curve = field(default_factory=list)  # empty before the first prediction

    def report(self) -> dict[str, Any]:
        return {}

    def predict(self, rows: Rows) -> np.ndarray:
        return self.shares(rows, None)[:, 0]

    def shares(self, rows: Rows, outputs: np.ndarray | None) -> np.ndarray:
        rows_hash = self._hash(Examples(rows.pool_index, np.empty(0), outputs=outputs))
        path = self.folder / f"{file_hash((self._key + rows_hash).encode())[:16]}.json"
        if not path.exists():
            predictions = self._fitted.predict(self.images, rows.pool_index, outputs)
            write_kept(path, {"curve": self._fitted.curve, "predictions": predictions.tolist()})
        fix = f"remove {path} and run the same check again"
        kept = read_kept(path, fix)
        try:
            self.curve[:] = kept["curve"]
            return np.array(kept["predictions"], float).reshape(len(rows), -1)
        except (LookupError, TypeError, ValueError) as error:
            raise IntegrityError(f"{path.name} is not what was written", where=str(path), fix=fix) from error

    def trained(self) -> Network:
        """Return the trained network; if only its predictions were kept, it is trained again."""
        return self._fitted.network

    @cached_property
    def _key(self) -> str:
        return self._hash(self.examples)

    def _hash(self, examples: Examples) -> str:
        return run_key(self.network, self.images, [examples], self.settings)

    @cached_property
    def _fitted(self) -> FittedNetwork:
        states = self.folder / "states"
        fitted = finetune(
            self.network, self.images, self.examples, self.settings, folder=states, note=self.note
        )
        shutil.rmtree(states)  # as large as the network; only its predictions are needed
        loss = fitted.curve[-1]["loss"]
        self.note(f"{self.settings.loss}, {len(self.examples.rows)} rows: final loss {loss:.4f}")
        return fitted


class TunedNetworks:
    """The learner. `images` are those of the image pool; `folder` keeps the networks' predictions."""

    heads: ClassVar = {"regressor": "network"}
    is_costly: ClassVar = True

    def __init__(
        self,
        prepared: CheckInput,
        images: np.ndarray,
        steps: int | None,
        folder: Path,
        note: Note = lambda _: None,
    ) -> None:
        self.backbone, self.seed = prepared.backbone, prepared.recipe.seed
        self.images, self.folder, self.note = images, folder, note
        self.settings = choose_settings(self._build(1), 0, steps=steps, seed=self.seed)

    def _build(self, n_outputs: int, takes_output: bool = False) -> Network:
        return build_network(
            self.backbone.name,
            n_outputs,
            self.backbone.weights,
            size_px=self.images.shape[1],
            takes_output=takes_output,
            device=str(self.backbone.device),
            seed=self.seed,
        )

    def fit_regressor(self, train: Rows, head: str) -> LazyNetwork:
        return self._train(
            Examples(train.pool_index, train.target, train.weight), "squared_error", np.empty(1)
        )

    def out_of_fold(self, regressor: LazyNetwork, train: Rows) -> np.ndarray:
        return predict_out_of_fold(lambda rows: self.fit_regressor(rows, ""), train, self.seed, _N_FOLDS)

    def fit_classifier(self, train: Rows, labels: np.ndarray, outputs: np.ndarray | None) -> LazyNetwork:
        names, codes = np.unique(labels, return_inverse=True)
        return self._train(Examples(train.pool_index, codes, train.weight, outputs), "cross_entropy", names)

    def fit_target(self, train: Rows, target: StudyTarget) -> FittedTarget:
        """Train a network for a target of several values, or of classes with a polarity."""
        fitted = self.target_network(train, target)
        return FittedTarget(lambda rows: target.decode(fitted.shares(rows, None)), fitted.curve)

    def target_network(self, train: Rows, target: StudyTarget) -> LazyNetwork:
        """Return the network of `fit_target`."""
        values, loss = target.encode(target.true(train)), target.losses[0]
        examples = Examples(train.pool_index, values, train.weight)
        signs = target.signs if loss == POLARITY_OF_CLASSES else None
        return self._train(examples, loss, np.array(target.outputs), signs)

    def _train(
        self, examples: Examples, loss: str, labels: np.ndarray, signs: tuple[float, ...] | None = None
    ) -> LazyNetwork:
        network = self._build(len(labels), examples.outputs is not None)
        settings = replace(self.settings, loss=loss, class_signs=signs)
        return LazyNetwork(network, self.images, examples, settings, self.folder, self.note, labels)

    def on_features(self, fitted: LazyNetwork, train: Rows, labels: np.ndarray | None) -> FittedHead:
        if labels is None:
            return fit_regressor(train, "svr", self.seed)
        return fit_classifier(train, labels, None, self.seed)

    def describe(self) -> dict[str, Any]:
        settings = asdict(self.settings)
        for name in ("loss", "seed", "class_signs"):  # a loss per model; the seed is the recipe's
            del settings[name]
        return {"mode": "finetune", "size_px": self.images.shape[1], **settings}


def prepare_networks(
    prepared: CheckInput,
    checks: Path,
    *,
    n_splits: int | None = None,
    steps: int | None = None,
    size_px: int | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    note: Note = lambda _: None,
) -> tuple[CheckInput, TunedNetworks]:
    """Return the input for networks, and the learner [defaults: five splits, 600 steps, the network's size].

    Images are kept in `checks/.images`, predictions in `checks/<release>/.runs`.

    Raises:
        InputError: the network cannot take images of this size.
    """
    size = size_px or prepared.backbone.normalisation.size_px
    images = store_images(prepared.image_pool.parts, size, checks / IMAGES, workers, progress)
    few = limit_splits(prepared, n_splits)
    return few, TunedNetworks(few, images, steps, checks / prepared.release.name / RUNS, note)


def limit_splits(prepared: CheckInput, n_splits: int | None = None) -> CheckInput:
    """Keep some splits of the first assignment and the held-out one, without the arms of other manifests.

    A network takes minutes to train, a head a second.
    """
    few = []
    for split in prepared.crossfit[: prepared.n_first][:n_splits]:
        arms = {name: rows for name, rows in split.arms.items() if not name.startswith(WITH)}
        few.append(replace(split, arms=arms))
    return replace(prepared, fold_assignments=prepared.fold_assignments[:1], crossfit=few, regrouped={})
