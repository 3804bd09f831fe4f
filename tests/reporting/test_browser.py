"""The page in a browser: nothing requested, nothing logged, usable by keyboard, on a phone, in print."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import affectdata
from affectdata.release.release import Release

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (Debian: apt install chromium)"),
]


@pytest.fixture(scope="module")
def page_file(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return affectdata.report(release, images=True, out=tmp_path_factory.mktemp("checks")).path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


def open_page(browser: Any, file: Path, **options: Any) -> tuple[Any, list[str]]:
    """Open the page; return it with what it requests beside itself and what it logs."""
    page = browser.new_context(**options).new_page()
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url) if outside(request.url, file) else None)
    page.goto(file.as_uri())
    return page, noise


def outside(url: str, file: Path) -> bool:
    return not url.startswith("data:") and url != file.as_uri()


@pytest.mark.parametrize("width", [420, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_requested_or_logged_and_all_of_it_fits(
    browser: Any, page_file: Path, width: int, scheme: str
) -> None:
    size = {"width": width, "height": 900}
    page, noise = open_page(browser, page_file, viewport=size, color_scheme=scheme)
    assert noise == []
    widths = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1]
    broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).length")
    assert broken == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, page_file: Path, scheme: str) -> None:
    page, _ = open_page(browser, page_file, color_scheme=scheme)
    page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(result => result.violations)")
    serious = [each for each in found if each["impact"] in ("serious", "critical")]
    assert not serious, json.dumps([(each["id"], each["nodes"][0]["html"][:200]) for each in serious])


def test_a_sensitive_image_opens_by_keyboard_and_without_javascript(browser: Any, page_file: Path) -> None:
    page, _ = open_page(browser, page_file, java_script_enabled=False)
    hidden = page.locator("details[open] details.sensitive").first
    image = hidden.locator(":scope > img")
    assert not image.is_visible()
    hidden.locator("summary").focus()
    page.keyboard.press("Enter")
    assert image.is_visible()


def test_the_page_prints(browser: Any, page_file: Path) -> None:
    page, _ = open_page(browser, page_file)
    pdf = page.pdf()
    assert pdf[:4] == b"%PDF" and len(pdf) < 5_000_000
