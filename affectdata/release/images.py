"""Read the images of a release: from its files, or rendered in memory if it is virtual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from affectdata.errors import IntegrityError
from affectdata.hashing import file_hash
from affectdata.manifest.manifest import Images
from affectdata.recipe.recipe import Recipe
from affectdata.render.render import RenderSamples
from affectdata.store.files import read_regular

Read = Callable[[pa.Table], list[bytes]]


@dataclass(frozen=True, slots=True)
class ReadReleased:
    """Read the released files of a batch (`file_name`, `file_sha256`) from the folder of the release."""

    folder: str

    def __call__(self, batch: pa.Table) -> list[bytes]:
        rows = batch.select(["file_name", "file_sha256"]).to_pylist()
        return [self._read(row["file_name"], row["file_sha256"]) for row in rows]

    def _read(self, name: str, expected: str) -> bytes:
        path = Path(self.folder, name)
        data = read_regular(path) if path.is_file() else b""
        if file_hash(data) != expected:
            raise IntegrityError(
                f"{name} differs from the released file",
                where=str(path),
                fix="`affectdata verify` lists all such files; `affectdata balance` rebuilds the release",
            )
        return data


@dataclass(frozen=True, slots=True)
class ReadRendered:
    """Render the images of a batch (plan columns, `source`, `path`) in memory, exactly as for a release."""

    render: RenderSamples

    def __call__(self, batch: pa.Table) -> list[bytes]:
        return list(self.render(batch)["data"].to_pylist())


@dataclass(frozen=True, slots=True)
class ReadVirtual:
    """Render the images of a batch of a virtual release (all its columns) and verify their hashes."""

    read: Read
    folder: str

    def __call__(self, batch: pa.Table) -> list[bytes]:
        images = self.read(batch)
        names, expected = (batch[name].to_pylist() for name in ("file_name", "file_sha256"))
        for name, digest, data in zip(names, expected, images, strict=True):
            if file_hash(data) != digest:
                raise IntegrityError(
                    f"{name}: the rendered image differs from the released one",
                    where=self.folder,
                    fix="`affectdata verify --rebuild 1` shows why; read the release on the machine that "
                    "made it, or publish it with `mode: files`",
                )
        return images


def released_reader(folder: Path, recipe: Recipe, images: Images | None) -> Read:
    """Return a reader for the images of the release in `folder`.

    `images` are the source images from which a virtual release is rendered; None for a release with files.
    The reader raises an IntegrityError for an image whose hash differs from the recorded one.
    """

    if images is None:
        return ReadReleased(str(folder))
    render = RenderSamples(images, recipe.image, recipe.pipelines)
    return ReadVirtual(ReadRendered(render), str(folder))
