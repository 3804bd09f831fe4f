"""Tables that Hugging Face `datasets` writes are read with their splits and names of classes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from affectdata.manifest.ingest import ingest
from affectdata.reading.sample import draw_image

pytestmark = pytest.mark.slow  # importing it takes seconds


def test_a_table_that_datasets_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / ".home"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, about its own dependencies
        import datasets

        names = ["joy", "fear"]
        features = {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=names),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["indoors", "people"])),
        }
        for split, start in (("train", 0), ("test", 4)):
            images = [Image.fromarray(draw_image(np.random.default_rng(start + at), 50)) for at in range(4)]
            rows = {"image": images, "label": [0, 1, 1, 0], "tags": [[0], [1], [0, 1], []]}
            table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
            (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
            table.to_parquet(str(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet"))
    result = ingest(tmp_path / "set", out=tmp_path / "out", workers=2)
    rows = {row["path"]: row for row in result.manifest.table.to_pylist()}
    assert result.counts == {"kept": 8, "merged": 0, "annotation": 2, "junk": 0, "rejected": 0}
    for split in ("train", "test"):
        found = [rows[f"data/{split}-00000-of-00001.parquet#{number}"] for number in range(4)]
        assert [row["emotion"] for row in found] == ["joy", "fear", "fear", "joy"]
        assert {row["split"] for row in found} == {split}
        assert '"people"' in found[2]["extra"].replace("\\", "")
