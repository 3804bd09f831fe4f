"""Fourth section: what train-check found, and whether balancing helped."""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt
import numpy as np
import pandas as pd

from affectdata.check.blocks import CheckDocument, ClassScores, Subgroup
from affectdata.check.words import (
    ADVICE_COLUMNS,
    ADVICE_NOTE,
    ADVICE_TITLE,
    advice_rows,
    measure_name,
    number_text,
    scored_on,
    scores,
    target_scores,
    target_table,
)
from affectdata.reporting import charts
from affectdata.reporting.balance import bin_label
from affectdata.reporting.blocks import Block, Figure, Section, Table, Text
from affectdata.reporting.subject import Subject

RELEASE, ORIGINALS, MEAN = "release", "originals", "mean"
_MEASURES = ("r2", "ccc", "pearson_r", "rmse", "mae", "macro_mae", "tail_mae", "sd_ratio", "r_within")
_LABEL_MEASURES = ("accuracy", "balanced_accuracy", "macro_f1")
_FULL = alt.Scale(domain=[0, 100])
_N_CALIBRATION = 10


def check(subject: Subject) -> Section:
    """Return the section; without a check it says how to get one."""
    document = subject.check
    if document is None:
        text = "There is no check of this release yet." if subject.release else "Only releases are checked."
        return Section("check", "Did it help", [Text(text)])
    blocks: list[Block] = [
        *_sentences(document),
        *_advice(document),
        *_comparison(document),
        *_arms(document),
        *_target(document),
        *_predicted(subject, document),
        *_per_bin(document),
        *_confusions(subject, document),
        *_class_table(document),
        *_subgroups(document),
        *_curves(document),
        _rules(document),
        *_suspicious(document),
    ]
    return Section("check", "Did it help", blocks)


def _sentences(document: CheckDocument) -> Iterator[Block]:
    settings, verdict = document.settings, document.verdict
    network = f"{settings.backbone} (weights {settings.weights}), {settings.mode}"
    yield Text(f"Outcome: {verdict.outcome}. Network: {network}.")
    rest = verdict.sentences
    advice = [f"What would help: {sentence}" for sentence in verdict.advice]
    yield Text("\n".join([*rest, *advice]), is_list=True)


def _advice(document: CheckDocument) -> Iterator[Block]:
    if document.advice:
        yield Table(ADVICE_TITLE, ADVICE_COLUMNS, advice_rows(document.advice), f"{ADVICE_NOTE}.")


def _comparison(document: CheckDocument) -> Iterator[Block]:
    rows = [
        {"arms": pair.replace(" - ", " − "), "measure": measure_name(measure), **figure.to_dict()}
        for pair, measures in document.comparison.items()
        for measure, figure in measures.items()
        if figure.low is not None
    ]
    if not rows:
        return
    frame = pd.DataFrame(rows)
    parts = [
        charts.intervals(part, "arms", 0.0).properties(
            title=alt.Title(str(name), fontSize=12, anchor="start")
        )
        for name, part in frame.groupby("measure", sort=False)
    ]
    chart = alt.vconcat(*parts, spacing=14)
    text = "Differences between arms, with 95 % intervals: one that contains zero may be due to chance."
    yield Figure("comparison", "Differences between arms", text, chart, frame)


def _arms(document: CheckDocument) -> Iterator[Block]:
    where = scored_on(document)
    rows = [
        [arm, head.head, round(part.n_train.on(where) or 0), *(scored[name].mean for name in _MEASURES)]
        for arm, part in document.arms.items()
        for head in part.heads.values()
        if (scored := head.on(where))
    ]
    if rows:
        header = ["arm", "head", "trained on", *(measure_name(name) for name in _MEASURES)]
        yield Table(f"Scores by arm ({where})", header, rows, "Means over the splits.")


def _target(document: CheckDocument) -> Iterator[Block]:
    """Yield the scores of a target of several values, by arm and, of label sets, by label."""
    if document.target is None:
        return
    where = scored_on(document)
    header, rows = target_table(document, where)
    text = f"Means over the splits. Skill is {document.target.skill}: 0 if a prediction is the same for all."
    yield Table(f"Scores by arm ({where}): {document.target.name}", header, rows, text)
    scored = target_scores(document, RELEASE)
    if scored and scored.labels:
        names = ["label", "n", "n_predicted", "precision", "recall", "f1", "average_precision"]
        by_label = [[getattr(row, name) for name in names] for row in scored.labels]
        header = [measure_name(name) for name in names]
        yield Table("Labels", header, by_label, "Over every original once; predicted from .5 on.")


def _predicted(subject: Subject, document: CheckDocument) -> Iterator[Block]:
    frame = predictions(subject)
    if frame is None or not subject.is_numeric:
        return
    target = subject.target
    shown = charts.sample(frame[[target, "predicted", "subtype"]])
    shown = shown.assign(subtype=shown["subtype"].map(subject.subtype_name, na_action=None))
    x, y = alt.X(f"{target}:Q", scale=_FULL, title=f"{target} as rated"), alt.Y("predicted:Q", scale=_FULL)
    color = "subtype" if subject.has_subtypes else None
    chart = charts.scatter(shown, x, y, color, charts.diagonal(0, 100, target, "predicted"))
    text = "Each point is an original that the model was not trained on. A flat cloud is mean collapse."
    yield Figure("predicted", "Predicted against rated", text, chart, shown)
    groups = pd.qcut(frame["predicted"], _N_CALIBRATION, duplicates="drop")
    means = frame.groupby(groups, observed=True)[["predicted", target]].mean().reset_index(drop=True)
    x, y = (
        alt.X("predicted:Q", scale=_FULL),
        alt.Y(f"{target}:Q", scale=_FULL, title=f"mean {target} as rated"),
    )
    chart = charts.scatter(means, x, y, None, charts.diagonal(0, 100, "predicted", target))
    text = "Mean rating over tenths of the predictions: on the diagonal, a prediction means what it says."
    yield Figure("calibration", "Calibration", text, chart, means)


def predictions(subject: Subject) -> pd.DataFrame | None:
    """Return the scored originals with `predicted` (release arm) and `residual`; None without a check."""
    frame, document = subject.predictions, subject.check
    if frame is None or document is None:
        return None
    column = f"{scored_on(document)}.{RELEASE}.regressor"
    if column not in frame:
        return None
    scored = frame[frame[column].notna() & frame[subject.target].notna()].copy()
    scored["predicted"] = scored[column]
    if subject.is_numeric:
        scored["residual"] = scored["predicted"] - scored[subject.target]
    return scored


def _per_bin(document: CheckDocument) -> Iterator[Block]:
    labels = [bin_label(label) for label in document.bins.labels]
    rows = [
        {"bin": label, "MAE": value, "arm": arm}
        for arm in (RELEASE, ORIGINALS, MEAN)
        if (scored := scores(document, arm))
        for label, value in zip(labels, scored.mae_per_bin, strict=False)
    ]
    if rows:
        frame = pd.DataFrame(rows)
        axis = alt.X("bin:N", sort=labels, axis=alt.Axis(labelAngle=-45))
        counts = dict(zip(labels, document.bins.n.on(scored_on(document)) or [], strict=True))
        few = [f"{label} ({n})" for label, n in counts.items() if n < 20]
        text = "Mean absolute error per bin. Balancing should lower the ends without raising the middle."
        text += f" Few images in {', '.join(few)}." if few else ""
        yield Figure(
            "mae_per_bin", "Error per bin", text, charts.lines(frame, axis, alt.Y("MAE:Q"), "arm"), frame
        )


def _classes(document: CheckDocument) -> Iterator[tuple[str, ClassScores]]:
    for name, scorings in document.arms[RELEASE].classifier.items():
        scored = scorings.on(scored_on(document))
        if scored:
            yield name, scored


def _confusions(subject: Subject, document: CheckDocument) -> Iterator[Block]:
    for name, scored in _classes(document):
        best, labels = next(iter(scored.inputs.values())), scored.labels
        if name == "subtype":
            labels = [subject.subtype_name(label) for label in labels]
        for kind, key in (("counts", "confusion"), ("share of the true class", "confusion_normalised")):
            values = np.asarray(getattr(best, key), float)
            frame = pd.DataFrame(
                [
                    {"true": true, "predicted": predicted, "value": values[row, column]}
                    for row, true in enumerate(labels)
                    for column, predicted in enumerate(labels)
                ]
            )
            frame["label"] = frame["value"].map(("{:.0f}" if kind == "counts" else "{:.2f}").format)
            chart = charts.heat_map(frame, "predicted", "true", "value", "label", (labels, labels))
            text = f"Rows: true class; {kind}. What lies off the diagonal is confused."
            title = f"Confusion, {name}" + ("" if kind == "counts" else ", normalised")
            yield Figure(f"{key}_{name}", title, text, chart, frame.drop(columns="label"))


def _class_table(document: CheckDocument) -> Iterator[Block]:
    inputs = {
        "both": "image and regressor",
        "image": "image",
        "regressor": "regressor",
        "majority": "most frequent",
    }
    for name, scored in _classes(document):
        rows = [
            [inputs[key], *(found[measure] for measure in _LABEL_MEASURES)]
            for key, found in scored.inputs.items()
        ]
        rows.append(["chance", *(scored.chance.get(measure) for measure in _LABEL_MEASURES)])
        header = ["input", *(measure_name(measure) for measure in _LABEL_MEASURES)]
        yield Table(f"Classifier, {name}", header, rows)


def _subgroups(document: CheckDocument) -> Iterator[Block]:
    for column, scored in document.subgroups.items():
        measure, title = scored.measure, column.replace("_", " ")
        rows: list[list[object]] = [
            [name, group.n, getattr(group, measure), _interval_of(group)]
            for name, group in scored.groups.items()
        ]
        rows += [[name, n, "too few to report", ""] for name, n in scored.too_few.items()]
        text = f"Largest gap {number_text(scored.gap)}." if scored.gap is not None else ""
        if scored.estimated:
            text += f" Filled in by a machine in {', '.join(scored.estimated)}."
        header = (title, "images", measure_name(measure), "95 % interval")
        yield Table(f"{measure_name(measure)} by {title}", header, rows, text)


def _interval_of(group: Subgroup) -> str:
    found = group.interval
    if found is None or found.low is None or found.high is None:
        return "–"
    return f"{found.low:.3f} to {found.high:.3f}"


def _curves(document: CheckDocument) -> Iterator[Block]:
    points = [
        {
            "step": point.step,
            "loss": point.loss,
            "accuracy": point.accuracy,
            "phase": point.phase,
            "arm": curve.arm,
        }
        for curve in document.curves
        for point in curve.points
    ]
    if not points:
        return
    every = pd.DataFrame(points)
    for name, measure in (("curves", "loss"), ("accuracy_curves", "accuracy")):
        known = every.dropna(subset=[measure]).astype({measure: float})
        if known.empty:
            continue
        frame = known.groupby(["arm", "phase", "step"])[[measure]].mean().reset_index()
        frame["curve"] = frame["arm"] + ", " + frame["phase"].astype(str)
        chart = charts.lines(frame, alt.X("step:Q"), alt.Y(f"{measure}:Q"), "curve")
        text = f"{measure.capitalize()} by training step, on train, mean over the splits."
        yield Figure(name, f"Learning curves, {measure}", text, chart, frame)


def _rules(document: CheckDocument) -> Block:
    order = {"fail": 0, "undecided": 1, "notice": 2, "pass": 3}
    gate = sorted(document.verdict.gate, key=lambda rule: order[rule.outcome])
    rows = [[rule.outcome, rule.rule, rule.text] for rule in gate]
    return Table(f"Rules ({len(rows)})", ("outcome", "rule", "finding"), rows, is_open=False)


def _suspicious(document: CheckDocument) -> Iterator[Block]:
    for source, figures in document.labels.items():
        rows = [[each.path, each.rating, each.score] for each in figures.suspicious]
        if rows:
            text = "Unusual for their subtype and their look, worst first: a list to review, not a verdict."
            header = ("image", "rating", "score")
            yield Table(f"Ratings of {source} worth a second look", header, rows, text)
