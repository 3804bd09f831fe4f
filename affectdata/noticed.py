"""What a person should look at in a new manifest: no error, and yet worth a word."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from affectdata.records import RATINGS, Finding, SourceInfo

_FAR_APART = 10.0  # POMP points between near-duplicates that are worth a word


def find_far_apart(table: pa.Table, edges: pa.Table) -> list[Finding]:
    """Name near-duplicates whose ratings are far apart: at most one of the two can be right."""
    rows = {row["image_id"]: row for row in table.select(["image_id", "path", *RATINGS]).to_pylist()}
    findings = []
    for edge in edges.to_pylist():
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


def find_against_sign(table: pa.Table, info: SourceInfo) -> list[Finding]:
    """Count the pictures whose valence lies on the other side than their subtype's."""
    findings = []
    for code, subtype in info.subtypes.items():
        if not subtype.sign:
            continue
        valences = table.filter(pc.equal(table["subtype"], code))["valence"].drop_null()
        other = pc.greater(valences, 50) if subtype.sign < 0 else pc.less(valences, 50)
        n_other = pc.sum(other).as_py() or 0
        if n_other:
            side = "positive" if subtype.sign < 0 else "negative"
            text = f"{n_other} of {len(valences)} in {code} ({subtype.name}) are rated on the {side} side"
            findings.append(Finding("against_sign", text))
    return findings


def find_undecided(table: pa.Table, emotions: list[str]) -> list[Finding]:
    """Count the pictures without a dominant emotion though raters chose some: a tie, or no majority."""
    if not emotions:
        return []
    felt = pc.max_element_wise(*(table[f"emotion_{name}"] for name in emotions))
    undecided = pc.and_(pc.is_null(table["emotion"]), pc.greater(felt, 0))
    n = pc.sum(undecided).as_py() or 0
    text = f"{n} of {len(table)} have no dominant emotion: a tie, or no majority"
    return [Finding("undecided", text)] if n else []
