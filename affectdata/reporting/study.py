"""The page of a study: its combinations, the best by split, training curves, confusion and subgroups."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from affectdata.check.blocks import Interval
from affectdata.check.words import interval_text, measure_name, varied_settings
from affectdata.errors import InputError, IntegrityError
from affectdata.hashing import file_hash
from affectdata.records import count_text
from affectdata.reporting import charts
from affectdata.reporting.blocks import MOST_LABEL, Block, Figure, Section, Table, Text, clean
from affectdata.store.files import read_regular
from affectdata.store.sealed import read_sealed

STUDY_FILE = "study.json"
_AGAIN = "run `affectdata study` again"
_PARTS = ("train", "val", "test")
_MOST_CURVES = 8  # combinations whose curves are drawn
_CURVES = {"loss": "train", "val_loss": "val"}, {"accuracy": "train", "val_accuracy": "val"}


def study_sections(folder: Path) -> tuple[str, list[Section]]:
    """Return the name of a study and the sections of its page.

    Raises:
        InputError: the folder has no readable study.
        IntegrityError: the study is not the one that was written.
    """
    study = read_sealed(folder / STUDY_FILE, _AGAIN)
    if not isinstance(study, dict) or study.get("schema") != "affectdata/study/2":
        raise InputError(f"{folder / STUDY_FILE} is not a study", fix=_AGAIN)
    try:
        return str(study["name"]), [Section("study", "Study", list(_blocks(folder, study)))]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / STUDY_FILE} is not as its form says: {error!r}", fix=_AGAIN) from error


def _blocks(folder: Path, study: dict[str, Any]) -> Iterator[Block]:
    combinations = study["combinations"]
    varied = varied_settings([each["settings"] for each in combinations])
    yield Text("\n".join(_sentences(study, varied)), is_list=True)
    yield _results(study, varied)
    yield from (_scores(study, varied, part) for part in _PARTS if part in combinations[0]["scores"])
    yield _by_split(study)
    yield from _curves(_read(folder, study, "curves"), combinations, varied)
    yield from _confusion(_read(folder, study, "confusion"), combinations[0], varied)
    yield from _subgroups(_read(folder, study, "subgroups"), combinations[0], varied)
    yield from _labels(_read(folder, study, "labels"), combinations[0], varied)


def _read(folder: Path, study: dict[str, Any], name: str) -> pd.DataFrame | None:
    """Return a table of a study; None if it has none.

    Raises:
        IntegrityError: the table is not the one that was written.
    """
    path = folder / f"{name}.csv"
    if path.name not in study["tables"]:
        return None
    data = read_regular(path) if path.exists() else b""
    if file_hash(data) != study["tables"][path.name]:
        raise IntegrityError(f"{path.name} is not what was written", where=str(path), fix=_AGAIN)
    return pd.read_csv(io.BytesIO(data))


def _label(settings: dict[str, Any], varied: list[str]) -> str:
    text = ", ".join(_setting(name, settings.get(name, "–")) for name in varied)
    return clean(text or _value(settings.get("backbone", "the only one")), MOST_LABEL)


def _setting(name: str, value: Any) -> str:
    """Return a setting that says what it is: words as they are, numbers and `none` with their name."""
    says = isinstance(value, str) and value not in ("none", "–")
    return _value(value) if says else f"{name} {_value(value)}"


def _value(value: Any) -> str:
    """Return a setting as text, of a path the name of the file."""
    return str(value).rpartition("/")[2]


def _sentences(study: dict[str, Any], varied: list[str]) -> Iterator[str]:
    n = len(study["combinations"])
    first = _label(study["combinations"][0]["settings"], varied)
    if study["winner"] or n == 1:
        yield f"Best on {study['best_on']}: {first}."
    else:
        yield f"No clear best of {n} on {study['best_on']}; the highest, within the noise: {first}."
    if study["n_seeds"] == 1:
        yield "One seed: intervals leave out the variation between trainings."
    yield from study["errors"]


def _results(study: dict[str, Any], varied: list[str]) -> Table:
    measure = study["best_on"].partition(".")[2]
    rows = []
    for each in study["combinations"]:
        scores, gap = each["scores"], each["difference"]
        means = [scores.get(part, {}).get(measure, {}).get("mean") for part in _PARTS]
        interval = interval_text(Interval(**gap), 3, "+") if gap else ""
        rows.append([*(_value(each["settings"].get(name, "–")) for name in varied), *means, interval])
    header = [*varied, *(f"{part} {measure_name(measure)}" for part in _PARTS), "best − it, on val"]
    return Table(f"{count_text(len(rows), 'setting')} by {measure_name(measure)}", header, rows)


def _scores(study: dict[str, Any], varied: list[str], part: str) -> Table:
    """Return every measure of every combination on one split."""
    names = list(study["combinations"][0]["scores"][part])
    rows = [
        [
            _label(each["settings"], varied),
            *(each["scores"].get(part, {}).get(name, {}).get("mean") for name in names),
        ]
        for each in study["combinations"]
    ]
    baseline = study["baseline"].get(part, {})
    rows.append(["the same for every image", *(baseline.get(name) for name in names)])
    header = ["settings", *(measure_name(name) for name in names)]
    return Table(f"Scores on {part}", header, rows, is_open=part == "test")


def _by_split(study: dict[str, Any]) -> Table:
    scores = study["combinations"][0]["scores"]
    parts = [part for part in _PARTS if part in scores]
    rows = [
        [measure_name(name), *(scores[part].get(name, {}).get("mean") for part in parts)]
        for name in scores[parts[0]]
    ]
    return Table(
        "The best over the splits",
        ["measure", *parts],
        rows,
        "Scores that are far better on train than on val mean overfitting.",
    )


def _own(frame: pd.DataFrame, settings: dict[str, Any], varied: list[str]) -> pd.DataFrame:
    """Return the rows of a table that belong to a combination."""
    columns = [name for name in varied if name in frame]
    mask = pd.Series(True, frame.index)
    for name in columns:
        value, column = settings.get(name), frame[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        mask &= column.isna() if value is None else column.eq(value) if is_number else column.eq(str(value))
    return frame[mask]


def _first_seed(frame: pd.DataFrame, best: dict[str, Any], varied: list[str]) -> pd.DataFrame:
    own = _own(frame, best["settings"], varied)
    first: pd.DataFrame = own[own["seed"] == own["seed"].min()]
    return first


def _curves(
    frame: pd.DataFrame | None, combinations: list[dict[str, Any]], varied: list[str]
) -> Iterator[Block]:
    if frame is None:
        return
    shown: list[pd.DataFrame] = []
    for each in combinations:
        own = _own(frame, each["settings"], varied)
        if len(own) and len(shown) < _MOST_CURVES:
            shown.append(own.assign(settings=_label(each["settings"], varied)))
    if not shown:
        return
    table = pd.concat(shown)
    for columns in _CURVES:
        known = [name for name in columns if name in table and table[name].notna().any()]
        if not known:
            continue
        measure = known[0].removeprefix("val_")
        means = table.groupby(["settings", "step"], sort=False)[known].mean().reset_index()
        named = means.rename(columns=columns)
        long = named.melt(["settings", "step"], var_name="split", value_name=measure).dropna()
        for number, (name, part) in enumerate(long.groupby("settings", sort=False), 1):
            chart = charts.lines(
                part,
                alt.X("step:Q"),
                alt.Y(f"{measure}:Q", scale=alt.Scale(zero=measure == "accuracy")),
                "split",
            )
            text = "By training step, mean over seeds. A val curve that turns away from train: overfitting."
            yield Figure(f"{measure}_{number}", f"{measure}, {name}", text, chart, part)


def _confusion(frame: pd.DataFrame | None, best: dict[str, Any], varied: list[str]) -> Iterator[Block]:
    if frame is None:
        return
    own = _own(frame, best["settings"], varied)
    for part in [part for part in ("test", "val") if (own["split"] == part).any()][:1]:
        counts = own[own["split"] == part].groupby(["true", "predicted"], sort=False)["n"].sum().reset_index()
        counts["true"], counts["predicted"] = (
            counts[name].map(lambda each: clean(str(each), MOST_LABEL)) for name in ("true", "predicted")
        )
        labels = list(dict.fromkeys(counts["true"]))
        totals = counts.groupby("true")["n"].transform("sum").clip(lower=1)
        counts["share"] = counts["n"] / totals
        counts["label"] = counts["share"].map("{:.2f}".format)
        chart = charts.heat_map(counts, "predicted", "true", "share", "label", (labels, labels))
        text = f"The best settings on {part}, over all seeds: share of each true class (rows)."
        yield Figure("confusion", "Confusion, normalised", text, chart, counts.drop(columns="label"))


def _subgroups(frame: pd.DataFrame | None, best: dict[str, Any], varied: list[str]) -> Iterator[Block]:
    if frame is None:
        return
    own = _first_seed(frame, best, varied)
    for (part, column), rows in own.groupby(["split", "column"], sort=False):
        measure = next(iter(rows["measure"].dropna()), "")
        table = [
            [str(row["group"]), row["n"], row["mean"], f"{row['low']:.3f} to {row['high']:.3f}"]
            if pd.notna(row["mean"])
            else [str(row["group"]), row["n"], "too few to report", ""]
            for row in rows.to_dict("records")
        ]
        title = f"{measure_name(str(measure))} by {str(column).replace('_', ' ')}, {part}".strip()
        header = ("group", "images", measure_name(str(measure)) or "figure", "95 % interval")
        yield Table(title, header, table, "The best settings, first seed.")


def _labels(frame: pd.DataFrame | None, best: dict[str, Any], varied: list[str]) -> Iterator[Block]:
    if frame is None:
        return
    own = _first_seed(frame, best, varied).drop(columns=[*varied, "seed"], errors="ignore")
    header = [measure_name(str(column)) for column in own.columns]
    yield Table("By label", header, own.to_numpy(object).tolist(), "The best settings, first seed.")
