"""Croissant metadata (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html) of a release.

    croissant.json    belongs into the folder of the release: file names in it are relative to that

It describes the table of all rows, column by column, and the images; it contains neither. Whoever publishes
the release adds `creator`, `version` and `url`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from affectdata.exports._job import Job
from affectdata.store.files import hash_file
from affectdata.store.parquet import distinct, write_json

HAS_IMAGES = False
HAS_CLASSES = False
_CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
_CROISSANT_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet"),
    *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
    *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
    "transform",
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _CROISSANT_TERMS},
}
_TABLE = "manifest.parquet"  # its id in the document, wherever the file is
_MIME = {".jpg": "image/jpeg", ".png": "image/png"}


def export(job: Job, folder: Path) -> None:
    """Write `croissant.json`."""
    write_json(folder / "croissant.json", describe(job))


def describe(job: Job) -> dict[str, Any]:
    """Return the JSON-LD document."""
    release, info = job.release, job.release.info
    sources = info["manifests"]
    titles = ", ".join(source["title"] for source in sources)
    data = release.path / release.table_file
    table = {
        "@type": "cr:FileObject",
        "@id": _TABLE,
        "name": _TABLE,
        "contentUrl": release.table_file,
        "contentSize": f"{data.stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": hash_file(data),
    }
    rows = {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        "description": "One row per released image; copy 0 is the original.",
        "key": {"@id": "rows/sample_id"},
        "field": [_field(column) for column in release.rows.schema],
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS_TO,
        "name": release.name,
        "description": f"Images with ratings from {titles}, levelled on {info['target']}: "
        f"{info['originals']} originals, {info['copies']} copies.",
        "license": [source["license"] for source in sources],
        "citeAs": " / ".join(source["citation"] for source in sources),
        "isBasedOn": [source["url"] for source in sources if source["url"]],
        "datePublished": info["created"],
        "distribution": [table, *([] if release.is_virtual else [_images(job)])],
        "recordSet": [rows, *([] if release.is_virtual else [_IMAGES])],
    }


def _field(column: pa.Field) -> dict[str, Any]:
    kind = "sc:Float" if pa.types.is_floating(column.type) else "sc:Text"
    return {
        "@type": "cr:Field",
        "@id": f"rows/{column.name}",
        "name": column.name,
        "dataType": "sc:Integer" if pa.types.is_integer(column.type) else kind,
        "source": {"fileObject": {"@id": _TABLE}, "extract": {"column": column.name}},
    }


def _images(job: Job) -> dict[str, Any]:
    suffix = job.recipe.image.suffix
    return {
        "@type": "cr:FileSet",
        "@id": "files",
        "name": "files",
        "encodingFormat": _MIME[suffix],
        "includes": [f"{split}/*{suffix}" for split in distinct(job.release.rows, "split")],
    }


_IMAGES = {
    "@type": "cr:RecordSet",
    "@id": "pictures",
    "name": "pictures",
    "description": "The images, by the name of their file without its folder.",
    "field": [
        {
            "@type": "cr:Field",
            "@id": f"pictures/{name}",
            "name": name,
            "dataType": data_type,
            "source": {"fileSet": {"@id": "files"}, "extract": {"fileProperty": file_property}},
        }
        for name, data_type, file_property in (
            ("name", "sc:Text", "filename"),
            ("image", "sc:ImageObject", "content"),
        )
    ],
}
