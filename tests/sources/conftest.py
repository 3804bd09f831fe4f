"""Trees built by the test, and the result of ingesting them."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from affectdata.manifest.ingest import IngestResult, ingest
from affectdata.reading.protocol import ReadOptions
from affectdata.reading.sample import draw_image

SHARED = Path(__file__).parents[3] / "shared" / "data"


@dataclass(frozen=True)
class Outcome:
    """An ingested tree: rows by path, and reason and detail by path of what is no row."""

    result: IngestResult

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["path"]: row for row in self.result.manifest.table.to_pylist()}

    @property
    def reasons(self) -> dict[str, str]:
        return {row["path"]: row["reason"] for row in self.result.rejects.to_pylist()}

    @property
    def details(self) -> dict[str, str]:
        return {row["path"]: row["detail"] for row in self.result.rejects.to_pylist()}

    @property
    def findings(self) -> list[str]:
        """The kinds of findings, without the comparison with the index."""
        return [finding.kind for finding in self.result.findings if finding.kind != "index"]


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., Outcome]:
    """Ingest a tree; `source=None` lets it be recognised."""

    def call(root: Path, source: str | None = None, **options: Any) -> Outcome:
        out = tmp_path / f"out {len(list(tmp_path.glob('out *')))}"
        return Outcome(ingest(root, source=source, options=ReadOptions(**options), out=out, workers=1))

    return call


@pytest.fixture(scope="session")
def image() -> Callable[..., bytes]:
    """Draw an image file; every number is another image."""

    def call(number: int = 0, container: str = "JPEG", **options: Any) -> bytes:
        buffer = io.BytesIO()
        pixels = draw_image(np.random.default_rng(number), 50.0, 64, 48)
        Image.fromarray(pixels).save(buffer, container, **options)
        return buffer.getvalue()

    return call


@pytest.fixture
def plant(tmp_path: Path) -> Callable[[Mapping[str, bytes | str]], Path]:
    """Write a tree from its files; text is UTF-8 with its line ends as given."""

    def call(files: Mapping[str, bytes | str], name: str = "tree") -> Path:
        root = tmp_path / name
        for path, content in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return call


@pytest.fixture(scope="session")
def shared_oasis() -> Path:
    """The 497 photographs that lie beside the checkout."""
    if not (SHARED / "oasis" / "OASIS.csv").exists():
        pytest.skip(f"no real OASIS images at {SHARED / 'oasis'}")
    return SHARED / "oasis"


@pytest.fixture(scope="session")
def damaged(image: Callable[..., bytes]) -> dict[str, tuple[bytes, str]]:
    """What is no image though it is called one: content and the reason expected."""
    return {
        "cut": (image(90, quality=95)[:900], "truncated"),
        "text": (b"<html>404 not found</html>", "unreadable"),
        "empty": (b"", "unreadable"),
    }
