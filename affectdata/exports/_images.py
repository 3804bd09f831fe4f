"""Image files in one folder beside a table that `ingest` reads, for formats with their labels in JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from affectdata.exports._job import Job
from affectdata.hashing import canonical_json

METADATA = "metadata.parquet"  # the name that Hugging Face and `ingest` look for


def write_images(job: Job, parts: Iterable[pa.Table], folder: Path) -> Iterator[dict[str, Any]]:
    """Write the images of `parts` into a new folder with a table of their rows; yield every row.

    `file_name` is the name of the image in the folder, in the table and in the rows. Columns that the release
    does not have are in the rows only.
    """
    folder.mkdir()
    names = job.release.rows.schema.names
    with pq.ParquetWriter(folder / METADATA, job.release.rows.schema) as table:

        def write_rows() -> Iterator[pa.Table]:
            for part in parts:
                files = pc.binary_join_element_wise(part["sample_id"], job.recipe.image.suffix, "")
                table.write_table(with_files(part.select(names), files))
                yield part

        for row, data in job.images(write_rows()):
            row["file_name"] = row["sample_id"] + job.recipe.image.suffix
            (folder / row["file_name"]).write_bytes(data)
            yield row


def with_files(part: pa.Table, files: pa.ChunkedArray) -> pa.Table:
    """Replace the column `file_name`."""
    at = part.schema.get_field_index("file_name")
    return part.set_column(at, part.schema.field(at), files)


def write_records(
    path: Path, records: Iterable[Mapping[str, Any]], before: str = "", after: str = ""
) -> None:
    """Write a JSON list with a line per record; `before` and `after` it, what makes it a document."""
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{before}[")
        for n, record in enumerate(records):
            file.write(f"{',' if n else ''}\n{canonical_json(record)}")
        file.write(f"\n]{after}\n")
