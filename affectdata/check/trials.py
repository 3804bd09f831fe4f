"""The runs of a study on a release: networks, and heads on frozen features, trained on an arm of train.

Each is scored on the originals of train, of val, where runs are compared, and of test, which is only
reported (see `study_targets`), and by subtype, age group, gender and ethnicity, for groups of 30 images;
`<column>_gap` is the largest difference between groups of people. Smaller groups are printed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from affectdata.check import scores
from affectdata.check.arms import RELEASE
from affectdata.check.image_pool import fill_image_pool, find_originals, plan_image_pool
from affectdata.check.model_card import study_scores, write_card
from affectdata.check.prepare import CACHE, released_arms, released_rows
from affectdata.check.scores import SUBGROUPS, mean_interval, resample_groups, subgroup_values
from affectdata.check.study import FROZEN, Outcome, Study, Trial, load_study, run_study
from affectdata.check.study_results import PARTS, TEST, TRAIN, VAL, Run
from affectdata.check.study_targets import Scores, find_target
from affectdata.check.target_model import (
    describe_training,
    fit_target_heads,
    network_of_target,
    start_of,
)
from affectdata.check.tuned import RUNS, choose_settings
from affectdata.check.words import small_groups_text, without_nan
from affectdata.errors import InputError, MissingError
from affectdata.images.decode import pixel_versions
from affectdata.reading.names import natural_key
from affectdata.recipe.recipe import parse_recipe
from affectdata.registry import find_data
from affectdata.release.lineage import validate_release
from affectdata.release.release import Release
from affectdata.train.backbones import Backbone, choose_device, load_backbone
from affectdata.train.features import FeatureCache
from affectdata.train.finetune import FittedNetwork, finetune
from affectdata.train.heads import quiet_threads
from affectdata.train.images import IMAGES, Progress, store_images
from affectdata.train.kept import KeptModel
from affectdata.train.losses import POLARITY_OF_CLASSES
from affectdata.train.model_file import check_name, keep_model
from affectdata.train.networks import Network, build_network
from affectdata.train.rows import Rows
from affectdata.train.task import Examples, Settings
from affectdata.train.trunks import Note
from affectdata.train.weights import is_class, state_hash

STUDIES = "studies"  # folder below that of a release's checks
_N_RESAMPLES = 400  # for a standard deviation
# That determine a score, besides those that determine pixels.
_VERSIONS = ("affectdata", "scikit-learn", "torch", "torchvision", "timm")


def study_release(
    release: Release,
    path: Path,
    checks: Path,
    *,
    device: str | None = None,
    keep: Path | None = None,
    workers: int = 1,
    note: Note = lambda _: None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], Path]:
    """Run the study in the file `path` on a release; return its document (`study_results`) and folder.

    `keep` is a file for the model of the best combination, trained again with the first of its seeds.

    Raises:
        RecipeError: a setting is unknown or has an invalid value; raised before training.
        InputError: the release has no val split or lacks an arm, or a loss does not fit its target; a run has
            the head ridge and the best model is to be kept; all training rows have the same labels.
        MissingError: the device is missing, or the weights of every run.
        ImagesNotFound: an arm other than the release's own needs the source images.
    """
    study = load_study(path)
    if keep:
        check_name(keep)
        _check_heads(study, path)
    folder = checks / release.name / STUDIES / study.name
    trials = _Trials(release, study, checks, folder, device, workers, note)
    document = run_study(
        study,
        trials,
        folder,
        progress or (lambda *_: None),
        trials.run_inputs,
        trials.resample,
        {"baseline": without_nan(trials.baseline())},
    )
    if keep:
        best = {**document["combinations"][0]["settings"], "seed": study.seeds[0]}
        model = trials.fit_model(Trial(**best))
        keep_model(model, keep)
        write_card(model, keep, release.info, study_scores(document))
    return document, folder


def _check_heads(study: Study, path: Path) -> None:
    """Refuse a head that no model file has a form for, before any run.

    Raises:
        InputError: a run has it.
    """
    if any(settings.get("head") == "ridge" for settings in study.runs()):
        raise InputError(
            "a model with the head ridge cannot be kept, and a run of this study has it",
            where=str(path),
            fix="leave out `head: ridge`, or --keep-model",
        )


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
        note: Note,
    ) -> None:
        self.checks, self.folder, self.device, self.workers, self.note = checks, folder, device, workers, note
        self.release = release
        self.best = study.best
        validate_release(release)
        self.recipe = parse_recipe(release.recipe_document, str(release.path / "recipe.yaml"))
        trials = [Trial(**settings) for settings in study.runs()]
        wanted = {trial.arm for trial in trials}
        images = release.images() if wanted != {RELEASE} else None
        unlimited = self.recipe.check.model_copy(update={"max_pictures": len(release.rows)})
        self.originals = find_originals(release, self.recipe.model_copy(update={"check": unlimited}))
        self.target = find_target(self.originals, self.recipe.target, study.target or self.recipe.predicts)
        self.groups = subgroup_values(self.originals, self.recipe)
        arms = released_arms(release, self.originals, self.recipe, with_images=images is not None)
        plans = {name: released_rows(release, self.originals, name) for name in (VAL, TEST)}
        if not len(plans[VAL]):
            raise InputError(
                f"{release.name} has no val split, on which a study compares its runs",
                where=str(release.path),
                fix="balance by a recipe with `split: {val: 0.1, test: 0.2}`",
            )
        if wanted - set(arms):
            raise InputError(
                f"{release.name} has no arm {', '.join(sorted(wanted - set(arms)))}: it has no copies",
                fix=f"its arms are {', '.join(arms)}",
            )
        self.plans = plans | {arm: arms[arm] for arm in wanted}
        self.image_pool = plan_image_pool(
            release, self.originals, list(self.plans.values()), self.recipe, images
        )
        self.rows = {name: self.image_pool.rows(plan) for name, plan in self.plans.items() if len(plan)}
        self._missing: dict[tuple[str, str], MissingError] = {}
        self._loaded: dict[tuple[str, str], Backbone] = {}
        self._too_few: set[str] = set()
        self.run_inputs = [self._run_inputs(release.id, trial) for trial in trials]

    def __call__(self, settings: dict[str, Any]) -> Outcome:
        trial = Trial(**settings)
        train = self.rows[trial.arm]
        known = {TRAIN: train.take(np.flatnonzero(train.copy == 0)), VAL: self.rows[VAL]}
        if TEST in self.rows:
            known[TEST] = self.rows[TEST]
        fit = self._fit_head if trial.mode == FROZEN else self._fit_network
        predicted, curve = fit(trial, train, known)
        held_out = {part: known[part] for part in (VAL, TEST) if part in known}
        subgroups = [
            each for part, rows in held_out.items() for each in self._by_subgroup(part, rows, predicted[part])
        ]
        scored = {part: self.target.score(rows, predicted[part]) for part, rows in known.items()}
        for part in held_out:
            scored[part] |= _gaps(part, subgroups)
        return {
            "scores": scored,
            "curves": curve,
            "subgroups": subgroups,
            **{
                table: [
                    {"split": part, **each}
                    for part, rows in held_out.items()
                    for each in describe(self.target.true(rows), predicted[part])
                ]
                for table, describe in self.target.details.items()
            },
            "predictions": {part: predicted[part].tolist() for part in held_out},
        }

    def baseline(self) -> dict[str, Scores]:
        """Return the scores of a prediction that does not depend on the image, on every split."""
        train = self.rows[self._any_arm]
        train = train.take(np.flatnonzero(train.copy == 0))
        parts = {TRAIN: train, **{part: self.rows[part] for part in (VAL, TEST) if part in self.rows}}
        return {
            part: self.target.score(rows, self.target.baseline(train, len(rows)))
            for part, rows in parts.items()
        }

    @property
    def _any_arm(self) -> str:
        return next(name for name in self.rows if name not in PARTS)

    def resample(self, run: Run) -> np.ndarray | None:
        """Return the score that decides on resamples of val; None if the measure is not of these images."""
        predicted = run.get("predictions", {}).get(VAL)
        if predicted is None or self.best not in self.target.measures:
            return None
        rows, values, compute = self.rows[VAL], np.array(predicted), self.target.measures[self.best]
        true = self.target.true(rows)
        resamples = resample_groups(rows.group, rows.stratum, self.recipe.seed, _N_RESAMPLES)
        return np.array([compute(true[index], values[index]) for index in resamples])

    def _fit_network(
        self, trial: Trial, train: Rows, known: dict[str, Rows]
    ) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
        fitted, images = self._train_network(trial)
        outputs = {part: fitted.predict(images, rows.pool_index) for part, rows in known.items()}
        return {part: self.target.decode(each) for part, each in outputs.items()}, fitted.curve

    def _train_network(self, trial: Trial) -> tuple[FittedNetwork, np.ndarray]:
        """Return a trained network, and the images of the pool at its size."""
        network, train = self._network(trial), self.rows[trial.arm]
        size_px = network.normalisation.size_px
        images = store_images(self.image_pool.parts, size_px, self.checks / IMAGES, self.workers)
        runs = self.folder / RUNS
        fitted = finetune(
            network,
            images,
            self._examples(train),
            self._settings(trial, network),
            val=self._examples(self.rows[VAL]),
            folder=runs,
            note=self.note,
        )
        shutil.rmtree(runs)  # only its scores are kept
        return fitted, images

    def fit_model(self, trial: Trial) -> KeptModel:
        """Train once more with the settings of a run, and return the model.

        Raises:
            InputError: all training rows have the same labels, or the head cannot be saved.
        """
        target, n_train = self.target, len(self.rows[trial.arm])
        trained_on = describe_training(self.release, n_train)
        if trial.mode == FROZEN:
            backbone, train = self._backbone(trial), self._with_features(trial)(self.rows[trial.arm])
            return fit_target_heads(target, backbone, train, trial.head, trial.seed, trained_on)
        network = self._train_network(trial)[0].network
        start = start_of(network, state_hash(self._network(trial).module.body))
        return network_of_target(target, network, start, trained_on)

    def _fit_head(
        self, trial: Trial, train: Rows, known: dict[str, Rows]
    ) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
        with_features = self._with_features(trial)
        with quiet_threads():
            known_rows, true = with_features(train), self.target.true(train)
            predict = self.target.fit(known_rows, true, trial.head, trial.seed)
            return {part: predict(with_features(rows)) for part, rows in known.items()}, []

    def _with_features(self, trial: Trial) -> Callable[[Rows], Rows]:
        """Return a function that gives rows the features of a run's backbone."""
        backbone = self._backbone(trial)
        cache = FeatureCache(self.checks / CACHE, backbone)
        pool = fill_image_pool(self.image_pool, backbone, cache, self.workers, lambda *_: None)
        return lambda rows: replace(rows, features=pool.features[rows.pool_index], widths=pool.widths)

    def _run_inputs(self, release_id: str, trial: Trial) -> list[Any] | MissingError:
        """Validate the settings of a run; return what else determines its scores, or what is missing."""
        trunk = trial.backbone, trial.weights
        try:
            return self._missing.get(trunk) or [release_id, *self._describe(trial)]
        except MissingError as error:
            choose_device(self.device)  # without it, no run is possible
            self._missing[trunk] = error
            self.note(f"skipped: {trial.backbone}, {error.what}")
            return error

    def _describe(self, trial: Trial) -> list[Any]:
        versions = {name: version(name) for name in _VERSIONS} | pixel_versions()
        if trial.mode == FROZEN:
            if trial.head and not self.target.takes_head:
                raise InputError(f"the target {self.target.name} takes no `head`", fix="leave it out")
            return [FROZEN, self._backbone(trial).key, versions]
        network = self._network(trial)
        self._settings(trial, network)
        return [network.code, state_hash(network.module), network.device.type, versions]

    def _backbone(self, trial: Trial) -> Backbone:
        name = trial.backbone, trial.weights
        if name not in self._loaded:
            backbone = load_backbone(locate(trial.backbone), trial.weights, self.device, self.note)
            self._loaded = {name: backbone}  # one at a time: some are large
        return self._loaded[name]

    def _network(self, trial: Trial) -> Network:
        return build_network(
            locate(trial.backbone),
            len(self.target.outputs),
            trial.weights,
            size_px=trial.size_px,
            device=self.device,
            seed=trial.seed,
            note=self.note,
        )

    def _settings(self, trial: Trial, network: Network) -> Settings:
        given = trial.model_dump(exclude={"mode", "head", "backbone", "weights", "size_px", "arm"})
        loss = trial.loss or self.target.losses[0]
        if loss not in self.target.losses:
            raise InputError(
                f"the loss {loss} does not fit the target {self.target.name}",
                fix=f"leave out `loss`, or use one of {', '.join(self.target.losses)}",
            )
        train = self.rows[trial.arm]
        if loss == POLARITY_OF_CLASSES:
            given["class_signs"] = self.target.signs
        if trial.class_weights and not self.target.takes_class_weights:
            raise InputError(f"the target {self.target.name} takes no class_weights", fix="leave them out")
        if trial.class_weights:
            counts = np.bincount(train.stratum, minlength=network.n_outputs)
            weights = len(train) / (np.count_nonzero(counts) * np.maximum(counts, 1))
            given["class_weights"] = tuple(weights.tolist())
        return choose_settings(network, len(train), **{**given, "loss": loss})

    def _examples(self, rows: Rows) -> Examples:
        return Examples(rows.pool_index, self.target.encode(self.target.true(rows)), rows.weight)

    def _by_subgroup(self, part: str, rows: Rows, predicted: np.ndarray) -> Iterator[dict[str, Any]]:
        """Yield the mean error of each subgroup with its interval, without a figure if it is too small."""
        errors = np.asarray(self.target.errors(self.target.true(rows), predicted))
        index = self.originals.find(rows.image_id)
        for column, of_all in self.groups.items():
            values, too_few = of_all[index], {}
            for group in sorted({*values.tolist()} - {""}, key=natural_key):
                members = np.flatnonzero(values == group)
                common = {"split": part, "column": column, "group": group, "n": len(members)}
                if len(members) < scores.LEAST_SUBGROUP:
                    too_few[group] = len(members)
                    yield common
                    continue
                interval = mean_interval(errors[members], rows.take(members), self.recipe.seed)
                yield {**common, "measure": self.target.error, **interval.to_dict()}
            text = f"{part}, by {column.replace('_', ' ')}: {small_groups_text(too_few)}"
            if too_few and column in SUBGROUPS and text not in self._too_few:  # once, not for every run
                self._too_few.add(text)
                self.note(text)


def _gaps(part: str, subgroups: list[dict[str, Any]]) -> Scores:
    """Return the largest difference between the subgroups of each column of people."""
    found = {}
    for column in SUBGROUPS:
        means = [
            each["mean"]
            for each in subgroups
            if (each["split"], each["column"]) == (part, column) and "mean" in each
        ]
        if len(means) > 1:
            found[f"{column}_gap"] = max(means) - min(means)
    return found


def locate(backbone: str) -> str:
    """Return a backbone; the networks of the package's examples are found from any folder."""
    file, _, name = backbone.rpartition(":")
    packaged = find_data("examples").parent / file
    if is_class(backbone) and not Path(file).is_file() and packaged.is_file():
        return f"{packaged}:{name}"
    return backbone
