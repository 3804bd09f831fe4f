"""The Parquet files open in other tools with no help of ours, with the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from affectdata.manifest.ingest import ingest
from affectdata.manifest.manifest import load_manifest


@pytest.fixture(scope="module")
def path(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("manifests")
    ingest(small_gaped, out=out)
    return out / "gaped.parquet"


@pytest.fixture(scope="module")
def rows(path: Path) -> list[dict[str, Any]]:
    return list(load_manifest(path).table.to_pylist())


def test_pyarrow(path: Path, rows: list[dict[str, Any]]) -> None:
    assert pq.read_table(path).to_pylist() == rows


def test_polars(path: Path, rows: list[dict[str, Any]]) -> None:
    assert pl.read_parquet(path).to_dicts() == rows


def test_duckdb(path: Path, rows: list[dict[str, Any]]) -> None:
    answer = duckdb.sql(f"SELECT * FROM '{path}' ORDER BY image_id")
    assert [dict(zip(answer.columns, row, strict=True)) for row in answer.fetchall()] == rows


def test_pandas(path: Path, rows: list[dict[str, Any]]) -> None:
    frame = pd.read_parquet(path)
    got = frame.astype(object).where(frame.notna(), None).to_dict("records")
    assert got == rows


def test_the_rejects_and_edges_open_too(path: Path) -> None:
    for name in ("rejects", "edges"):
        other = path.with_suffix(f".{name}.parquet")
        assert len(pd.read_parquet(other)) == len(pl.read_parquet(other)) == pq.read_table(other).num_rows > 0
