"""Fifth section: images with their copies, predictions, look-alikes, and what was rejected."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from affectdata.records import count_text
from affectdata.reporting.blocks import Block, Card, Images, Section, Table
from affectdata.reporting.check import predictions
from affectdata.reporting.overview import look_alikes
from affectdata.reporting.subject import Subject

_EXAMPLES, _COPIES, _RANKED, _PAIRS = 4, 4, 8, 12


def images(subject: Subject) -> Section:
    """Return the section."""
    blocks: list[Block] = [
        *_with_copies(subject),
        *_scale(subject),
        *_ranked(subject),
        *_maps(subject.maps),
        *_look_alikes(subject),
        *_rejects(subject),
    ]
    return Section("images", "Images", blocks)


def _with_copies(subject: Subject) -> Iterator[Block]:
    if not subject.release:
        return
    copies = subject.rows[subject.rows["copy"] > 0]
    for pipeline, rows in copies.groupby("pipeline", sort=True):
        cards = []
        for image_id in list(dict.fromkeys(rows["image_id"]))[:_EXAMPLES]:
            same = subject.rows[subject.rows["image_id"] == image_id].sort_values("copy")
            cards += [
                Card(row["sample_id"], ["original" if not row["copy"] else f"copy {row['copy']}"])
                for _, row in same.head(_COPIES).iterrows()
            ]
        text = "Originals with their first copies: is everything that carries the emotion still there?"
        yield Images(f"Pipeline {pipeline}", text, cards)


def _scale(subject: Subject) -> Iterator[Block]:
    """Show a negative, a neutral and a positive original on the scale, as rated and predicted."""
    if not subject.is_numeric:
        return
    rows = _scored(subject)
    wanted = {"negative": rows[subject.target].min(), "neutral": 50.0, "positive": rows[subject.target].max()}
    cards = []
    for name, value in wanted.items():
        row = rows.loc[(rows[subject.target] - value).abs().idxmin()]
        cards.append(Card(row[subject.key], [name, *_lines(row, subject)], _marks(row, subject)))
    yield Images(f"On the scale of {subject.target}", "● as rated, ○ as predicted, from 0 to 100.", cards)


def _scored(subject: Subject) -> pd.DataFrame:
    """Return the originals, with `predicted` and `residual` where they were scored."""
    rows, scored = subject.originals.dropna(subset=[subject.target]), predictions(subject)
    if scored is None:
        return rows
    columns = [name for name in ("predicted", "residual") if name in scored]
    return rows.merge(scored[["image_id", *columns]], on="image_id")


def _ranked(subject: Subject) -> Iterator[Block]:
    rows = _scored(subject)
    if "residual" not in rows:
        return
    ranked = rows.assign(error=rows["residual"].abs()).sort_values("error", kind="stable")
    for title, part in (
        ("Best predictions", ranked.head(_RANKED)),
        ("Worst predictions", ranked[::-1].head(_RANKED)),
    ):
        cards = [
            Card(row[subject.key], _lines(row, subject), _marks(row, subject)) for _, row in part.iterrows()
        ]
        yield Images(title, "● as rated, ○ as predicted, by the model of the release, from 0 to 100.", cards)


def _lines(row: pd.Series, subject: Subject) -> list[str]:
    lines = [f"{row['source']} {row['source_id']}", f"rated {row[subject.target]:.1f}"]
    return lines + ([f"predicted {row['predicted']:.1f}"] if "predicted" in row else [])


def _marks(row: pd.Series, subject: Subject) -> list[tuple[str, float]]:
    names = {"rated": subject.target, "predicted": "predicted"}
    return [(label, min(max(float(row[name]), 0.0), 100.0)) for label, name in names.items() if name in row]


def _maps(files: list[Path]) -> Iterator[Block]:
    cards = [
        Card("", [file.parent.name, file.stem[5:].replace("_", " ")], map_file=str(file))
        for file in files[: 2 * _RANKED]
    ]
    if cards:
        text = "Image and saliency map side by side: do the pixels that matter show what people rated?"
        if not any(file.parent.name == "clearest" for file in files):
            text += " Only the worst: no prediction on test has a certainty above 80 %."
        yield Images("Saliency", text, cards)


def _look_alikes(subject: Subject) -> Iterator[Block]:
    pairs = look_alikes(subject)
    if not len(pairs):
        return
    cards = []
    for number, (_, pair) in enumerate(pairs.head(_PAIRS).iterrows(), 1):
        for side in "ab":
            value = pair[f"value_{side}"]
            text = f"{subject.target} {value:.1f}" if subject.is_numeric else str(value)
            cards.append(Card(pair[f"key_{side}"], [f"pair {number}", pair[f"path_{side}"], text]))
    yield Images(
        "Look-alikes",
        f"{count_text(len(pairs), 'pair')}, kept in one split. Their ratings should agree.",
        cards,
    )


def _rejects(subject: Subject) -> Iterator[Block]:
    if subject.rejects is None or not len(subject.rejects):
        return
    counts = subject.rejects["reason"].value_counts()
    first = subject.rejects.drop_duplicates("reason").set_index("reason")["path"].to_dict()
    rows = [(str(reason), n, first[reason]) for reason, n in counts.items()]
    yield Table("Rejected by ingest", ("reason", "files or rows", "such as"), rows)
