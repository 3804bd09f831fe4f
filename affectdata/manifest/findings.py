"""Warnings about a new manifest: valid but suspicious rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.records import RATINGS, Finding, SourceInfo

_SHOWN = 3  # examples in a finding
_EDGES = 1 << 10  # as Python objects in memory
_FAR_APART = 10.0  # POMP points between the ratings of near-duplicates


def list_examples(texts: Sequence[str]) -> str:
    """Return the number of texts and the first three."""
    more = len(texts) - _SHOWN
    return f"{len(texts)}: {'; '.join(texts[:_SHOWN])}" + (f"; and {more} more" if more > 0 else "")


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
    n_rated, n_opposite = Counter[str](), Counter[str]()
    for part in parts if signed else ():
        for code, subtype in signed.items():
            valences = part.filter(pc.equal(part["subtype"], code))["valence"].drop_null()
            opposite = pc.greater(valences, 50) if subtype.sign == -1 else pc.less(valences, 50)
            n_rated[code] += len(valences)
            n_opposite[code] += pc.sum(opposite).as_py() or 0
    findings = []
    for code, subtype in signed.items():
        if n_opposite[code]:
            side = "positive" if subtype.sign == -1 else "negative"
            count = f"{n_opposite[code]} of {n_rated[code]} in {code} ({subtype.name})"
            findings.append(Finding("against_sign", f"{count} are rated on the {side} side"))
    return findings


def find_undecided(parts: Iterable[pa.Table], emotions: list[str]) -> list[Finding]:
    """Count the images without a dominant emotion though raters chose some: a tie, or no majority."""
    n = n_rows = 0
    for part in parts if emotions else ():
        largest = pc.max_element_wise(*(part[f"emotion_{name}"] for name in emotions))
        undecided = pc.and_(pc.is_null(part["emotion"]), pc.greater(largest, 0))
        n += pc.sum(undecided).as_py() or 0
        n_rows += len(part)
    return (
        [Finding("undecided", f"{n} of {n_rows} have no dominant emotion: a tie, or no majority")]
        if n
        else []
    )
