"""The rows of several manifests, one after the other, read in parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from affectdata.manifest.manifest import Manifest
from affectdata.schema import manifest_schema
from affectdata.store.parquet import read_parts


def read_columns(manifests: Sequence[Manifest], names: Sequence[str]) -> pa.Table:
    """Return columns that all manifests have, of all rows."""
    none = manifest_schema([]).empty_table().select(names)
    return pa.concat_tables([none, *(manifest.rows.select(names) for manifest in manifests)])


def read_rows(manifests: Sequence[Manifest], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield all rows with the columns of a schema; those that a manifest does not have are null."""
    for manifest in manifests:
        for part in read_parts(manifest.rows):
            for field in schema:
                if field.name not in part.column_names:
                    part = part.append_column(field, pa.nulls(len(part), field.type))
            yield part.select(schema.names).cast(schema)
