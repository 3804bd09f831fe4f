"""Tables of votes beside generated images, and the result of ingesting them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from affectdata.manifest.ingest import IngestResult, ingest
from affectdata.reading.sample import draw_image


@pytest.fixture
def read_votes(tmp_path: Path) -> Callable[..., tuple[IngestResult, pd.DataFrame]]:
    """Ingest a table (text, bytes or a DataFrame) by a map; return the result and the rows by path."""

    def call(
        table: str | bytes | pd.DataFrame,
        images: list[str],
        file: str = "votes.csv",
        strict: bool = False,
        **keys: Any,
    ) -> tuple[IngestResult, pd.DataFrame]:
        root = tmp_path / f"tree {len(list(tmp_path.glob('tree *')))}"
        root.mkdir()
        for number, name in enumerate(images):
            buffer = io.BytesIO()
            Image.fromarray(draw_image(np.random.default_rng(number), 50.0, 64, 48)).save(buffer, "JPEG")
            (root / name).write_bytes(buffer.getvalue())
        content = table.to_csv(index=False) if isinstance(table, pd.DataFrame) else table
        (root / file).write_bytes(content.encode() if isinstance(content, str) else content)
        column_map = {"name": "votes", "table": file, "key": "file", **keys}
        (root / "columns.yaml").write_text(yaml.safe_dump(column_map, sort_keys=False), encoding="utf-8")
        result = ingest(root, out=root.with_name(f"out of {root.name}"), workers=1, strict=strict)
        assert sum(result.counts.values()) == result.n_seen
        rows = result.manifest.to_pandas().set_index("path").sort_index()
        words = rows.select_dtypes(exclude="number").astype(object)
        return result, rows.assign(**words.where(words.notna(), None))

    return call
