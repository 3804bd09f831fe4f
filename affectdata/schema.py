"""The tables that other programs rely on: columns, types, units. Change them here and nowhere else.

Every column is a flat scalar, so that pandas, DuckDB, Polars, R, Spark and Hugging Face read the files
without this package.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

# Columns of hexadecimal digits, and how many.
DIGITS = {"image_id": 64, "pixel_id": 32, "phash": 16, "phash_views": 7 * 16, "group_id": 64}

SCHEMA_VERSION = 2  # docs/formats.md lists what changed
METADATA_KEY = b"affectdata"  # the one key of file-level metadata; its value is JSON

_S, _F, _I32, _I64 = pa.string(), pa.float64(), pa.int32(), pa.int64()


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


def _rating(name: str) -> list[pa.Field]:
    return [
        pa.field(name, _F),  # POMP: the source's scale as 0–100, 50 = its midpoint; rounded to 6 decimals
        pa.field(f"{name}_sd", _F),  # spread over raters, same unit
        pa.field(f"{name}_n", _I32),  # raters
        pa.field(f"{name}_raw", _F),  # as the source states it, on the scale from …
        pa.field(f"{name}_min", _F),  # … here …
        pa.field(f"{name}_max", _F),  # … to here
    ]


# Image quality: of the grey image at 32 × 32 pixels, but for sharpness. Earlier manifests lack these columns.
QUALITY = [
    pa.field("brightness", _F),  # mean; black is 0, white 1
    pa.field("brightness_p05", _F),  # 5th percentile: near 1 only in an image that is bright everywhere
    pa.field("brightness_p99", _F),  # 99th percentile: near 0 only in an image that is dark everywhere
    pa.field("entropy", _F),  # of the grey levels, in bits, 0–8: low where there is little to see
    pa.field("sharpness", _F),  # differences of near pixels to those of far ones; below .033: blurred
]

_IMAGE = [
    _required("image_id", _S),  # key: SHA-256 of the file's bytes (of a table's row: as a PGM), 64 hex digits
    _required("pixel_id", _S),  # xxh3-128 over mode, size and RGB pixels, 32 hex digits
    _required("phash", _S),  # imagehash.phash of the decoded image, 16 hex digits
    _required("phash_views", _S),  # the same for its seven other flips and turns, 7 × 16 hex digits
    _required("source", _S),  # registered source
    _required("source_id", _S),  # the source's own key
    _required("path", _S),  # POSIX path relative to the source's root; `TABLE.csv#N`: see image_bytes.py
    _required("format", _S),  # container as decoded, not as named: jpeg, png, bmp, …
    _required("bytes", _I64),  # size of the file
    _required("width_px", _I32),  # after the EXIF turn
    _required("height_px", _I32),
    pa.field("decode_warning", _S),  # the decoder's words where it warned and yet finished
    *QUALITY,
    pa.field("subtype", _S),  # the source's content category
]

_LABELS_BEFORE_EMOTIONS = [
    *_rating("valence"),
    *_rating("arousal"),
    *_rating("dominance"),
    pa.field("emotion", _S),  # dominant category: the source's word in our spelling
]

_LABELS_AFTER_EMOTIONS = [
    pa.field("agreement", _F),  # share of raters on the dominant emotion, 0–1
    _required("extra", _S),  # canonical JSON of every other column of the source's table, verbatim
    pa.field("subject_id", _S),  # person depicted
    pa.field("artist", _S),
    pa.field("theme", _S),
    pa.field("age", pa.int16()),  # years, of the person depicted
    pa.field("age_group", _S),
    pa.field("gender", _S),
    pa.field("ethnicity", _S),
    _required("group_id", _S),  # smallest image_id of what must stay in one split together
    pa.field("split", _S),  # train, val or test
    pa.field("license", _S),
    pa.field("attribution", _S),
    pa.field("url", _S),
    pa.field("content_tags", _S),  # sensitive content, comma-separated
]


# After `split`, if the recipe has folds: 0, 1, … in train; null in val and test, and for images of
# other sources that fill bins, which are always trained on.
FOLD = pa.field("fold", _I32)


def manifest_schema(emotions: Iterable[str] = (), folds: bool = False) -> pa.Schema:
    """Return the columns of a manifest, one row per image, sorted by `image_id`.

    `emotions` are the source's emotions; each has a column `emotion_<name>`: share of raters, 0–1. With
    `folds` there is a column `fold`.
    """
    shares = [pa.field(f"emotion_{name}", _F) for name in sorted(emotions)]
    schema = pa.schema(_IMAGE + _LABELS_BEFORE_EMOTIONS + shares + _LABELS_AFTER_EMOTIONS)
    return schema.insert(schema.get_field_index("split") + 1, FOLD) if folds else schema


# One row per thing under the source's root that is no row of the manifest.
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
