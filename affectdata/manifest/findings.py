"""Warnings about a new manifest: valid but suspicious rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.records import RATINGS, Finding, SourceInfo, shorten

_SHOWN = 3  # examples in a finding
_EDGES = 1 << 10  # as Python objects in memory
# Kinds of low quality: column, comparison, bound, and the condition in SQL. The bounds are those of
# cleanvision, but for sharpness: one image of GAPED and OASIS is below it, and 99 % of the same images after
# a Gaussian blur of 3 pixels.
_QUALITY: dict[str, tuple[str, Callable[..., Any], float, str]] = {
    "very_dark": ("brightness_p99", pc.less, 0.32, "brightness_p99 < 0.32"),
    "very_bright": ("brightness_p05", pc.greater, 0.95, "brightness_p05 > 0.95"),
    "blurred": ("sharpness", pc.less, 0.033, "sharpness < 0.033"),
    "low_in_information": ("entropy", pc.less, 3.0, "entropy < 3"),
    "odd_in_shape": (
        "aspect",
        pc.less,
        0.35,
        "least(width_px, height_px) < 0.35 * greatest(width_px, height_px)",
    ),
}
LABEL_COLUMNS = ("emotion", *RATINGS, "subtype", "theme", "age", "age_group", "gender", "ethnicity")
QUALITY_COLUMNS = ("width_px", "height_px", "brightness_p05", "brightness_p99", "entropy", "sharpness")
_FAR_APART = 10.0  # POMP points between the ratings of near-duplicates


# Findings about single images or rows, by kind: what several of them have in common.
_SEVERAL = {
    "averaged": "images have several rows, whose means are used",
    "conflict": "images have the bytes of another image and other labels",
    "far_apart": "pairs of look-alikes have different ratings",
    "repeated_row": "images have identical rows",
}


def group_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Merge findings about single images of one kind: their number, and the first three."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    grouped: list[Finding] = []
    for kind, same in by_kind.items():
        if kind in _SEVERAL and len(same) > 1:
            texts = shorten([finding.text for finding in same], separator="; ")
            same = [Finding(kind, f"{len(same)} {_SEVERAL[kind]}: {texts}")]
        grouped += same
    return grouped


def list_examples(texts: Sequence[str]) -> str:
    """Return the number of texts and the first three."""
    return f"{len(texts)}: {shorten(texts, separator='; ')}"


def find_far_apart(parts: Iterable[pa.Table], edges: pa.Table) -> list[Finding]:
    """Find near-duplicates with very different ratings: at most one of the two can be right."""
    near = pa.chunked_array([*edges["image_id_a"].chunks, *edges["image_id_b"].chunks], pa.string())
    rows: dict[str, dict[str, Any]] = {}
    for part in parts if len(edges) else ():
        rated = part.select(["image_id", "path", *RATINGS]).filter(pc.is_in(part["image_id"], near))
        rows |= {row["image_id"]: row for row in rated.to_pylist()}
    findings = []
    for edge in (row for batch in edges.to_batches(_EDGES) for row in batch.to_pylist()):
        a, b = sorted((rows[edge["image_id_a"]], rows[edge["image_id_b"]]), key=lambda row: str(row["path"]))
        apart = [
            f"{name} {a[name]:g} against {b[name]:g}"
            for name in RATINGS
            if a[name] is not None and b[name] is not None and abs(a[name] - b[name]) > _FAR_APART
        ]
        if apart:
            bits = edge["distance_bits"]
            text = f"{a['path']} and {b['path']} look the same ({bits} bits): {', '.join(apart)}"
            findings.append(Finding("far_apart", text))
    return findings


def find_against_sign(parts: Iterable[pa.Table], info: SourceInfo) -> list[Finding]:
    """Count the images whose valence is on the opposite side of the sign of their subtype."""
    signed = {code: subtype for code, subtype in info.subtypes.items() if subtype.sign}
    n_rated = Counter[str]()
    opposite: dict[str, list[str]] = {code: [] for code in signed}
    for part in parts if signed else ():
        for code, subtype in signed.items():
            rated = part.filter(pc.and_(pc.equal(part["subtype"], code), pc.is_valid(part["valence"])))
            n_rated[code] += len(rated)
            compare = pc.greater if subtype.sign == -1 else pc.less
            opposite[code] += rated.filter(compare(rated["valence"], 50))["path"].to_pylist()
    findings = []
    for code, subtype in signed.items():
        if paths := sorted(opposite[code]):
            side = "positive" if subtype.sign == -1 else "negative"
            count = f"{len(paths)} of {n_rated[code]} in {code} ({subtype.name})"
            text = f"{count} are rated on the {side} side: {shorten(paths)}"
            findings.append(Finding("against_sign", text))
    return findings


def find_bad_quality(parts: Iterable[pa.Table]) -> list[Finding]:
    """Count the images of low quality, by kind; a recipe's `where` can leave them out."""
    counts, n_rows = Counter[str](), 0
    first: dict[str, list[str]] = {kind: [] for kind in _QUALITY}
    for part in parts:
        n_rows += len(part)
        shorter = pc.min_element_wise(part["width_px"], part["height_px"])
        longer = pc.max_element_wise(part["width_px"], part["height_px"])
        part = part.append_column("aspect", pc.divide(pc.cast(shorter, pa.float64()), longer))
        for kind, (column, compare, bound, _) in _QUALITY.items():
            paths = part.filter(compare(part[column], bound))["path"].to_pylist()
            counts[kind] += len(paths)
            first[kind] = sorted([*first[kind], *paths])[:_SHOWN]
    return [
        Finding(
            kind, f"{kind.replace('_', ' ')}: {n} of {n_rows} images ({where}): {shorten(first[kind], n)}"
        )
        for kind, (_, _, _, where) in _QUALITY.items()
        if (n := counts[kind])
    ]


def find_unlabelled(parts: Iterable[pa.Table]) -> list[Finding]:
    """Count the images without any label; of a part, all columns but `path` are labels."""
    n = n_rows = 0
    first: list[str] = []
    for part in parts:
        labels = [pc.is_null(part[name]) for name in part.column_names if name != "path"]
        unlabelled = part.filter(reduce(pc.and_, labels))
        first = sorted([*first, *unlabelled["path"].to_pylist()])[:_SHOWN]
        n += len(unlabelled)
        n_rows += len(part)
    text = f"without any label: {n} of {n_rows} images: {shorten(first, n)}"
    return [Finding("unlabelled", text)] if n else []


def find_undecided(parts: Iterable[pa.Table], emotions: list[str]) -> list[Finding]:
    """Count the images without a dominant emotion though raters chose some: a tie, or no majority."""
    n = n_rows = 0
    first: list[str] = []
    for part in parts if emotions else ():
        largest = pc.max_element_wise(*(part[f"emotion_{name}"] for name in emotions))
        undecided = part.filter(pc.and_(pc.is_null(part["emotion"]), pc.greater(largest, 0)))
        first = sorted([*first, *undecided["path"].to_pylist()])[:_SHOWN]
        n += len(undecided)
        n_rows += len(part)
    text = f"{n} of {n_rows} have no dominant emotion (a tie, or no majority): {shorten(first, n)}"
    return [Finding("undecided", text)] if n else []
