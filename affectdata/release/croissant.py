"""Croissant metadata (https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html) of a release.

It describes the table of all rows, column by column, the splits, and the images if the release has files.
File names in it are relative to its own folder. It has no date, so that equal releases have equal bytes:
whoever publishes the release adds `creator`, `datePublished` and `url`, and raises `version` as
`affectdata diff` says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from affectdata.schema import describe_manifest
from affectdata.store.files import hash_file

CROISSANT_FILE = "croissant.json"
_CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
_CROISSANT_TERMS = (
    *("arrayShape", "containedIn", "isArray"),
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
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _CROISSANT_TERMS},
}
_TABLE = "manifest.parquet"  # its id in the document, wherever the file is
_MIME = {".jpg": "image/jpeg", ".png": "image/png"}
_SPLITS = {"train": "cr:TrainingSplit", "val": "cr:ValidationSplit", "test": "cr:TestSplit"}
_CC = re.compile(r"CC BY((?:-NC)?(?:-SA|-ND)?) (\d\.\d)")


def describe(
    info: dict[str, Any], schema: pa.Schema, table: Path, table_file: str, suffix: str | None
) -> dict[str, Any]:
    """Return the JSON-LD document; `suffix` is that of the images beside it, None if there are none.

    `info` is release.json, `schema` and `table` are those of all rows, `table_file` is the name of the table
    from the folder of the document.
    """
    sources, splits = info["manifests"], sorted(split for split, n in info["rows"].items() if n)
    titles = ", ".join(source["title"] for source in sources)
    rows = {
        "@type": "cr:RecordSet",
        "@id": "rows",
        "name": "rows",
        "description": "One row per released image; copy 0 is the original.",
        "key": {"@id": "rows/sample_id"},
        "field": [_field(column) for column in schema],
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS_TO,
        "name": f"{info['name']}-{info['id'][:8]}",
        "version": "1.0.0",
        "description": f"Images with ratings from {titles}, levelled on {info['target']}: "
        f"{info['originals']} originals, {info['copies']} copies.",
        "license": [line for source in sources for line in license_urls(source["license"])],
        "citeAs": " / ".join(source["citation"] for source in sources),
        "isBasedOn": [source["url"] for source in sources if source.get("url")],
        "rai:dataPreprocessingProtocol": "Images are resized; copies in train are augmented by the pipelines "
        "of recipe.yaml, each from the seed in its row.",
        "rai:dataLimitations": "Copies add no information about rare cells. Ratings are those of the raters "
        "of each source, who may not agree with others.",
        "distribution": [_file(table, table_file), *([_images(splits, suffix)] if suffix else [])],
        "recordSet": [_splits(splits), rows, *([_IMAGES] if suffix else [])],
    }


def license_urls(license_: str) -> list[str]:
    """Return the address of a licence that has one, and its text where that says more.

    >>> license_urls("CC BY-NC-SA 3.0, research only")
    ['https://creativecommons.org/licenses/by-nc-sa/3.0/', 'CC BY-NC-SA 3.0, research only']
    """
    if license_ == "CC0 1.0":
        return ["https://creativecommons.org/publicdomain/zero/1.0/"]
    match = _CC.search(license_)
    if not match:
        return [license_]
    url = f"https://creativecommons.org/licenses/by{match[1].lower()}/{match[2]}/"
    return [url] if match[0] == license_ else [url, license_]


def _file(table: Path, table_file: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": _TABLE,
        "name": _TABLE,
        "contentUrl": table_file,
        "contentSize": f"{table.stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": hash_file(table),
    }


def _splits(splits: Sequence[str]) -> dict[str, Any]:
    names = ("name", "url")
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "Only train has augmented copies; look-alikes are in one split.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [
            {"@type": "cr:Field", "@id": f"splits/{name}", "name": name, "dataType": "sc:Text"}
            for name in names
        ],
        "data": [{"splits/name": split, "splits/url": _SPLITS[split]} for split in splits],
    }


def _field(column: pa.Field) -> dict[str, Any]:
    kind = "sc:Float" if pa.types.is_floating(column.type) else "sc:Text"
    described = _DESCRIPTIONS.get(column.name)
    return {
        "@type": "cr:Field",
        "@id": f"rows/{column.name}",
        "name": column.name,
        **({"description": described} if described else {}),
        "dataType": "sc:Integer" if pa.types.is_integer(column.type) else kind,
        "source": {"fileObject": {"@id": _TABLE}, "extract": {"column": column.name}},
        **({"references": {"field": {"@id": "splits/name"}}} if column.name == "split" else {}),
    }


_DESCRIPTIONS = {column["name"]: column["description"] for column in describe_manifest()["columns"]}


def _images(splits: Sequence[str], suffix: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": "files",
        "name": "files",
        "encodingFormat": _MIME[suffix],
        "includes": [f"{split}/*{suffix}" for split in splits],
    }


_IMAGES = {
    "@type": "cr:RecordSet",
    "@id": "images",
    "name": "images",
    "description": "The images, by the name of their file without its folder.",
    "field": [
        {
            "@type": "cr:Field",
            "@id": f"images/{name}",
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
