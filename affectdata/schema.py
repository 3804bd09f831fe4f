"""The tables that other programs rely on: columns, types, units. Change them here and nowhere else.

Every column is a flat scalar, so that pandas, DuckDB, Polars, R, Spark and Hugging Face read the files
without this package.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

# Columns of hexadecimal digits, and how many.
DIGITS = {"image_id": 64, "pixel_id": 32, "phash": 16, "phash_views": 7 * 16, "group_id": 64}

SCHEMA_VERSION = 2  # docs/formats.md lists what changed
METADATA_KEY = b"affectdata"  # the one key of file-level metadata; its value is JSON

_S, _F, _I32, _I64 = pa.string(), pa.float64(), pa.int32(), pa.int64()


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_POMP, _SHARE, _PX = "POMP, 0–100", "share, 0–1", "px"
_DESCRIPTIONS: dict[str, dict[str, str | None]] = {}  # of a manifest's columns, filled where they are defined


def _column(
    name: str, kind: pa.DataType, description: str, *, unit: str | None = None, required: bool = False
) -> pa.Field:
    _DESCRIPTIONS[name] = {"unit": unit, "description": description}
    return pa.field(name, kind, nullable=not required)


def _rating(name: str) -> list[pa.Field]:
    return [
        _column(name, _F, "the source's scale as 0–100, 50 = its midpoint; to 6 decimals", unit=_POMP),
        _column(f"{name}_sd", _F, "standard deviation over raters", unit=_POMP),
        _column(f"{name}_n", _I32, "number of raters"),
        _column(f"{name}_raw", _F, "as the source states it, on its own scale"),
        _column(f"{name}_min", _F, "lowest value of the source's scale"),
        _column(f"{name}_max", _F, "highest value of the source's scale"),
    ]


# Image quality: of the grey image at 32 × 32 pixels, but for sharpness. Earlier manifests lack these columns.
QUALITY = [
    _column("brightness", _F, "mean grey; black is 0, white 1"),
    _column("brightness_p05", _F, "5th percentile of grey: near 1 only where all is bright"),
    _column("brightness_p99", _F, "99th percentile of grey: near 0 only where all is dark"),
    _column("entropy", _F, "of the grey levels, 0–8: low where there is little to see", unit="bits"),
    _column("sharpness", _F, "differences of near pixels relative to far ones; below .033: blurred"),
]

_IMAGE = [
    _column("image_id", _S, "SHA-256 of the file (table row: as a PGM), 64 hex digits; key", required=True),
    _column("pixel_id", _S, "xxh3-128 over mode, size and RGB pixels, 32 hex digits", required=True),
    _column("phash", _S, "imagehash.phash of the decoded image, 16 hex digits", required=True),
    _column("phash_views", _S, "the same of its seven other flips and turns, 7 × 16 digits", required=True),
    _column("source", _S, "registered source", required=True),
    _column("source_id", _S, "the source's own key", required=True),
    _column(
        "path", _S, "POSIX path relative to the source's root; image N inside a file: FILE#N", required=True
    ),
    _column("format", _S, "container as decoded, not as named: jpeg, png, bmp, …", required=True),
    _column("bytes", _I64, "size of the file", unit="bytes", required=True),
    _column("width_px", _I32, "after the EXIF turn", unit=_PX, required=True),
    _column("height_px", _I32, "after the EXIF turn", unit=_PX, required=True),
    _column("decode_warning", _S, "message of the decoder if it warned but finished"),
    *QUALITY,
    _column("subtype", _S, "the source's content category"),
]

_LABELS_BEFORE_EMOTIONS = [
    *_rating("valence"),
    *_rating("arousal"),
    *_rating("dominance"),
    _column("emotion", _S, "dominant category: the source's word in our spelling"),
]

_LABELS_AFTER_EMOTIONS = [
    _column("agreement", _F, "raters who chose the dominant emotion", unit=_SHARE),
    _column("extra", _S, "canonical JSON of every other column of the source's table", required=True),
    _column("subject_id", _S, "person depicted"),
    _column("artist", _S, "artist of a painting"),
    _column("theme", _S, "what the source calls its theme: a motif, the style of a painting"),
    _column("age", pa.int16(), "of the person depicted", unit="years"),
    _column("age_group", _S, "of the person depicted"),
    _column("gender", _S, "of the person depicted"),
    _column("ethnicity", _S, "of the person depicted"),
    _column("group_id", _S, "smallest image_id of what must stay in one split together", required=True),
    _column("split", _S, "train, val or test; null if none was assigned"),
    _column("license", _S, "terms of the image"),
    _column("attribution", _S, "whom to name"),
    _column("url", _S, "where the image was published"),
    _column("content_tags", _S, "sensitive content, comma-separated"),
]


# After `split`, if the recipe has folds: 0, 1, … in train; null in val and test, and for images of
# other sources that fill bins, which are always trained on.
FOLD = _column("fold", _I32, "fold of train, from 0; null in val and test")


# After `agreement`, if any image has it.
AGREEMENT_N = _column("agreement_n", _I32, "votes behind the agreement and the shares")
INTENSITY = "intensity_"


def vote_columns(names: Iterable[str]) -> list[str]:
    """Return the names of optional columns: `agreement_n`, and the columns of intensities."""
    return sorted(name for name in names if name == AGREEMENT_N.name or name.startswith(INTENSITY))


def manifest_schema(
    emotions: Iterable[str] = (), folds: bool = False, votes: Iterable[str] = ()
) -> pa.Schema:
    """Return the columns of a manifest, one row per image, sorted by `image_id`.

    `emotions` are the source's emotions; each has a column `emotion_<name>`: share of raters, 0–1. With
    `folds` there is a column `fold`. `votes` are optional columns: `agreement_n`, and `intensity_<name>`, the
    mean intensity of an emotion from 0 to 100 (POMP: the source's scale, which is in the metadata).
    """
    shares = [_column(f"emotion_{name}", _F, "raters who chose it", unit=_SHARE) for name in sorted(emotions)]
    shares += [
        _column(name, _F, "mean intensity, the source's scale as 0–100", unit=_POMP)
        for name in sorted(votes)
        if name != AGREEMENT_N.name
    ]
    after = [*_LABELS_AFTER_EMOTIONS[:1], *([AGREEMENT_N] if AGREEMENT_N.name in votes else [])]
    schema = pa.schema(_IMAGE + _LABELS_BEFORE_EMOTIONS + shares + after + _LABELS_AFTER_EMOTIONS[1:])
    return schema.insert(schema.get_field_index("split") + 1, FOLD) if folds else schema


def describe_manifest() -> dict[str, Any]:
    """Return the columns of a manifest with types, units and descriptions, as plain data."""
    columns = [
        {
            "name": field.name,
            "type": str(field.type),
            "required": not field.nullable,
            **_DESCRIPTIONS[field.name],
        }
        for field in manifest_schema(["NAME"], folds=True)
    ]
    return {"schema_version": SCHEMA_VERSION, "columns": columns}


# One row per thing under the source's root that is not a row of the manifest.
REJECTS = pa.schema(
    [
        _required("path", _S),  # file, or table and key for a rating row without a file
        _required("reason", _S),  # a value of records.Reason
        _required("detail", _S),  # for a person
    ]
)

# One row per pair of images that must stay together because they look alike.
EDGES = pa.schema(
    [
        _required("image_id_a", _S),  # the smaller of the two
        _required("image_id_b", _S),
        _required("kind", _S),  # same_pixels or near_duplicate
        _required("distance_bits", _I32),  # Hamming distance of the pHashes, best of the eight views
        _required("view", _S),  # flip or turn of the second image at that distance
    ]
)

# One row per image that ever had a split, whether or not it is a row of the manifest; sorted by `image_id`.
LEDGER = pa.schema(
    [
        *_IMAGE[:7],  # image_id … path, as when it was last a row
        *(pa.field(name, _S) for name in ("subject_id", "artist", "theme")),
        _required("group_id", _S),
        _required("split", _S),
        FOLD,
    ]
)

# One row per image that `download` requested.
DOWNLOADS = pa.schema(
    [
        _required("path", _S),  # key: POSIX path relative to the folder that it was to lie in
        _required("url", _S),  # that it came from, or the last one tried
        _required("status", _S),  # `fetch.Status`
        pa.field("bytes", _I64),  # of an image that was fetched
        pa.field("sha256", _S),
        pa.field("error", _S),  # why there is no image
        _required("attempts", _I32),  # over all runs
    ]
)

# One row per image to release; where rows have a `fold`, it is the last column.
PLAN = pa.schema(
    [
        _required("sample_id", _S),  # key: first 16 hex digits of image_id, "-", copy
        _required("image_id", _S),  # the image it is made from
        _required("split", _S),
        _required("cell", _S),  # balance cell, e.g. "valence=[0,10)|subtype=A"
        _required("copy", _I32),  # 0 = the original
        _required("pipeline", _S),  # empty for an original
        _required("seed", _I64),  # 0–2⁶³-1; every draw for this row comes from it
        _required("weight", _F),  # sampling weight
    ]
)

# What a release adds to the columns of the manifest (beside those of the plan), one row per image.
_RENDERED = [
    _required("file_name", _S),  # POSIX path inside the release
    _required("file_sha256", _S),
    _required("file_bytes", _I64),
    _required("out_width_px", _I32),
    _required("out_height_px", _I32),
]

# What `render` reports per row of the plan.
RENDERED = pa.schema([PLAN.field("sample_id"), *_RENDERED])


def release_schema(manifest: pa.Schema) -> pa.Schema:
    """Return the columns of a release: the plan's, the files', then every column of the source's row."""
    own = [*PLAN, *_RENDERED]
    names = {field.name for field in own}
    return pa.schema(own + [field for field in manifest if field.name not in names])
