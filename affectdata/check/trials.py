"""The runs of a study on a release: networks trained on an arm of its own train split.

Each is scored on the originals of val, where a study chooses its best, and of test, which is only reported.
Numeric target: r2, ccc, mae, macro_mae, sd_ratio. Categorical target: accuracy, balanced_accuracy, macro_f1,
and the gap in accuracy between age groups, genders and ethnicities if at least two have 30 images; smaller
ones are printed when a run is scored.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from affectdata.check import metrics
from affectdata.check.arms import RELEASE
from affectdata.check.image_pool import find_originals, plan_image_pool
from affectdata.check.prepare import released_arms, released_rows
from affectdata.check.scores import LABEL_MEASURES, SUBGROUPS, score_subgroups
from affectdata.check.study import TEST, VAL, Scores, Study, Trial, load_study, run_study
from affectdata.check.tuned import RUNS, choose_settings
from affectdata.check.words import small_groups_text
from affectdata.errors import InputError
from affectdata.images.decode import pixel_versions
from affectdata.recipe.recipe import parse_recipe
from affectdata.release.lineage import validate_release
from affectdata.release.release import Release
from affectdata.train.finetune import finetune
from affectdata.train.images import IMAGES, Progress, store_images
from affectdata.train.losses import find_loss
from affectdata.train.networks import Network, build_network
from affectdata.train.rows import Rows
from affectdata.train.task import Examples, Settings
from affectdata.train.trunks import Say
from affectdata.train.weights import state_hash

STUDIES = "studies"  # folder below that of a release's checks
_MEASURES = ("r2", "ccc", "mae", "sd_ratio")
# That determine a score, besides those that determine pixels.
_VERSIONS = ("affectdata", "torch", "torchvision", "timm")


def study_release(
    release: Release,
    path: Path,
    checks: Path,
    *,
    device: str | None = None,
    workers: int = 1,
    say: Say = lambda _: None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Path]:
    """Run the study in the file `path` on a release; return its document (see `study`) and its folder.

    Raises:
        RecipeError: a setting is unknown or has an invalid value; raised before training.
        InputError: the release has no val split or lacks an arm, or a loss does not fit its target.
        MissingError: weights or the device are missing.
        ImagesNotFound: an arm other than the release's own needs the source images.
    """
    study = load_study(path)
    folder = checks / release.name / STUDIES / study.name
    trials = _Trials(release, study, checks, folder, device, workers, say)
    return run_study(study, trials, folder, progress or (lambda *_: None), trials.run_inputs), folder


class _Trials:
    """Runs one set of settings at a time; all of them are validated by the constructor."""

    def __init__(
        self,
        release: Release,
        study: Study,
        checks: Path,
        folder: Path,
        device: str | None,
        workers: int,
        say: Say,
    ) -> None:
        self.checks, self.folder, self.device, self.workers, self.say = checks, folder, device, workers, say
        validate_release(release)
        recipe = parse_recipe(release.recipe_document, str(release.path / "recipe.yaml"))
        self.target = recipe.target
        trials = [Trial(**settings) for settings in study.runs()]
        wanted = {trial.arm for trial in trials}
        images = release.images() if wanted != {RELEASE} else None
        unlimited = recipe.check.model_copy(update={"max_pictures": len(release.rows)})
        self.originals = find_originals(release, recipe.model_copy(update={"check": unlimited}))
        arms = released_arms(release, self.originals, recipe, with_images=images is not None)
        plans = {name: released_rows(release, self.originals, name) for name in (VAL, TEST)}
        if not len(plans[VAL]):
            raise InputError(
                f"{release.name} has no val split, on which a study chooses its best",
                where=str(release.path),
                fix="balance by a recipe with `split: {val: 0.1, test: 0.2}`",
            )
        if wanted - set(arms):
            raise InputError(
                f"{release.name} has no arm {', '.join(sorted(wanted - set(arms)))}: it has no copies",
                fix=f"its arms are {', '.join(arms)}",
            )
        plans |= {arm: arms[arm] for arm in wanted}
        self.image_pool = plan_image_pool(release, self.originals, list(plans.values()), recipe, images)
        self.rows = {name: self.image_pool.rows(plan) for name, plan in plans.items() if len(plan)}
        self.run_inputs = [[release.id, *self._run_inputs(trial)] for trial in trials]

    @property
    def _numeric(self) -> bool:
        return self.originals.edges is not None

    def __call__(self, settings: dict[str, Any]) -> Scores:
        trial = Trial(**settings)
        network = self._network(trial)
        size_px = network.normalisation.size_px
        images = store_images(self.image_pool.parts, size_px, self.checks / IMAGES, self.workers)
        train, val = (self._examples(self.rows[name]) for name in (trial.arm, VAL))
        runs = self.folder / RUNS
        fitted = finetune(
            network, images, train, self._settings(trial, network), val=val, folder=runs, say=self.say
        )
        shutil.rmtree(runs)  # only its scores are kept
        scored = {name: self.rows[name] for name in (VAL, TEST) if name in self.rows}
        return {
            name: self._score(name, rows, fitted.predict(images, rows.pool_index))
            for name, rows in scored.items()
        }

    def _run_inputs(self, trial: Trial) -> list[Any]:
        """Validate the settings of a run; return what else determines its scores, besides the release."""
        network = self._network(trial)
        self._settings(trial, network)
        versions = {name: version(name) for name in _VERSIONS} | pixel_versions()
        return [network.code, state_hash(network.module), network.device.type, versions]

    def _network(self, trial: Trial) -> Network:
        return build_network(
            trial.backbone,
            1 if self._numeric else len(self.originals.labels),
            trial.weights,
            size_px=trial.size_px,
            device=self.device,
            seed=trial.seed,
            say=self.say,
        )

    def _settings(self, trial: Trial, network: Network) -> Settings:
        given = trial.model_dump(exclude={"backbone", "weights", "size_px", "arm"})
        loss = trial.loss or ("squared_error" if self._numeric else "cross_entropy")
        if find_loss(loss).has_classes == self._numeric:
            raise InputError(f"the loss {loss} does not fit the target {self.target}", fix="leave out `loss`")
        train = self.rows[trial.arm]
        if trial.class_weights:
            counts = np.bincount(train.stratum, minlength=network.n_outputs)
            weights = len(train) / (np.count_nonzero(counts) * np.maximum(counts, 1))
            given["class_weights"] = tuple(weights.tolist())
        return choose_settings(network, len(train), **{**given, "loss": loss})

    def _examples(self, rows: Rows) -> Examples:
        return Examples(rows.pool_index, rows.target if self._numeric else rows.stratum, rows.weight)

    def _score(self, split: str, rows: Rows, outputs: np.ndarray) -> dict[str, float]:
        if self._numeric:
            values = outputs[:, 0]
            scores = {name: getattr(metrics, name)(rows.target, values) for name in _MEASURES}
            macro_mae = metrics.macro_mae(rows.target, values, self.originals.edges or [])
            return {**scores, "macro_mae": macro_mae}
        labels = np.array(self.originals.labels)
        true, predicted = labels[rows.stratum], labels[outputs.argmax(1)]
        scores = {name: getattr(metrics, name)(true, predicted) for name in LABEL_MEASURES}
        index = self.originals.find(rows.image_id)
        for column in SUBGROUPS:
            subgroups = score_subgroups(self.originals.column(column)[index], true, predicted)
            if len(subgroups.groups) > 1 and subgroups.gap is not None:
                scores[f"{column}_gap"] = subgroups.gap
            if too_few := small_groups_text(subgroups.too_few):
                self.say(f"{split}, by {column.replace('_', ' ')}: {too_few}")
        return scores
