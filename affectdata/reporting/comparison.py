"""The page that compares two releases, or two checks: counts, bins × subtypes, and scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from affectdata.check import metrics
from affectdata.check.blocks import CheckDocument, read_document
from affectdata.check.scores import bootstrap_interval
from affectdata.check.words import class_scores, interval_text, measure_name, scored_on, scores
from affectdata.release.release import Release
from affectdata.reporting import charts
from affectdata.reporting.balance import bin_label
from affectdata.reporting.blocks import Block, Figure, Section, Table, Text
from affectdata.reporting.page import Page, render
from affectdata.reporting.subject import CHECK_FILE, find_check, read_predictions

_MEASURES = ("r2", "ccc", "mae")
_RELEASE = "release"
_LEAST = 30  # common images


@dataclass(frozen=True, eq=False)
class Side:
    """One side: a check, and release.json if it is a release."""

    name: str
    info: dict[str, Any] | None
    check: CheckDocument | None
    predictions: pd.DataFrame | None


def side_of(release: Release, checks: Path) -> Side:
    """Return a release with its check, below the folder `checks`, as a side."""
    found = find_check(release, checks)
    return Side(release.name, release.info, found.document, found.predictions)


def read_side(path: Path) -> Side:
    """Return a check by its train-check.json as a side.

    Raises:
        InputError: it cannot be read.
    """
    check = read_document(path)
    return Side(
        f"{check.release.name} ({check.settings.mode})", None, check, read_predictions(path.parent, check)
    )


def is_check(path: Path) -> bool:
    """Return whether a path names the result of a check."""
    return path.name == CHECK_FILE


def make_comparison(first: Side, second: Side) -> tuple[Page, str]:
    """Return the page that compares two sides, without images, and its name."""
    sections = comparison_sections(first, second)
    html = render(f"{first.name} → {second.name}", "Comparison", sections, {})
    stems = [re.sub(r"[^\w.-]+", "-", side.name).strip("-") for side in (first, second)]
    return Page(html, sections, False), "-to-".join(stems)


def comparison_sections(first: Side, second: Side) -> list[Section]:
    """Return the sections: what changed from the first to the second."""
    names = _names(first, second)
    blocks: list[Block] = []
    if first.info and second.info:
        blocks += [_counts(first.info, second.info, names), *_bins(first.info, second.info, names)]
    blocks += list(_scores(first, second, names))
    return [Section("comparison", "What changed", blocks)]


def _names(first: Side, second: Side) -> tuple[str, str]:
    same = first.name == second.name
    return (f"{first.name} (first)", f"{second.name} (second)") if same else (first.name, second.name)


def _counts(first: dict[str, Any], second: dict[str, Any], names: tuple[str, str]) -> Table:
    rows: list[list[Any]] = [
        [f"{split} rows", first["rows"].get(split, 0), second["rows"].get(split, 0)]
        for split in dict.fromkeys([*first["rows"], *second["rows"]])
    ]
    for name in ("originals", "copies", "target"):
        rows.append([name, first[name], second[name]])
    for name in ("imbalance_ratio", "entropy"):
        values = [info["balance"][name]["after"] for info in (first, second)]
        rows.append([f"{name.replace('_', ' ')} after", *values])
    sources = [", ".join(each["source"] for each in info["manifests"]) for info in (first, second)]
    rows.append(["sources", *sources])
    return Table("Counts", ("", *names), rows)


def _bins(first: dict[str, Any], second: dict[str, Any], names: tuple[str, str]) -> Iterator[Block]:
    after = [{each["bin"]: each["n_after"] for each in info["balance"]["bins"]} for info in (first, second)]
    rows = [
        [name, *(side.get(name) for side in after), after[1].get(name, 0) - after[0].get(name, 0)]
        for name in dict.fromkeys([*after[0], *after[1]])
    ]
    yield Table("Train rows by bin", ("bin", *names, "change"), rows)
    if not {*after[0]} & {*after[1]}:
        return  # no cell is in both
    frames = [
        pd.DataFrame(info["balance"]["cells"]).set_index(["bin", "stratum"])["n_after"]
        for info in (first, second)
    ]
    change = frames[1].sub(frames[0], fill_value=0).astype(int).rename("change").reset_index()
    if change["change"].eq(0).all() or first["target"] != second["target"]:
        return
    for name in ("bin", "stratum"):
        change[name] = change[name].map(bin_label)
    change["label"] = change["change"].map("{:+d}".format)
    orders = list(dict.fromkeys(change["stratum"])), list(dict.fromkeys(change["bin"]))[::-1]
    chart = charts.heat_map(change, "stratum", "bin", "change", "label", orders, is_change=True)
    text = f"Rows of train, {names[1]} minus {names[0]}."
    yield Figure("change", "Change in bins × subtypes", text, chart, change.drop(columns="label"))


def _scores(first: Side, second: Side, names: tuple[str, str]) -> Iterator[Block]:
    if first.check is None or second.check is None:
        without = [name for name, side in zip(names, (first, second), strict=True) if side.check is None]
        yield Text(f"There is no check of {' and of '.join(without)}, so no scores are compared.")
        return
    checks = first.check, second.check
    rows = list(_rows(checks))
    lines = []
    for check, name in zip(checks, names, strict=True):
        failed = [rule.rule for rule in check.verdict.gate if rule.outcome == "fail"]
        lines.append(
            f"{name}: {check.verdict.outcome}, {check.settings.backbone}, {check.settings.mode}"
            f"{'; failed: ' + ', '.join(failed) if failed else ''}."
        )
    yield Text("\n".join(lines), is_list=True)
    if rows:
        text = "Each over its own images, with 95 % intervals: they show no difference by themselves."
        yield Table("Scores side by side", ("measure", *names), rows, text)
    yield _paired(first, second, names)


def _rows(checks: tuple[CheckDocument, CheckDocument]) -> Iterator[tuple[str, ...]]:
    heads = [scores(check, _RELEASE) for check in checks]
    if heads[0] and heads[1]:
        for name in _MEASURES:
            yield measure_name(name), interval_text(heads[0][name]), interval_text(heads[1][name])
    elif not any(check.numeric for check in checks):
        found = [class_scores(check, _RELEASE, check.release.target).interval for check in checks]
        for name in found[0]:
            yield measure_name(name), *(interval_text(each[name]) for each in found)


def _scored(side: Side) -> pd.DataFrame | str:
    """Return the scored images with the predictions of the release's model, or why there are none."""
    check, frame = side.check, side.predictions
    if check is None or frame is None:
        return "a check has no predictions file"
    if not check.numeric:
        return "only checks with a numeric target have them"
    column = f"{scored_on(check)}.{_RELEASE}.regressor"
    if column not in frame:
        return "a check has no predictions of the release's model"
    known = frame[frame[column].notna()]
    names = {"group_id": "group", check.release.target: "true", column: "predicted"}
    return known[["image_id", *names]].rename(columns=names)


def _common(first: Side, second: Side) -> pd.DataFrame | str:
    """Return the images that both sides scored, or why they cannot be compared."""
    a, b = _scored(first), _scored(second)
    if isinstance(a, str) or isinstance(b, str):
        return a if isinstance(a, str) else str(b)
    if first.check and second.check and first.check.release.target != second.check.release.target:
        return "the targets differ"
    both = a.merge(b, on="image_id", suffixes=("_a", "_b"))
    if len(both) < _LEAST:
        return f"images scored in both: {len(both)}, at least {_LEAST} are needed"
    if not np.allclose(both["true_a"], both["true_b"]):
        return "the ratings of the same images differ"
    return both


def _paired(first: Side, second: Side, names: tuple[str, str]) -> Block:
    """Return the paired differences on the common images, or why there are none."""
    both = _common(first, second)
    if isinstance(both, str):
        return Text(f"No paired intervals: {both}.")
    true = both["true_a"].to_numpy()
    a, b = both["predicted_a"].to_numpy(), both["predicted_b"].to_numpy()
    group = both["group_a"].astype(str).to_numpy()
    bins = np.clip(true // 10, 0, 9).astype(int)
    rows = []
    for name in _MEASURES:
        compute: Callable[..., float] = metrics.MEASURES[name][0]
        found = bootstrap_interval(
            lambda index, compute=compute: compute(true[index], b[index]) - compute(true[index], a[index]),  # type: ignore[misc]
            group,
            bins,
            0,
        )
        rows.append((measure_name(name), interval_text(found, 3, "+")))
    text = (
        f"{names[1]} minus {names[0]} on the same {len(both)} images; 95 % bootstrap intervals over groups "
        "of images, which leave out the variation between trainings."
    )
    return Table("Paired differences", ("measure", "difference"), rows, text)
