"""Parquet tables that contain their images, as on the Hugging Face hub.

The tables of `datasets.Dataset.push_to_hub`, anywhere under the root:

    data/train-00000-of-00002.parquet …   columns image {bytes, path}, label, …
    README.md                             names of the classes, if the tables have none

Every row is an image; its path is `data/train-00000-of-00002.parquet#N`, N the row from 0, and it has the id
of the bytes that the table contains. The split is the column `split`, else a word in the name of the table or
of its folder. Names of classes are those of the feature `ClassLabel`, in the metadata of the table or in
`dataset_info` of README.md; -1 means no class.

Columns with the names of manifest columns (valence, arousal, dominance with _sd and _n; emotion,
emotion_<name>, subtype, subject_id, …) are used, the others go into `extra`. The class is the first of
emotion, label, labels, class, category and expression, else a `ClassLabel`. A rating needs the columns
`valence_min` and `valence_max` with a single value each; else it stays in `extra`, and a column map can give
its scale: `--source table --map COLUMNS.yaml` with `table: data/*.parquet`. The manifest is named by --name,
by default after the folder.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from affectdata.column_map.columns import MAP_FILE
from affectdata.column_map.embedded import EmbeddedRow, EmbeddedTable, read_described
from affectdata.errors import SourceError
from affectdata.images.packed import image_columns
from affectdata.reading.names import slug
from affectdata.reading.protocol import Reading, ReadOptions
from affectdata.reading.sample import draw_image
from affectdata.reading.tables import value_text
from affectdata.reading.tree import Tree
from affectdata.records import Finding, Reject, SourceInfo
from affectdata.store.files import open_regular

INFO = SourceInfo(
    name="parquet_images",
    title="Parquet tables with embedded images",
    scales={},
    license="not stated",
    citation="none: name the collection that the pictures are from",
    url="https://huggingface.co/docs/datasets/image_dataset",
    layout="<split>-00000-of-00001.parquet with the columns image {bytes, path} and label",
    generic=True,
    takes=("name",),
)
_README = "README.md"
_MAX_README = 1 << 20
_ROWS = 1 << 10  # as Python objects at a time


def detect(tree: Tree) -> str | None:
    """Recognise a tree by a Parquet table with a column of images."""
    tables = [] if MAP_FILE in tree.files else find_image_tables(tree)
    return f"images in {tables[0]}" if tables else None


def read(tree: Tree, options: ReadOptions) -> Reading:
    """Read the tables.

    Raises:
        SourceError: no table contains images.
    """
    paths = find_image_tables(tree)
    if not paths:
        raise SourceError(
            "no Parquet table contains images", where=str(tree.root), fix=f"expected: {INFO.layout}"
        )
    name = slug(options.name or tree.root.resolve().name) or INFO.name
    tables = [open_image_table(tree, path) for path in paths]
    return read_described(tree, INFO, tables, name)


def find_image_tables(tree: Tree) -> list[str]:
    """List the Parquet tables with a column of images."""
    tables = (path for path in tree.others() if path.lower().endswith(".parquet"))
    return [path for path in tables if (schema := _read_schema(tree, path)) and image_columns(schema)]


def _read_schema(tree: Tree, path: str) -> pa.Schema | None:
    try:
        with open_regular(tree.root / path) as file:
            return pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return None


def open_image_table(tree: Tree, path: str) -> EmbeddedTable:
    """Open a table of images.

    Raises:
        SourceError: it cannot be read; so while its rows are read.
    """
    schema = _read_schema(tree, path)
    classes = list(_class_names(tree, schema)) if schema else []
    return EmbeddedTable(path, lambda: _read_rows(tree, path), classes)


def _read_rows(tree: Tree, path: str) -> Iterator[EmbeddedRow | Reject | Finding]:
    tree.note_read(path)
    try:
        with open_regular(tree.root / path) as file:
            table = pq.ParquetFile(file)
            image, *others = image_columns(table.schema_arrow)
            classes = _class_names(tree, table.schema_arrow)
            columns = [name for name in table.schema_arrow.names if name not in (image, *others)]
            kind = table.schema_arrow.field(image).type
            named = (
                [f"{image}.path"] if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 else []
            )
            number = 0
            for batch in table.iter_batches(_ROWS, columns=columns + named):
                for row in batch.to_pylist() if columns + named else [{}] * len(batch):
                    name = (row.pop(image, None) or {}).get("path")
                    cells = {key: _cell(value, classes.get(key)) for key, value in row.items()}
                    yield EmbeddedRow(number, f"{path}#{number}", cells | ({image: name} if name else {}))
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} cannot be read as Parquet: {error}", where=path) from error
    if others:
        yield Finding("unread_images", f"{path} has more columns with images: {', '.join(others)}; not read")


def _cell(value: Any, classes: list[str] | None) -> str:
    """Return a value as text, codes of classes by their names."""
    if classes and isinstance(value, list):
        names = [_cell(code, classes) for code in value]
        return names[0] if len(names) == 1 else json.dumps(names, ensure_ascii=False)
    if classes and isinstance(value, int):
        return classes[value] if 0 <= value < len(classes) else "" if value == -1 else str(value)
    return value_text(value)


def _class_names(tree: Tree, schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of classes by column, from the metadata of a table, else from README.md."""
    try:
        document = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = _find_names(document["info"]["features"].items()) if document else {}
        return names or _names_in_readme(tree)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise SourceError(
            f"the names of classes cannot be read: {type(error).__name__}: {error}",
            where=f"{tree.root}: the key `huggingface` of a table, or dataset_info in {_README}",
            fix="correct or remove them",
        ) from error


def _names_in_readme(tree: Tree) -> dict[str, list[str]]:
    if _README not in tree.files:
        return {}
    text = tree.read_bytes(_README, _MAX_README).decode("utf-8", "replace").replace("\r\n", "\n")
    front = text.split("\n---", 1)[0] if text.startswith("---\n") else ""
    document = yaml.safe_load(front.removeprefix("---\n")) or {}
    info = document.get("dataset_info") or {}
    found: dict[str, list[str]] = {}
    for config in info if isinstance(info, list) else [info]:
        found |= _find_names((feature["name"], feature) for feature in config.get("features") or [])
    return found


def _find_names(features: Any) -> dict[str, list[str]]:
    """Return the names of classes in features, in the notation of a table or of README.md."""
    found = {}
    for column, feature in features:
        inner = feature
        for key in ("feature", "sequence", "list", "dtype", "class_label"):
            inner = inner[key] if isinstance(inner, dict) and isinstance(inner.get(key), dict) else inner
        names = inner.get("names") if isinstance(inner, dict) else None
        if isinstance(names, dict):
            names = [names[code] for code in sorted(names, key=int)]
        if isinstance(names, list) and names:
            found[column] = [str(name) for name in names]
    return found


_SAMPLE = {"train": 12, "test": 4}  # images
_SAMPLE_CLASSES = {"joy": 85, "sadness": 25, "fear": 15}  # and the valence that images are drawn with


def write_sample(root: Path, rng: np.random.Generator) -> None:
    """Write 16 generated images in three tables; one row has no image and one no class."""
    names = list(_SAMPLE_CLASSES)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for split, count in _SAMPLE.items():
        rows = []
        for number in range(count):
            label = number % len(names)
            data = io.BytesIO()
            image = Image.fromarray(draw_image(rng, _SAMPLE_CLASSES[names[label]], 96, 72))
            image.save(data, "JPEG")
            bytes_ = None if (split, number) == ("train", 5) else data.getvalue()
            label = -1 if (split, number) == ("test", 3) else label
            rows.append({"image": {"bytes": bytes_, "path": f"{number}.jpg"}, "label": label})
        table = pa.Table.from_pylist(rows).replace_schema_metadata(metadata)
        n_tables = 2 if split == "train" else 1
        for index in range(n_tables):
            path = root / "data" / f"{split}-{index:05d}-of-{n_tables:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.slice(index * count // n_tables, count // n_tables), path)
    (root / "README.md").write_text("Generated pictures.\n", encoding="utf-8", newline="\n")
