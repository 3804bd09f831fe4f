"""A server of buckets for the tests of this folder."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.buckets import PYTHON, Buckets, serve_buckets


@pytest.fixture(scope="session")
def buckets() -> Iterator[Buckets]:
    """The server, for all tests."""
    if not importlib.util.find_spec("obstore"):
        pytest.skip("the extra `remote` is not installed")
    if not PYTHON.is_file():
        pytest.skip(f"no server of buckets in {PYTHON.parent.parent}: `make test` makes it")
    with serve_buckets() as running:
        yield running


@pytest.fixture
def server(buckets: Buckets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Buckets:
    """The server, empty, as the environment of this test names it."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ENDPOINT_URL": buckets.address,
        "AFFECTDATA_CACHE": str(tmp_path / "cache"),
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    buckets.reset()
    return buckets
