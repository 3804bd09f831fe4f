"""A line of JSON per image, in the file of its split: its name in the release, its class and its valence."""

from __future__ import annotations

import json
from pathlib import Path

from affectdata.exports._job import Job
from affectdata.store.parquet import read_parts

HAS_IMAGES = False  # labels only, so that no terms of images apply
HAS_CLASSES = True


def export(job: Job, folder: Path) -> None:
    """Write `<split>.jsonl`."""
    words, start = job.classes().words(), 0
    for part in read_parts(job.release.rows, ["split", "file_name", "valence"]):
        names = words.slice(start, len(part)).to_pylist()
        for row, name in zip(part.to_pylist(), names, strict=True):
            with (folder / f"{row['split']}.jsonl").open("a", encoding="utf-8") as file:
                file.write(
                    json.dumps({"file": row["file_name"], "class": name, "valence": row["valence"]}) + "\n"
                )
        start += len(part)
