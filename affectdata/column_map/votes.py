"""The labels of an image from the cells of its rows: as published, or computed from raw votes.

One function per kind of raw votes:

    _count           `counts`: a column per emotion with the number of votes
    _join_columns    `raters`: a column per rater
    label_raters     `rows: rater`: a row per rater
    label_people     `rows: person`: a row per person in the image, who are averaged
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from affectdata.column_map.cells import (
    filled,
    parse_cell,
    parse_counts,
    parse_emotions,
    parse_rating,
    parse_shares,
)
from affectdata.column_map.columns import ColumnMap
from affectdata.column_map.tally import Tally
from affectdata.labels import dominant_emotion
from affectdata.reading.delimited import parse_count, parse_number, parse_spread
from affectdata.reading.join import Row
from affectdata.records import RATINGS, Rating
from affectdata.schema import INTENSITY

_SUM = 0.05  # shares may add up to so much more or less than 1: eight that are rounded to two decimals do


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of an image. `agreement_n` is the number of votes behind `agreement` and `emotions`."""

    ratings: Mapping[str, Rating] = field(default_factory=dict)
    emotions: Mapping[str, float] = field(default_factory=dict)
    emotion: str | None = None
    agreement: float | None = None
    agreement_n: int | None = None
    intensities: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is no label."""
        return not (self.ratings or self.emotions or self.emotion or self.intensities)


@dataclass(frozen=True, slots=True)
class _Votes:
    """Votes on one image: numbers by rating, and per answer about emotions its weights by emotion."""

    ratings: dict[str, list[float]] = field(default_factory=dict)
    emotions: list[Mapping[str, float]] = field(default_factory=list)
    intensities: list[Mapping[str, float]] = field(default_factory=list)

    def summarise(self, are_counts: bool = False) -> Labels:
        """Return means, SDs (with n - 1) and numbers of answers, and shares of the answers."""
        counted = (
            round(sum(sum(answer.values()) for answer in self.emotions)) if are_counts else len(self.emotions)
        )
        sums = _add(self.emotions)
        shares = {name: round(value / counted, 9) for name, value in sums.items()} if counted else {}
        emotion = dominant_emotion(shares)
        return Labels(
            {name: _summarise(numbers) for name, numbers in self.ratings.items() if numbers},
            shares,
            emotion,
            shares.get(emotion or ""),
            counted or None,
            _average(self.intensities),
        )


def _summarise(numbers: Sequence[float]) -> Rating:
    sd = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Rating(statistics.fmean(numbers), sd, len(numbers))


def _add(answers: Iterable[Mapping[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for answer in answers:
        for name, value in answer.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def _average(answers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return means over the answers that have a value."""
    known = {name: [answer[name] for answer in answers if name in answer] for name in _add(answers)}
    return {name: statistics.fmean(values) for name, values in known.items()}


def label_row(spec: ColumnMap, row: Row, tally: Tally) -> Labels:
    """Return the labels in one row.

    Raises:
        ValueError: a cell cannot be read.
    """
    cells = filled(spec, row)
    ratings = {}
    for name in RATINGS if spec.scales else ():
        mean = parse_rating(spec, cells, name, spec.columns.get(name))
        sd = parse_cell(spec, cells, spec.columns.get(f"{name}_sd"), parse_spread)
        n = parse_cell(spec, cells, spec.columns.get(f"{name}_n"), parse_count)
        if mean is not None:
            ratings[name] = Rating(mean, sd, n)
    raw = _join_columns(spec, row, cells, tally) if spec.raters else Labels()
    if spec.counts and spec.emotions:
        raw = replace(_count(spec, cells), ratings=raw.ratings)
    shares, emotion, agreement = _published(spec, cells)
    emotions = dict(raw.emotions) or shares
    emotion = emotion if "emotion" in spec.columns else dominant_emotion(emotions)
    if agreement is None:
        agreement = emotions.get(emotion or "")
    intensities = {
        name: parse_cell(spec, cells, column, parse_number) for name, column in spec.intensities.items()
    }
    return Labels(
        {**ratings, **raw.ratings},
        emotions,
        emotion,
        agreement,
        raw.agreement_n,
        {name: value for name, value in intensities.items() if value is not None},
    )


def _published(
    spec: ColumnMap, cells: Mapping[str, str]
) -> tuple[dict[str, float], str | None, float | None]:
    """Return shares, emotion and agreement as a table states them.

    Of several labels in a cell the dominant one is the emotion, and each has a share.
    """
    shares = {} if spec.counts or not spec.emotions else parse_shares(spec, cells, spec.emotions)
    column = spec.columns.get("emotion")
    labels = parse_emotions(spec, cells, column) if column else None
    emotion = None
    if labels is not None:
        words, is_list = labels
        shares = words if is_list else shares
        emotion = dominant_emotion(words)
    if "agreement" not in spec.columns:
        return shares, emotion, None
    agreement = parse_shares(spec, cells, {"agreement": spec.columns["agreement"]})
    return shares, emotion, agreement.get("agreement")


def is_far_from_one(spec: ColumnMap, labels: Labels) -> float | None:
    """Return the sum of published shares if it is far from 1, else None."""
    total = sum(labels.emotions.values()) if labels.emotions.keys() == spec.emotions.keys() else 1.0
    return total if spec.emotions and not spec.counts and abs(total - 1) > _SUM else None


def _count(spec: ColumnMap, cells: Mapping[str, str]) -> Labels:
    """Return shares of numbers of votes.

    Raises:
        ValueError: a number is empty, negative or none, or all are 0.
    """
    if not spec.emotions.values() & cells.keys():
        return Labels()
    return _Votes(emotions=[parse_counts(spec, cells, spec.emotions)]).summarise(are_counts=True)


def _join_columns(spec: ColumnMap, row: Row, cells: Mapping[str, str], tally: Tally) -> Labels:
    """Return the labels in columns of one rater each; entries that are not answers are counted."""
    votes = _Votes()
    for name in spec.raters:
        for column in spec.rater_columns(name, row.cells):
            where = f"{row.where}, {column}"
            try:
                if name == "emotion":
                    labels = parse_emotions(spec, cells, column)
                    votes.emotions.extend([labels[0]] if labels and labels[0] else [])
                else:
                    number = parse_rating(spec, cells, name, column)
                    if number is not None and _is_on_scale(spec, name, number, where, tally):
                        votes.ratings.setdefault(name, []).append(number)
            except ValueError as error:
                tally.add("bad_vote", f"{row.where}, {error}")
    return votes.summarise()


def _is_on_scale(spec: ColumnMap, name: str, number: float, where: str, tally: Tally) -> bool:
    low, high = spec.scale_of(name)
    if low <= number <= high:
        return True
    tally.add("off_scale", f"{where}: {number:g} is outside {low:g}–{high:g}")
    return False


def _numbers(vote: Labels) -> Iterator[tuple[str, float]]:
    yield from ((name, rating.mean) for name, rating in vote.ratings.items())
    yield from ((INTENSITY + name, value) for name, value in vote.intensities.items())


def label_raters(spec: ColumnMap, rows: Sequence[Row], tally: Tally) -> Labels:
    """Return the labels of an image from rows of one rater each; rows that are not answers are counted."""
    votes, raters = _Votes(), set()
    are_counts = spec.counts and bool(spec.emotions)
    for row in rows:
        cells = filled(spec, row)
        rater = cells.get(spec.rater or "")
        where = row.where + (f" of {rater}" if rater else "")
        try:
            vote = label_row(spec, row, tally)
            counts = parse_counts(spec, cells, spec.emotions) if are_counts and vote.emotions else None
        except ValueError as error:
            tally.add("bad_vote", f"{where}, {error}")
            continue
        if vote.is_empty:
            tally.add("bad_vote", f"{where}: empty")
        elif rater in raters:
            tally.add("repeated_rater", where)
        elif all(_is_on_scale(spec, *number, where, tally) for number in _numbers(vote)):
            raters.update([rater] if rater else [])
            for name, item in vote.ratings.items():
                votes.ratings.setdefault(name, []).append(item.mean)
            answer = counts or vote.emotions or ({vote.emotion: 1.0} if vote.emotion else {})
            votes.emotions.extend([answer] if answer else [])
            votes.intensities.extend([vote.intensities] if vote.intensities else [])
    return votes.summarise(are_counts)


def label_people(spec: ColumnMap, rows: Sequence[Row], tally: Tally) -> Labels:
    """Return the labels of an image from rows of one person in it each: their means.

    Shares are averaged over people; SDs and numbers of raters are known only of one person.
    """
    people = []
    for row in rows:
        try:
            person = label_row(spec, row, tally)
        except ValueError as error:
            tally.add("bad_vote", f"{row.where}, {error}")
            continue
        if person.is_empty:
            tally.add("bad_vote", f"{row.where}: empty")
        else:
            people.append(person)
    means = _average([{name: item.mean for name, item in person.ratings.items()} for person in people])
    answers = [person.emotions or ({person.emotion: 1.0} if person.emotion else {}) for person in people]
    if len(people) == 1:
        return replace(people[0], emotions=answers[0])
    votes = _Votes(
        emotions=[answer for answer in answers if answer], intensities=[p.intensities for p in people]
    )
    labels = votes.summarise()
    return Labels(
        {name: Rating(mean) for name, mean in means.items()},
        labels.emotions,
        labels.emotion,
        labels.agreement,
        None,
        labels.intensities,
    )
