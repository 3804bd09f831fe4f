"""The runs of a study on a release: networks trained on an arm of its own train split.

Each is scored on the originals of val, by which a study names its best, and of test, by which it does not.
Numbers: r2, ccc, mae, macro_mae, sd_ratio. Words: accuracy, balanced_accuracy, macro_f1, and the gap in
accuracy between age groups, genders and ethnicities, where two of them have 30 images; smaller ones are named
when a run is scored.
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
from affectdata.release.lineage import require_sound
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
_VERSIONS = ("affectdata", "torch", "torchvision")  # that decide a score, beside those that decide pixels


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
        RecipeError: a setting is unknown or no such value; before anything is trained.
        InputError: the release has no val split or no such arm, or a loss is none for its target.
        MissingError: weights or the device are not there.
        ImagesNotFound: an arm other than the release's own wants the source images.
    """
    study = load_study(path)
    folder = checks / release.name / STUDIES / study.name
    trials = _Trials(release, study, checks, folder, device, workers, say)
    return run_study(study, trials, folder, progress or (lambda *_: None), trials.run_inputs), folder


class _Trials:
    """Runs one set of settings after the other; what is wrong with any of them is said when it is made."""

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
        require_sound(release)
        recipe = parse_recipe(release.recipe_document, str(release.path / "recipe.yaml"))
        self.target = recipe.target
        trials = [Trial(**settings) for settings in study.runs()]
        wanted = {trial.arm for trial in trials}
        images = release.images() if wanted != {RELEASE} else None
        all_of_them = recipe.check.model_copy(update={"max_pictures": len(release.rows)})
        self.originals = find_originals(release, recipe.model_copy(update={"check": all_of_them}))
        arms = released_arms(release, self.originals, recipe, with_images=images is not None)
        plans = {name: released_rows(release, self.originals, name) for name in (VAL, TEST)}
        if not len(plans[VAL]):
            raise InputError(
                f"{release.name} has no val split, by which a study names its best",
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
        shutil.rmtree(runs)  # its scores are what is kept
        scored = {name: self.rows[name] for name in (VAL, TEST) if name in self.rows}
        return {
            name: self._score(name, rows, fitted.predict(images, rows.pool_index))
            for name, rows in scored.items()
        }

    def _run_inputs(self, trial: Trial) -> list[Any]:
        """Check the settings of a run; return what decides its scores beside them and the release."""
        network = self._network(trial)
        self._settings(trial, network)
        timm = ["timm"] if trial.backbone.startswith("timm:") else []
        versions = {name: version(name) for name in (*_VERSIONS, *timm)} | pixel_versions()
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
            raise InputError(f"the loss {loss} is none for {self.target}", fix="leave it out")
        train = self.rows[trial.arm]
        if trial.class_weights:
            counts = np.bincount(train.stratum, minlength=network.n_outputs)
            each = len(train) / (np.count_nonzero(counts) * np.maximum(counts, 1))
            given["class_weights"] = tuple(each.tolist())
        return choose_settings(network, len(train), **{**given, "loss": loss})

    def _examples(self, rows: Rows) -> Examples:
        return Examples(rows.pool_index, rows.target if self._numeric else rows.stratum, rows.weight)

    def _score(self, split: str, rows: Rows, said: np.ndarray) -> dict[str, float]:
        if self._numeric:
            found = {name: getattr(metrics, name)(rows.target, said[:, 0]) for name in _MEASURES}
            return {
                **found,
                "macro_mae": metrics.macro_mae(rows.target, said[:, 0], self.originals.edges or []),
            }
        labels = np.array(self.originals.labels)
        true, predicted = labels[rows.stratum], labels[said.argmax(1)]
        found = {name: getattr(metrics, name)(true, predicted) for name in LABEL_MEASURES}
        image_id = self.originals.column("image_id")
        place = np.searchsorted(image_id, rows.image_id)  # the originals are sorted by it
        for column in SUBGROUPS:
            groups = score_subgroups(self.originals.column(column)[place], true, predicted)
            if len(groups["groups"]) > 1:
                found[f"{column}_gap"] = groups["gap"]
            if few := small_groups_text(groups["too_few"]):
                self.say(f"{split}, by {column.replace('_', ' ')}: {few}")
        return found
