"""Croissant metadata of a release and its table of labels, without images (`release.croissant`).

    croissant.json      describes the table, column by column, and the splits
    manifest.parquet    the table of all rows

A release with files has a croissant.json of its own, which describes its images too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from affectdata.exports._job import Job
from affectdata.release.croissant import CROISSANT_FILE, describe
from affectdata.release.release import TABLE_FILE
from affectdata.store.atomic import write_json

HAS_IMAGES = False
HAS_CLASSES = False


def export(job: Job, folder: Path) -> None:
    """Write `croissant.json` and the table."""
    release = job.release
    shutil.copyfile(release.path / release.table_file, folder / TABLE_FILE)
    document = describe(release.info, release.rows.schema, folder / TABLE_FILE, TABLE_FILE, None)
    write_json(folder / CROISSANT_FILE, {**document, "datePublished": release.info["created"]})
