"""The tables of a release: every column of every source row, however few rows are held at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from affectdata.manifest.manifest import Manifest, load_manifest, write_manifest
from affectdata.plan.plan import Plan
from affectdata.plan.planner import plan_release
from affectdata.release import write as writing
from affectdata.release.journal import _BATCH, _batches
from affectdata.schema import RENDERED
from affectdata.store import parquet
from affectdata.store.parquet import read_parts
from tests.made import image_id, make_manifest, make_recipe, make_rows


def stored(folder: Path, source: str, n: int, emotions: list[str], first: int = 0) -> Manifest:
    """A manifest in a file: n images, some with emotions."""
    rows: list[dict[str, Any]] = [
        {
            "key": f"{first + at}",
            "source": source,
            "source_id": f"{source}-{at}",
            "valence": at * 7 % 100 + 0.5,
            "subtype": "AP"[at % 2],
            "arousal": None if at % 3 else 10.0 + at,
            "license": None if at % 5 == 0 else "CC0",
            **{f"emotion_{name}": at / n for name in emotions},
        }
        for at in range(n)
    ]
    table = make_rows(rows, emotions).sort_by("image_id")
    document = {**make_manifest(table).metadata, "emotions": emotions}
    write_manifest(table, document, folder / f"{source}.parquet")
    return load_manifest(folder / f"{source}.parquet")


def rendered(plan: Plan) -> pa.Table:
    """Invented results of rendering."""
    n = len(plan.table)
    names = [f"train/{key}.jpg" for key in plan.table["sample_id"].to_pylist()]
    columns = [plan.table["sample_id"], names, ["0" * 64] * n, range(n), [8] * n, [9] * n]
    return pa.table(columns, schema=RENDERED)


@pytest.mark.slow
@pytest.mark.parametrize("held", [3, 7, 1000])
@pytest.mark.parametrize("where", [None, "valence < 80"])
def test_a_release_has_every_column_of_its_source_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, where: str | None
) -> None:
    manifests = [stored(tmp_path, "gaped", 40, ["joy"]), stored(tmp_path, "other", 30, ["awe"], first=40)]
    filling = stored(tmp_path, "spare", 60, [], first=30)  # shares images with both
    recipe = make_recipe(where=where, balance={"level": 30, "max_copies": 3, "fill_from": ["spare"]})
    rows, plan = plan_release(manifests, [filling], recipe)
    every = [*manifests, filling]
    monkeypatch.setattr(parquet, "STREAM_ROWS", held)
    schema = writing._schema(every, rows, plan)
    files = read_parts(rendered(plan))
    parts = list(writing._iter_rows(every, rows, plan, files, schema))
    assert max(map(len, parts)) == min(held, len(plan.table))
    found = pa.concat_tables(part.cast(schema) for part in parts).to_pylist()
    source = {
        (row["image_id"], row["source"]): row for manifest in every for row in manifest.table.to_pylist()
    }
    assert len({row["source"] for row in found}) == 3
    assert max(row["copy"] for row in found) == 2
    for row, planned in zip(found, plan.table.to_pylist(), strict=True):
        own = source[row["image_id"], row["source"]]
        given = {name: own.get(name) for name in schema.names if name in rows.column_names + list(own)}
        decided = {**given, "split": "train", "group_id": row["group_id"], **planned}
        assert {name: row[name] for name in decided} == decided
        assert row.get("emotion_joy") == own.get("emotion_joy")


def test_a_batch_never_splits_the_rows_of_an_image() -> None:
    """So each image is decoded once; nothing is lost, and batches stay small."""
    ids = [image_id(str(at)) for at in range(60) for _ in range(at % 8 + 1)]
    for column in (pa.array(ids), pa.array(ids).dictionary_encode()):
        table = pa.table({"image_id": column, "row": range(len(ids))})
        batches = list(_batches(table))
        assert [row for batch in batches for row in batch["row"].to_pylist()] == list(range(len(ids)))
        seen = [set(batch["image_id"].to_pylist()) for batch in batches]
        assert sum(map(len, seen)) == 60
        assert all(_BATCH <= len(batch) < _BATCH + 8 for batch in batches[:-1])
    assert list(_batches(table.slice(0, 0))) == []
    assert pc.sum(pa.array([len(batch) for batch in _batches(table.slice(3, 50))])).as_py() == 50
