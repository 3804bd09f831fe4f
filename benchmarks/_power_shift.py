"""shortcut.shift and transforms.* for check_power.py: clean subsets, then a look on every copy.

A look of growing strength is planted on the copies, and on the probe images of the pipelines;
transforms.effect is tried on the same look alone. All have the size that the network takes. The SVR has fixed
settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from _power import CLEAN, GAMMA, Case, KeptFeatures, Record, Run, Tasks, outcome_share, range_text, share_text
from _power import C as PENALTY
from _power_rules import outcomes, worst_by_rule
from sklearn.svm import SVR

from affectdata.check import blocks, probes, shift
from affectdata.check.arms import ORIGINALS, RELEASE
from affectdata.check.evaluate import REGRESSOR, ArmResult, SplitEvaluation
from affectdata.check.image_pool import plan_image_pool, replan
from affectdata.check.prepare import N_ASSIGNMENTS, Split
from affectdata.check.probes import DRAW, EFFECT, plan_probes, with_effects
from affectdata.check.scores import Scoring
from affectdata.hashing import file_hash
from affectdata.images.decode import decode, encode
from affectdata.recipe.recipe import FEATURES
from affectdata.render import drift
from affectdata.render.drift import feature_changes, measure_look
from affectdata.splits.folds import deal_folds
from affectdata.train.features import FeatureCache, compute_features
from affectdata.train.heads import N_FOLDS
from affectdata.train.images import LoadImages, Readable
from affectdata.train.rows import Rows
from affectdata.train.svr import evaluate, squared_distances

Change = Callable[[np.ndarray], np.ndarray]
MEASURES = (probes, shift, drift)
RULES = ("shortcut.shift", "transforms.effect", "transforms.affect")
_N_PROBES = 240  # images passed through each pipeline
_BATCH = 32


def _blur(sd: float) -> Change:
    return lambda rgb: np.asarray(cv2.GaussianBlur(rgb, (0, 0), sd))


def _jpeg(quality: int) -> Change:
    return lambda rgb: decode(encode(rgb, "jpeg", quality)).rgb


def _brighter(levels: int) -> Change:
    return lambda rgb: np.asarray(np.clip(rgb.astype(int) + levels, 0, 255).astype(np.uint8))


def _less_colour(share: float) -> Change:
    def change(rgb: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None]
        return np.asarray((share * grey + (1 - share) * rgb).astype(np.uint8))

    return change


LOOKS: dict[str, Change] = {
    **{f"blur of SD {sd}": _blur(sd) for sd in (1, 2, 4)},
    **{f"JPEG {quality}": _jpeg(quality) for quality in (30, 10)},
    **{f"brighter by {levels}": _brighter(levels) for levels in (10, 20, 40)},
    **{f"{share:.0%} of the colour removed": _less_colour(share) for share in (0.5, 1.0)},
}


@dataclass(frozen=True, eq=False)
class KeptShifts:
    """Originals, copies and probe images of a data set as squares of the network's size, by place.

    `rows` are those of the originals (""), of the copies (RELEASE), and of the probes by name.
    """

    kept: KeptFeatures
    squares: np.ndarray
    keys: list[str]
    rows: dict[str, Rows]
    pipeline: np.ndarray  # of each copy

    def look(self, name: str) -> Look:
        """Return the features with a look on copies and on what pipelines return, and its effect alone."""
        rows, changed = dict(self.rows), np.arange(len(self.keys))
        if name == CLEAN:
            return Look(rows, self._features([""] * len(self.keys), changed), self._affect(CLEAN))
        drawn = [RELEASE, *(probe for probe in rows if probe.startswith(DRAW))]
        moved = np.unique(np.concatenate([rows[each].pool_index for each in drawn]))
        looks = np.array([""] * len(self.keys), object)
        looks[moved] = name
        effect = next(probe for probe in rows if probe == probes.FLIP)
        alone = self.rows[""].take(np.isin(self.rows[""].image_id, rows[effect].image_id))
        places = np.concatenate([changed, alone.pool_index])
        new = len(changed) + np.arange(len(alone))
        rows = {probe: own for probe, own in rows.items() if not probe.startswith(EFFECT) or probe == effect}
        rows[EFFECT + name] = replace(alone, pool_index=new)
        features = self._features([*looks, *[name] * len(alone)], places)
        return Look(rows, features, self._affect(name))

    def _features(self, looks: list[str], places: np.ndarray) -> np.ndarray:
        """Return the features of squares with looks; these are kept."""
        keys = [
            file_hash(f"shift {look} {self.keys[place]}".encode())
            for look, place in zip(looks, places, strict=True)
        ]
        table = pa.table({"look": pa.array(looks, pa.string()), "place": places, "key": keys})

        def read(batch: pa.Table) -> list[bytes]:
            pairs = zip(batch["look"].to_pylist(), batch["place"].to_pylist(), strict=True)
            return [encode(self._changed(look, place), "png", 0) for look, place in pairs]

        cache = FeatureCache(self.kept.folder / ".features", self.kept.backbone)
        wanted = Readable(np.arange(len(table)), table, read)
        return compute_features(wanted, self.kept.backbone, cache, 1, lambda *_: None)[0]

    def _changed(self, look: str, place: int) -> np.ndarray:
        return LOOKS[look](self.squares[place]) if look in LOOKS else self.squares[place]

    def _affect(self, look: str) -> np.ndarray:
        """Return the absolute change of luminance and saturation of each copy: (copies, 2)."""
        copies, originals = self.rows[RELEASE], self.rows[""]
        parent = dict(zip(originals.image_id.tolist(), originals.pool_index.tolist(), strict=True))
        before = [self._look_of("", parent[name]) for name in copies.image_id.tolist()]
        after = [self._look_of(look, place) for place in copies.pool_index.tolist()]
        change = np.abs(feature_changes(np.array(after), np.array(before)))
        return change[:, [FEATURES.index("luminance"), FEATURES.index("saturation")]]

    def _look_of(self, look: str, place: int) -> tuple[float, ...]:
        return measure_look(self._changed(look, place))[: len(FEATURES)]


@dataclass(frozen=True, eq=False)
class Look:
    """Rows by name, the features of their places, and the changes of the copies."""

    rows: dict[str, Rows]
    features: np.ndarray
    affect: np.ndarray

    @cached_property
    def kernel(self) -> np.ndarray:
        """The kernel of all places, standardised by the originals."""
        plain = self.features[self.rows[""].pool_index]
        scaled = (self.features - plain.mean(0)) / np.maximum(plain.std(0), 1e-9)
        return np.asarray(np.exp(-GAMMA / scaled.shape[1] * squared_distances(scaled, scaled)))


def keep_shifts(kept: KeptFeatures) -> KeptShifts:
    """Render the copies of a release and the probe images of a check."""
    originals, recipe = kept.originals, with_effects(kept.recipe)
    every = np.ones(len(originals.table), bool)
    plan = replan(originals, every, kept.recipe)
    plans = {"": originals.plain(every), RELEASE: plan.filter(pc.greater(plan["copy"], 0))}
    plans |= {name: each.slice(0, _N_PROBES) for name, each in _shuffled_probes(kept).items()}
    pool = plan_image_pool(kept.release, originals, list(plans.values()), recipe, kept.images)
    size = kept.backbone.normalisation.size_px
    squares, keys = np.empty((len(pool), size, size, 3), np.uint8), np.empty(len(pool), object)
    for part in pool.parts:
        load = LoadImages(part.read, size)
        for start in range(0, len(part.at), _BATCH):
            squares[part.at[start : start + _BATCH]] = load(part.table.slice(start, _BATCH))
        keys[part.at] = part.table["key"].to_pylist()
    rows = {name: pool.rows(each) for name, each in plans.items()}
    return KeptShifts(kept, squares, keys.tolist(), rows, np.array(plans[RELEASE]["pipeline"].to_pylist()))


def _shuffled_probes(kept: KeptFeatures) -> dict[str, pa.Table]:
    planned = plan_probes(kept.originals, kept.release, kept.recipe)
    order = {name: np.random.default_rng(12).permutation(len(each)) for name, each in planned.items()}
    return {name: each.take(order[name]) for name, each in planned.items()}


def measure_shift(kept: KeptShifts, look: Look, name: str, seed: int) -> Record:
    """Return the figures of four fifths of the images, trained with the copies of these."""
    rng, rows = np.random.default_rng([13, seed]), look.rows
    own = rows[""].take(np.sort(rng.permutation(len(rows[""]))[: round(0.8 * len(rows[""]))]))
    splits, evaluations = [], []
    for assignment in range(N_ASSIGNMENTS):
        fold = deal_folds(own.group, [own.stratum], N_ASSIGNMENTS * seed + assignment, N_FOLDS)
        for number in range(N_FOLDS):
            train, test = own.take(fold != number), own.take(fold == number)
            copies = rows[RELEASE].take(np.isin(rows[RELEASE].image_id, train.image_id))
            probed = {
                probe: each.take(np.isin(each.image_id, test.image_id))
                for probe, each in rows.items()
                if probe.startswith((DRAW, EFFECT))
            }
            arms = {RELEASE: Rows.concat([train, copies]), ORIGINALS: train}
            splits.append(Split(arms, test, {probe: each for probe, each in probed.items() if len(each)}))
            evaluations.append(_evaluate(look.kernel, splits[-1]))
    edges = kept.kept.originals.edges or []
    scoring = Scoring(splits, evaluations, N_FOLDS, edges, np.zeros(len(edges) - 1, bool))
    mine = np.isin(rows[RELEASE].image_id, own.image_id)
    changes = {
        pipeline: dict(zip(("luminance", "saturation"), _means(look.affect[each & mine]), strict=True))
        for pipeline in np.unique(kept.pipeline)
        if (each := kept.pipeline == pipeline)[mine].any()
    }
    return {
        "shift": {key: each.to_dict() for key, each in shift.describe_shift(scoring).items()},
        "effects": {key: each.to_dict() for key, each in shift.describe_effects(scoring).items()},
        "affect_of_look": shift.affect_of_look({"by_pipeline": changes}),
    }


def _means(changes: np.ndarray) -> list[dict[str, float]]:
    return [{"mean_abs": mean} for mean in changes.mean(0).tolist()]


def _evaluate(kernel: np.ndarray, split: Split) -> SplitEvaluation:
    results = {}
    for name, train in split.arms.items():
        model = SVR(kernel="precomputed", C=PENALTY, epsilon=3.0, tol=1e-2)
        model.fit(kernel[np.ix_(train.pool_index, train.pool_index)], train.target)

        def predict(rows: Rows, model: SVR = model, train: Rows = train) -> np.ndarray:
            return evaluate(model, kernel[np.ix_(rows.pool_index, train.pool_index)])

        found = {probe: predict(rows) for probe, rows in split.probes.items()}
        results[name] = ArmResult(len(train), {REGRESSOR: predict(split.test)}, found)
    return SplitEvaluation(results, np.empty(0), None)


def tables(kept: KeptFeatures, every: list[KeptFeatures], options: Any, run: Run) -> Iterator[str]:
    """Measure the rules: clean subsets, then each look."""
    shifts: list[KeptShifts] = []
    looks: dict[str, Look] = {}

    def one(name: str, seed: int) -> Iterator[Case]:
        if not shifts:
            shifts.append(keep_shifts(kept))
        if name not in looks:
            looks.clear()  # a kernel is large
            looks[name] = shifts[0].look(name)
        yield name, measure_shift(shifts[0], looks[name], name, seed)

    numbers = {CLEAN: options.seeds, **dict.fromkeys(LOOKS, options.faults)}
    tasks: Tasks = {}
    for name, n in numbers.items():
        tasks |= {f"{name} {seed}": partial(one, name, seed) for seed in range(n)}
    runs = run(tasks)
    yield f"\n{kept.name}, {len(kept.plain)} images, {kept.backbone.name}, SVR with C 100 and gamma .5:\n"
    yield (
        "| | runs | largest shift | undecided | `shortcut.shift` | largest effect | undecided | "
        "`transforms.effect` | pleasure | `transforms.affect` |\n|" + "---|" * 10
    )
    for name in numbers:
        if runs[name]:
            yield f"| {name} | {len(runs[name])} | " + " | ".join(_cells(runs[name])) + " |"


def _cells(runs: list[Record]) -> Iterator[str]:
    found = [worst_by_rule(_outcomes(each), RULES) for each in runs]
    for key, rule in zip(("shift", "effects"), RULES, strict=False):
        yield range_text([_largest(each, key) for each in runs])
        yield share_text(outcome_share(found, rule, "undecided"))
        yield share_text(outcome_share(found, rule))
    yield range_text([max(each["affect_of_look"].values()) for each in runs])
    yield share_text(outcome_share(found, RULES[2]))


def _largest(figures: Record, key: str) -> float:
    if key == "effects":
        return max(each["of_flip"]["mean"] for each in figures[key].values())
    means = [each[side]["mean"] for each in figures[key].values() for side in ("all", "low", "high")]
    return max((mean for mean in means if mean is not None), key=abs)


def _outcomes(figures: Record) -> dict[str, str]:
    shifts = {name: blocks.Shift.model_validate(each) for name, each in figures["shift"].items()}
    effects = {name: blocks.Effect.model_validate(each) for name, each in figures["effects"].items()}
    return outcomes(RULES, shift=shifts, effects=effects, affect_of_look=figures["affect_of_look"])
