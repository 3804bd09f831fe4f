"""What several tests need: generated source trees, the command line in this process and in one of its own."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from affectdata.cli._main import run
from affectdata.reading.sample import draw_image
from affectdata.sources import gaped
from tests.documents import problems
from tests.served import Site, serve

# Derandomized: the same commit gives the same verdict. Run with `--hypothesis-profile=default` to search on.
settings.register_profile("affectdata", deadline=None, derandomize=True, database=None, max_examples=50)
settings.load_profile("affectdata")

SMALL = {"A": 3, "H": 2, "N": 3, "P": 4, "Sn": 4, "Sp": 2}  # images left of each subtype by `small_gaped`


LONG_FIXTURES = {"checked"}  # a whole train-check


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a long fixture as slow, wherever they are."""
    for item in items:
        if LONG_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name file contents by their parameter: a workbook holds the time, and workers must agree on the ids."""
    return argname if isinstance(val, bytes) else None


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout, and nothing else there; it is as its schema says."""
        document = json.loads(self.out)
        assert problems(document) == []
        return document


@pytest.fixture(autouse=True)
def _no_roots_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AFFECTDATA_ROOTS", raising=False)


@pytest.fixture(autouse=True)
def _no_report_on_the_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFFECTDATA_NO_REPORT", "1")  # it takes seconds; tests of the report unset it


@pytest.fixture(scope="session")
def sample_gaped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole generated GAPED tree, 243 images. Not to be written to."""
    root = tmp_path_factory.mktemp("sample") / "gaped"
    gaped.write_sample(root, np.random.default_rng(0))
    return root


@pytest.fixture(scope="session")
def small_gaped(sample_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first images of every subtype (`SMALL`), with their rows. Not to be written to."""
    root = tmp_path_factory.mktemp("small") / "gaped"
    root.mkdir()
    for code, count in SMALL.items():
        for name in (f"{code}.txt", f"{code}_with SD.txt"):
            lines = (sample_gaped / name).read_text().splitlines()[: count + 1]
            (root / name).write_text("\n".join(lines))
        (root / code).mkdir()
        for image in sorted((sample_gaped / code).glob("*.bmp"))[:count]:
            shutil.copy(image, root / code)
        shutil.copy(sample_gaped / code / "Thumbs.db", root / code)
    shutil.copy(sample_gaped / "readme.txt", root)
    return root


@pytest.fixture
def gaped_copy(small_gaped: Path, tmp_path: Path) -> Path:
    """A small GAPED tree of this test's own, to spoil."""
    return Path(shutil.copytree(small_gaped, tmp_path / "gaped"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command in this process."""

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


def _hear_interrupts() -> None:
    """Undo that a job in the background of a shell ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start() -> Callable[..., subprocess.Popen[str]]:
    """Start a command in a process of its own; `first` is Python that runs before it."""

    def call(*arguments: object, first: str = "", **options: Any) -> subprocess.Popen[str]:
        code = f"{first}\nfrom affectdata.cli._main import main\nmain()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "error"},
            preexec_fn=_hear_interrupts,
            **options,
        )

    return call


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    """One generated image, 160 × 120, RGB."""
    return draw_image(np.random.default_rng(1), 60.0)


@pytest.fixture(scope="session")
def as_bytes() -> Callable[..., bytes]:
    """Encode pixels (an array or a Pillow image) in any container that Pillow writes."""

    def call(pixels: np.ndarray | Image.Image, container: str, **options: Any) -> bytes:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        buffer = io.BytesIO()
        image.save(buffer, container, **options)
        return buffer.getvalue()

    return call


@pytest.fixture
def site(
    as_bytes: Callable[..., bytes], image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    """A server of images on the loopback; tests that use it allow that host."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve(as_bytes(image, "JPEG")) as running:
        yield running
