"""check.marks, check.shortcuts and their rules, on generated images with planted marks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from affectdata.check import shortcut_gate
from affectdata.check.blocks import CheckDocument, CheckFigures, Shortcuts
from affectdata.check.check import CheckOutput
from affectdata.check.marks import N_CELLS, SCALARS, PatternSums, measure_marks, pattern_ratios
from affectdata.check.prepare import CheckInput
from affectdata.check.shortcuts import LOOKS, auc, describe_pattern, find_shortcuts, look_rises
from affectdata.images.decode import decode, encode
from affectdata.recipe.bounds import Check
from affectdata.train.rows import Rows


def _photo(rng: np.random.Generator, height: int = 240, width: int = 320) -> np.ndarray:
    """Return noise with the spectrum of a photograph."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) + 1 / height
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) / frequency).real
    grey = np.clip(128 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _with_text(rgb: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    marked = np.ascontiguousarray(rgb)
    cv2.putText(marked, "ABC", place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2)
    return marked


def _framed(rgb: np.ndarray) -> np.ndarray:
    framed = rgb.copy()
    framed[:4] = framed[-4:] = framed[:, :4] = framed[:, -4:] = 0
    return framed


def _ratios(change: Callable[[np.ndarray], np.ndarray], share: float = 1.0, n: int = 40) -> np.ndarray:
    rng = np.random.default_rng(0)
    group, rest = PatternSums(), PatternSums()
    for number in range(n):
        image = _photo(rng)
        group.add(measure_marks(change(image) if number < share * n else image).patterns)
        rest.add(measure_marks(_photo(rng)).patterns)
    return pattern_ratios(group, rest)


@pytest.mark.slow
def test_patterns_of_clean_images_cancel_out() -> None:
    ratios = _ratios(lambda image: image)
    assert ratios.shape == (2, N_CELLS, N_CELLS)
    assert ratios.max() < 5 and 0.7 < ratios.mean() < 1.4


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_text_is_found_where_it_is(share: float) -> None:
    found = describe_pattern(_ratios(lambda image: _with_text(image, (150, 130)), share, 60))
    assert found.ratio > shortcut_gate.MAX_RATIO
    scale = 224 / 240
    assert abs(found.row - 125 * scale / 14) <= 1  # the letters stand on y = 130
    assert abs(found.column - (165 - 40) * scale / 14) <= 2


@pytest.mark.slow
def test_a_mark_outside_the_central_square_is_found_in_the_corners() -> None:
    """Networks do not see it; exports and other networks do."""
    ratios = _ratios(lambda image: _with_text(image, (2, 235)))
    assert ratios[1].max() > shortcut_gate.MAX_RATIO > ratios[0].max()
    assert describe_pattern(ratios).place == "corners"


def test_a_mark_on_every_image_tells_nothing() -> None:
    rng = np.random.default_rng(1)
    group, every = PatternSums(), PatternSums()
    for number in range(60):
        patterns = measure_marks(_with_text(_photo(rng), (150, 130))).patterns
        every.add(patterns)
        if number % 2:
            group.add(patterns)
    assert pattern_ratios(group, every.without(group)).max() < 5


@pytest.mark.slow
def test_scalars_see_jpeg_blur_frames_casts_and_lack_of_colour() -> None:
    rng = np.random.default_rng(2)
    photos = [_photo(rng, 300, 400) for _ in range(20)]
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "block_edges": lambda rgb: decode(encode(rgb, "jpeg", 30)).rgb,
        "fine_detail": lambda rgb: cv2.GaussianBlur(rgb, (0, 0), 2),
        "flat_sides": lambda rgb: np.pad(rgb, ((9, 9), (0, 0), (0, 0))),
        "dark_cast": lambda rgb: np.clip(rgb.astype(int) + np.array([30, 0, -20]), 0, 255).astype(np.uint8),
        "light_cast": lambda rgb: np.clip(rgb * np.array([1.2, 1, 0.8]), 0, 255).astype(np.uint8),
        "colour": lambda rgb: np.clip(rgb * np.array([1, 0.9, 1]), 0, 255).astype(np.uint8),
    }
    for column, scalar in enumerate(SCALARS):
        changed = [measure_marks(changes[scalar](photo)).scalars[column] for photo in photos]
        plain = [measure_marks(photo).scalars[column] for photo in photos]
        area = auc(np.array(changed + plain), np.arange(40) < 20)
        assert abs(area - 0.5) > shortcut_gate.MAX_AUC - 0.5, scalar


def test_auc_of_known_values() -> None:
    part = np.array([True, True, False, False])
    assert auc(np.array([3.0, 4.0, 1.0, 2.0]), part) == 1
    assert auc(np.array([1.0, 1.0, 1.0, 1.0]), part) == 0.5
    assert auc(np.array([1.0, 4.0, 2.0, 3.0]), part) == 0.5


@pytest.mark.parametrize("look", LOOKS)
def test_looks_keep_the_shape_and_change_the_image(look: str) -> None:
    square = _photo(np.random.default_rng(3), 65, 65)
    changed = LOOKS[look](square)
    assert changed.shape == square.shape and changed.dtype == np.uint8
    assert (changed != square).any()


def test_a_look_that_stands_for_a_subtype_raises_its_score(planted: Callable[..., Rows]) -> None:
    """The first look moves the features along the axis that the subtype "up" has on its images only."""
    rows = planted(n=240, seed=1)
    is_up = rows.subtype == "up"
    features = rows.features.copy()
    features[:, 2] = np.where(is_up, 3.0, 0.0) + 0.1 * features[:, 2]
    rows = replace(rows, features=features)
    train, test = rows.take(np.arange(200)), rows.take(np.arange(200, 240))
    moved = [test.features.copy() for _ in range(len(LOOKS) + 1)]
    moved[1][:, 2] += 3.0
    rises = look_rises(train, test.subtype, np.concatenate(moved))
    first, *others = rises.values()
    assert first["up"] > shortcut_gate.MAX_RISE and first["down"] < 5
    assert all(abs(rise) < 1e-9 for by_subtype in others for rise in by_subtype.values())


def _results(document: CheckFigures) -> dict[str, dict[str, str]]:
    return {
        rule: {name: str(result.outcome) for name, result in evaluate(document, Check())}
        for rule, evaluate in shortcut_gate.RULES.items()
    }


@pytest.fixture
def document(checked: CheckOutput) -> CheckDocument:
    return checked.document


def test_rules_of_planted_figures(document: CheckDocument) -> None:
    found = document.shortcuts
    assert found is not None and found.missing is None
    worst = max(found.patterns.values(), key=lambda pattern: pattern.ratio)
    marked = found.model_copy(
        update={
            "patterns": {**found.patterns, "subtype P": worst.model_copy(update={"ratio": 40.0})},
            "scalars": {name: {"subtype P": 0.95} for name in found.scalars},
            "looks": {"frame": {"P": 30.0}},
            "looks_missing": None,
        }
    )
    few = document.model_copy(update={"shortcuts": marked})
    assert _results(few)["shortcut.pattern"] == {"": "undecided"}  # fewer than 200 images
    bins = document.bins.model_copy(
        update={"n": document.bins.n.model_copy(update={"crossfit": [100, 100, 100]})}
    )
    many = few.model_copy(update={"bins": bins})
    assert _results(many) == {
        "shortcut.pattern": {"": "fail"},
        "shortcut.scalars": dict.fromkeys(SCALARS, "fail"),
        "shortcut.looks": {"": "fail"},
    }
    assert _results(few)["shortcut.scalars"] == dict.fromkeys(SCALARS, "undecided")
    for areas, outcome in (({"subtype P": 0.13}, "notice"), ({"subtype P": 0.05, "source a": 0.4}, "notice")):
        listed = marked.model_copy(update={"scalars": {"block_edges": areas}})
        of_scalars = _results(many.model_copy(update={"shortcuts": listed}))["shortcut.scalars"]
        assert of_scalars == {"block_edges": outcome}
    texts = [result.text for rule in shortcut_gate.RULES.values() for _, result in rule(many, Check())]
    assert all("P" in text for text in texts)


@pytest.mark.parametrize(
    ("area", "rise", "outcome"), [(0.5, 14.0, "pass"), (0.97, 14.0, "undecided"), (0.97, 4.0, "pass")]
)
def test_a_look_is_held_to_less_where_a_scalar_tells_the_subtype(
    document: CheckDocument, area: float, rise: float, outcome: str
) -> None:
    found = Shortcuts(
        missing=None,
        scalars={"block_edges": {"subtype P": area}},
        looks={"jpeg 30": {"P": rise}, "blur": {"P": 6.0}},
    )
    ((_, result),) = shortcut_gate.looks(document.model_copy(update={"shortcuts": found}), Check())
    assert result.outcome == outcome


def test_rules_that_do_not_apply_say_so(document: CheckDocument) -> None:
    none = document.model_copy(update={"shortcuts": Shortcuts(missing="there are no two subtypes")})
    for evaluate in shortcut_gate.RULES.values():
        ((_, result),) = evaluate(none, Check())
        assert (result.outcome, result.text) == ("pass", "not applicable: there are no two subtypes")
    former = document.model_copy(update={"shortcuts": None})
    assert all(not list(evaluate(former, Check())) for evaluate in shortcut_gate.RULES.values())


@pytest.mark.slow
def test_without_subtypes_nothing_is_measured(prepared: CheckInput) -> None:
    def blank(rows: Rows) -> Rows:
        return replace(rows, subtype=np.full(len(rows), ""))

    splits = [replace(split, test=blank(split.test)) for split in prepared.crossfit]
    found = find_shortcuts(replace(prepared, crossfit=splits))
    assert found.missing is not None and "subtypes" in found.missing and not found.patterns


def test_the_document_reads_back(document: CheckDocument) -> None:
    content: dict[str, Any] = json.loads(json.dumps(document.to_dict()))
    assert CheckDocument.model_validate(content).shortcuts == document.shortcuts
