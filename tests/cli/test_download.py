"""`affectdata download`: what it prints, its exit codes, and what is missing without the extra."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.served import serve

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])
MAP = "{name: mine, table: t.csv, key: pic, columns: {emotion: e, url: link}, license: CC0}"


@pytest.mark.slow
def test_counts_failures_and_exit_codes(
    cli: Callable[..., Any],
    tmp_path: Path,
    as_bytes: Callable[..., bytes],
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "columns.yaml").write_text(MAP)
    with serve(as_bytes(image, "JPEG")) as site:
        lines = [f"{name},joy,{site.url(path)}" for name, path in (("1", "image/1.jpg"), ("2", "away/2.jpg"))]
        (tmp_path / "t.csv").write_text("\n".join(["pic,e,link", *lines]) + "\n")
        ran = cli("download", tmp_path)
        assert ran.code == 1
        assert "2 listed: 0 there already, 1 fetched, 1 failed, 0 left for later" in ran.out
        assert "not fetched: 1 unreachable" in ran.out
        assert "1 of these failures may be temporary: run it again" in ran.out
        assert "asks to retry after 3" in ran.out and f"({site.url('away/2.jpg')})" in ran.out
        assert "terms: CC0" in ran.out and "fetching 2 images over the network into" in ran.err
        (tmp_path / "t.csv").write_text("pic,e,link\n" + lines[0])
        document = cli("download", tmp_path, "--json", "--quiet", "--limit", 5).document
    assert document == {
        "schema": "affectdata/download/1",
        "source": "mine",
        "notes": str(tmp_path / "download.parquet"),
        "listed": 1,
        "counts": {"there already": 1, "fetched": 0, "failed": 0, "left for later": 0},
        "statuses": {},
        "may_pass": 0,
    }


def test_nothing_is_said_of_the_network_where_nothing_is_fetched(
    cli: Callable[..., Any], tmp_path: Path, small_gaped: Path
) -> None:
    ran = cli("download", small_gaped, "--source", "gaped", "--map", tmp_path / "columns.yaml")
    assert ran.code == 2 and ran.err.startswith("error: the source gaped does not take --map")
    for root in (tmp_path / "none", tmp_path):
        ran = cli("download", root)
        assert ran.code == 3 and ran.err.startswith("error: ")


def test_without_the_extra_it_says_what_to_install(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("affectdata.manifest.fetch", "affectdata.manifest.download"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "httpx2", None)  # as if it were not installed
    ran = cli("download", tmp_path)
    assert ran.code == 5
    assert ran.err.endswith("error: httpx2 is not installed\n  fix:   pip install 'affectdata[download]'\n")
