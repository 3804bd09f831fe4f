"""A FiftyOneDataset folder, for `fiftyone.Dataset.from_dir(dataset_type=fiftyone.types.FiftyOneDataset)`.

data/<sample_id>.jpg     the images; beside them `metadata.parquet`, by which `ingest` reads them back
samples.json             {"samples": […]}, a sample per image: `filepath`, tags (split; original or
                         copy), size,
                         the class as `ground_truth` (Classification), every other column as a field
metadata.json            media type and dataset info: name, classes

Layout: https://docs.voxel51.com/user_guide/import_datasets.html#fiftyonedataset. FiftyOne itself writes dumps
of its database with a `version`. Without `version`, as here, it reads samples as `Sample.to_dict()` gives
them, which need no ids of a database. A field that is null in all samples is not created.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from affectdata.exports._images import write_images, write_records
from affectdata.exports._job import Job
from affectdata.exports._order import CLASS, NOT_LABELS, rows_with_classes
from affectdata.release.card import SPLIT_NAMES
from affectdata.store.atomic import write_json

HAS_IMAGES = True
HAS_CLASSES = True
_DATA = "data"
_OTHERWISE = {"split", "out_width_px", "out_height_px", CLASS} | NOT_LABELS  # columns not written as fields


def export(job: Job, folder: Path) -> None:
    """Write the images and their samples, then the metadata."""
    names = job.known_classes.names if job.known_classes else []
    rows = write_images(job, rows_with_classes(job), folder / _DATA)
    samples = (_sample(row, names, job.recipe.image.format) for row in rows)
    write_records(folder / "samples.json", samples, before='{"samples": ', after="}")
    info = {
        "name": job.release.info["name"],
        **({"classes": {"ground_truth": names}} if names else {}),
    }
    write_json(folder / "metadata.json", {"media_type": "image", "info": info})


def notes(job: Job) -> list[str]:
    """Return how to load it."""
    return [
        "## Use",
        "",
        "```python",
        "import fiftyone",
        "",
        "dataset = fiftyone.Dataset.from_dir(path, dataset_type=fiftyone.types.FiftyOneDataset)",
        "fiftyone.launch_app(dataset)",
        "```",
    ]


def _sample(row: dict[str, Any], names: list[str], image_format: str) -> dict[str, Any]:
    code = row[CLASS]
    return {
        "filepath": f"{_DATA}/{row['file_name']}",
        "tags": [SPLIT_NAMES[row["split"]], "copy" if row["copy"] else "original"],
        "metadata": {
            "_cls": "ImageMetadata",
            "size_bytes": row["file_bytes"],
            "mime_type": f"image/{image_format}",
            "width": row["out_width_px"],
            "height": row["out_height_px"],
            "num_channels": 3,
        },
        "ground_truth": None if code is None else {"_cls": "Classification", "label": names[code]},
        **{name: value for name, value in row.items() if name not in _OTHERWISE},
    }
