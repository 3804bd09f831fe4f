"""FER+: votes and pixels joined by row, whatever the image names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affectdata.errors import SourceError
from affectdata.manifest.manifest import load_manifest
from affectdata.sources.ferplus import write_sample

VOTES = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
LINES = [
    "Training,fer0000000.png,7,1,0,0,0,0,0,0,2,0",
    "PublicTest,fer0000007.png,0,4,4,0,0,0,0,0,1,0",  # nine votes, a tie, and a name that is no row
    "PrivateTest,,0,0,0,0,0,0,0,0,0,10",
    "Training,fer0000007.png,1,1,0,0,0,0,0,0,8,0",
    "Training,fer0000009.png,0,0,0,0,0,0,0,0,0,10",
    "Training,fer0000010.png,one,0,0,0,0,0,0,0,0,9",
]


def grow(plant: Callable[..., Path], lines: list[str], n_faces: int | None = None) -> Path:
    rng = np.random.default_rng(0)
    faces = ["emotion,pixels,Usage"]
    for line in lines[:n_faces]:
        pixels = " ".join(map(str, rng.integers(0, 256, 48 * 48)))
        faces.append(f'3,"{pixels}",{line.split(",")[0]}')
    return plant({"data/fer2013.csv": "\r\n".join(faces), "fer2013new.csv": "\n".join([VOTES, *lines])})


def test_votes_are_shares_by_row(plant: Callable[..., Path], take: Callable[..., Any]) -> None:
    outcome = take(grow(plant, LINES))
    first, tied, unknown = (outcome.rows[f"data/fer2013.csv#{row}"] for row in (0, 1, 3))
    assert (first["emotion"], first["agreement"], first["emotion_happiness"]) == ("neutral", 0.7, 0.1)
    assert (first["split"], first["source_id"], first["format"]) == ("train", "0", "ppm")
    assert (first["width_px"], first["height_px"]) == (48, 48)
    assert (tied["emotion"], tied["emotion_surprise"], tied["split"]) == (None, round(4 / 9, 9), "val")
    assert (unknown["emotion"], unknown["agreement"]) == (None, None)
    assert json.loads(unknown["extra"]) == {
        "Image name": "fer0000007.png",
        "unknown": "8",
        "NF": "0",
        "FER2013 emotion": "3",
    }
    assert outcome.reasons == {
        "data/fer2013.csv#2": "missing_rating",
        "data/fer2013.csv#4": "missing_rating",
        "data/fer2013.csv#5": "bad_rating",
    }
    assert outcome.result.counts == {"kept": 3, "merged": 0, "annotation": 2, "junk": 0, "rejected": 3}


def test_tables_that_do_not_belong_together(plant: Callable[..., Path], take: Callable[..., Any]) -> None:
    with pytest.raises(SourceError, match=r"fer2013\.csv has 3 rows, fer2013new\.csv has 6"):
        take(grow(plant, LINES, 3))
    root = grow(plant, LINES)
    text = (root / "fer2013new.csv").read_text().replace("PublicTest,", "PrivateTest,")
    (root / "fer2013new.csv").write_text(text)
    with pytest.raises(SourceError, match="row 1 has Usage PublicTest"):
        take(root)
    (root / "fer2013new.csv").unlink()
    with pytest.raises(SourceError, match="no table of votes"):
        take(root, "ferplus")


def test_a_second_ingest_decodes_no_pixels(
    take: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from affectdata.manifest import ingest as module

    write_sample(tmp_path / "tree", np.random.default_rng(0))
    first = module.ingest(tmp_path / "tree", out=tmp_path / "m", workers=1)
    monkeypatch.setattr("affectdata.images.probe.decoded", lambda *_: pytest.fail("a row was decoded again"))
    module.ingest(tmp_path / "tree", out=tmp_path / "m", workers=1)
    row = first.manifest.table.to_pylist()[0]
    images = load_manifest(tmp_path / "m" / "ferplus.parquet").images()
    assert images.read("ferplus", row["path"], row["image_id"]).startswith(b"P5\n48 48\n255\n")
