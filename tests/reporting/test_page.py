"""The page: it requests nothing, keeps to the terms, shows hostile text as text, and says what is missing."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import affectdata
from affectdata.check.check import CheckOutput
from affectdata.errors import IntegrityError
from affectdata.manifest.manifest import Manifest
from affectdata.release.release import Release
from affectdata.reporting.page import make_page
from affectdata.reporting.subject import Subject, describe_manifest, describe_release
from affectdata.store.parquet import write_table
from affectdata.store.sealed import write_sealed

HOSTILE = ["<script>alert(1)</script>", "\u202eevil", "\x1b[31mred", "=1+1", "x" * 10_000, "a\n# b | c"]
OPEN = """\
name: open_images
table: ratings.csv
key: file
scales: {valence: [0, 100]}
columns: {valence: valence, subtype: subtype}
license: CC BY 4.0
"""


class Links(HTMLParser):
    """Collects what a page refers to, its scripts, and its images without a text."""

    def __init__(self) -> None:
        super().__init__()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.without_text = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.references += [str(given[name]) for name in ("src", "href", "srcset", "action") if name in given]
        self.without_text += tag == "img" and "alt" not in given


def read(page: str) -> Links:
    links = Links()
    links.feed(page)
    return links


def page_of(subject: Subject, *, with_images: bool = False) -> str:
    return make_page(subject, with_images=with_images, manifests=Path("none"), roots={}).html


@pytest.fixture(scope="module")
def manifest_page(manifest: Manifest) -> str:
    return page_of(describe_manifest(manifest))


@pytest.mark.slow
def test_a_page_requests_nothing_and_runs_nothing(manifest_page: str) -> None:
    links = read(manifest_page)
    outside = [each for each in links.references if not each.startswith(("data:", "#"))]
    assert not outside
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(links.tags)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in manifest_page
    assert not re.search(r"url\(|@import", manifest_page)
    assert not links.without_text


@pytest.mark.slow
def test_the_figures_of_a_manifest_are_those_of_its_rows(manifest: Manifest, manifest_page: str) -> None:
    uri = re.search(
        r'href="data:text/csv;charset=utf-8;base64,([^"]+)" download="distribution.csv"', manifest_page
    )
    assert uri
    drawn = pd.read_csv(io.BytesIO(base64.b64decode(uri[1])))
    assert drawn["n"].sum() == len(manifest)
    rows = manifest.table.select(["valence", "subtype"]).to_pandas()
    snakes = rows[rows["subtype"] == "Sn"]["valence"].floordiv(10).clip(upper=9).value_counts()
    own = drawn[drawn["subtype"] == "snakes"].set_index("bin")["n"]
    assert {int(name.split("–")[0]) // 10: n for name, n in own.items()} == snakes.to_dict()


@pytest.mark.slow
def test_images_that_must_not_be_passed_on_are_left_out(manifest: Manifest, manifest_page: str) -> None:
    assert "data:image/jpeg" not in manifest_page
    assert "images are left out" in manifest_page


@pytest.mark.slow
def test_images_on_request_make_the_page_private(manifest: Manifest, tmp_path: Path) -> None:
    result = affectdata.report(manifest, images=True, out=tmp_path)
    page = result.path.read_text(encoding="utf-8")
    assert result.is_private and result.path.name == f"{manifest.name}.report-private.html"
    assert "Private: this page holds images" in page and "data:image/jpeg" in page


def test_sensitive_images_are_hidden_until_they_are_opened(manifest: Manifest, tmp_path: Path) -> None:
    page = affectdata.report(manifest, images=True, out=tmp_path).path.read_text(encoding="utf-8")
    tagged = set(manifest.to_pandas().query("content_tags.notna()")["source_id"])
    cards = re.findall(r'<figure class="card">.*?</figure>', page, re.DOTALL)
    assert cards
    for card in cards:
        names = re.findall(r"<span>([^<]*)</span>", card)
        is_tagged = any(name.split("/")[-1].split(".")[0].removeprefix("gaped ") in tagged for name in names)
        assert ('<details class="sensitive">' in card) == is_tagged, names


def open_tree(root: Path, sample_gaped: Path, rows: list[tuple[str, float, str]]) -> Manifest:
    """Ingest a table of one's own, with a licence that allows redistribution."""
    root.mkdir()
    images = sorted((sample_gaped / "P").glob("*.bmp"))
    for (name, _, _), image in zip(rows, images, strict=False):
        shutil.copy(image, root / name)
    frame = pd.DataFrame(rows, columns=["file", "valence", "subtype"])
    frame.to_csv(root / "ratings.csv", index=False)
    (root / "columns.yaml").write_text(OPEN, encoding="utf-8")
    result = affectdata.ingest(
        root, source="table", column_map=root / "columns.yaml", out=root.parent / "manifests"
    )
    open_terms = {**result.manifest.metadata, "redistributable": True}
    return replace(result.manifest, metadata=open_terms)


def test_images_that_may_be_passed_on_are_shown(sample_gaped: Path, tmp_path: Path) -> None:
    manifest = open_tree(tmp_path / "own", sample_gaped, [("a.bmp", 10.0, "x"), ("b.bmp", 90.0, "y")])
    result = affectdata.report(manifest, out=tmp_path)
    assert not result.is_private and result.path.name == "open_images.report.html"
    assert "data:image/jpeg" in result.path.read_text(encoding="utf-8")


def test_hostile_text_is_shown_as_text(sample_gaped: Path, tmp_path: Path) -> None:
    rows = [(f"{number}.bmp", 10.0 * number, text) for number, text in enumerate(HOSTILE)]
    manifest = open_tree(tmp_path / "own", sample_gaped, rows)
    page = page_of(describe_manifest(manifest))
    links = read(page)
    assert "script" not in links.tags and "<script" not in page
    assert all("<script" not in svg for svg in svgs(page))
    assert "\x1b" not in page and "\u202e" not in page and "x" * 1000 not in page


def svgs(page: str) -> list[str]:
    found = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page)
    return [base64.b64decode(each).decode() for each in found]


def test_a_manifest_with_one_image_has_a_page(sample_gaped: Path, tmp_path: Path) -> None:
    manifest = open_tree(tmp_path / "own", sample_gaped, [("a.bmp", 10.0, "x")])
    assert "1</dd>" in page_of(describe_manifest(manifest))


def test_images_that_are_gone_leave_a_note(sample_gaped: Path, tmp_path: Path) -> None:
    manifest = open_tree(tmp_path / "own", sample_gaped, [("a.bmp", 10.0, "x"), ("b.bmp", 90.0, "y")])
    shutil.rmtree(tmp_path / "own")
    page = affectdata.report(manifest, out=tmp_path).path.read_text(encoding="utf-8")
    assert "data:image/jpeg" not in page and 'class="gone"' in page


@pytest.mark.slow
def test_a_release_without_a_check_says_so(release: Release, tmp_path: Path) -> None:
    page = affectdata.report(release, out=tmp_path).path.read_text(encoding="utf-8")
    assert "has not been run" in page
    for each in release.info["balance"]["bins"]:
        assert each["bin"] in html.unescape(page)


@pytest.mark.slow
def test_figures_are_written_as_svg_and_pdf(release: Release, tmp_path: Path) -> None:
    result = affectdata.report(release, out=tmp_path, figures=tmp_path / "figures")
    names = {path.name for path in result.figures}
    assert {"before.svg", "after.svg", "cells.pdf", "plane.pdf"} <= names
    assert all(path.read_bytes()[:4] in (b"%PDF", b"<svg") for path in result.figures)


@pytest.mark.slow
def test_the_release_folder_stays_as_it_was(release: Release, tmp_path: Path) -> None:
    affectdata.report(release, out=tmp_path)
    assert affectdata.verify(release).is_sound


@pytest.mark.slow
def test_a_check_is_shown(release: Release, checked: CheckOutput, tmp_path: Path) -> None:
    checked.write(tmp_path)
    page = html.unescape(affectdata.report(release, out=tmp_path).path.read_text(encoding="utf-8"))
    for sentence in checked.document.verdict.sentences:
        assert sentence in page
    for rule in checked.document.verdict.gate:
        assert rule.text in page or rule.text[:200] in page
    assert "has not been run" not in page


@pytest.mark.slow
def test_maps_show_images_only_where_images_may_be_shown(
    release: Release, checked: CheckOutput, tmp_path: Path
) -> None:
    folder = checked.write(tmp_path).parent / "maps" / "worst"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 32)).save(folder / "0000_valence_true-1_predicted-2.png")
    page = affectdata.report(release, out=tmp_path).path.read_text(encoding="utf-8")
    assert "data:image/jpeg" not in page and "Saliency" not in page
    private = affectdata.report(release, out=tmp_path, images=True).path
    assert "Image and its saliency map" in private.read_text(encoding="utf-8")


def test_the_newer_of_two_checks_is_shown(release: Release, checked: CheckOutput, tmp_path: Path) -> None:
    path = checked.write(tmp_path)
    folder = path.parent / "finetune"
    folder.mkdir()
    shutil.copy(path, folder)
    (path.parent / "predictions.parquet").rename(folder / "predictions.parquet")
    os.utime(path, (1, 1))
    subject = describe_release(release, tmp_path, Path("none"))
    assert f"This page shows {folder / path.name}, the newer of two checks." in subject.missing
    assert subject.check is not None and subject.predictions is not None
    os.utime(folder / path.name, (0, 0))
    assert describe_release(release, tmp_path, Path("none")).predictions is None


def test_predictions_of_another_check_are_refused(
    release: Release, checked: CheckOutput, tmp_path: Path
) -> None:
    path = checked.write(tmp_path).with_name("predictions.parquet")
    write_table(checked.predictions.slice(1), path, "predictions")
    with pytest.raises(IntegrityError, match=r"predictions\.parquet is of another check"):
        describe_release(release, tmp_path, Path("none"))


@pytest.mark.slow
def test_an_older_or_foreign_check_is_named(release: Release, checked: CheckOutput, tmp_path: Path) -> None:
    path = checked.write(tmp_path)
    document = json.loads(path.read_text(encoding="utf-8"))
    damaged = {**document, "copies": document["copies"] + 1}
    path.write_text(json.dumps(damaged), encoding="utf-8")
    page = affectdata.report(release, out=tmp_path).path.read_text(encoding="utf-8")
    assert "The check cannot be read: train-check.json is not what was written" in page
    del document["content_sha256"]
    for change, text in (
        ({"schema": "affectdata/train-check/0"}, "cannot be read"),
        ({"release": {**document["release"], "id": "0" * 64}}, "of another release"),
    ):
        write_sealed(path, {**document, **change})
        assert text in affectdata.report(release, out=tmp_path).path.read_text(encoding="utf-8")
