"""Assemble the sections into one HTML file that requests nothing, and write the figures of --figures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2

from affectdata.reporting import charts
from affectdata.reporting.balance import balance
from affectdata.reporting.blocks import Card, Figure, Images, Section, shorten, without_controls
from affectdata.reporting.check import check
from affectdata.reporting.images import images
from affectdata.reporting.overview import overview
from affectdata.reporting.ratings import ratings
from affectdata.reporting.study import study_sections
from affectdata.reporting.subject import Subject
from affectdata.reporting.thumbnails import Thumbnail, make_thumbnails, map_uri
from affectdata.store.atomic import write_bytes, write_text
from affectdata.store.escape import frame_to_csv

_SECTIONS = (overview, balance, ratings, check, images)
_MOST_IMAGES = 400  # on a page, so that it stays under 10 MB


@dataclass(frozen=True)
class Page:
    """A page in memory: its HTML, its sections, and whether it holds images that must not be passed on."""

    html: str
    sections: list[Section] = field(repr=False)
    is_private: bool


def make_page(subject: Subject, *, with_images: bool, manifests: Path, roots: Mapping[str, Path]) -> Page:
    """Return the page about a subject.

    Images whose terms forbid passing them on appear only `with_images`; the page then says so at its top.
    """
    sections = [part for part in (make(subject) for make in _SECTIONS) if part.blocks]
    has_images = with_images or subject.may_redistribute
    thumbnails: dict[str, Thumbnail] = {}
    if has_images:
        keys = [card.key for card in _cards(sections) if card.key][:_MOST_IMAGES]
        thumbnails = make_thumbnails(subject, set(keys), manifests, roots)
    private = with_images and not subject.may_redistribute
    kind = "release" if subject.release else "manifest"
    html = render(
        subject.source.name, f"Report on a {kind}", sections, thumbnails if has_images else None, private
    )
    return Page(html, sections, private)


def make_study(folder: Path) -> Page:
    """Return the page about a study; it has no images."""
    name, sections = study_sections(folder)
    return Page(render(name, "Report on a study", sections, {}), sections, False)


def render(
    title: str,
    subtitle: str,
    sections: Sequence[Section],
    thumbnails: Mapping[str, Thumbnail] | None,
    is_private: bool = False,
) -> str:
    """Return sections as HTML; without `thumbnails` the images are left out, and the page says so."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("affectdata.reporting", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: without_controls(value) if type(value) is str else value,
    )
    return environment.get_template("page.html.jinja").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        has_images=thumbnails is not None,
        is_private=is_private,
        thumbnails=thumbnails or {},
        shorten=shorten,
        number_columns=_number_columns,
        map_uri=lambda card: map_uri(Path(card.map_file)),
        svg_uri=_svg_uri,
        csv_uri=_csv_uri,
        version=version("affectdata"),
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _number_columns(rows: Sequence[Sequence[Any]]) -> set[int]:
    """Return the columns of a table that have numbers and nothing else that is known."""
    known = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return {
        index
        for index, values in enumerate(known)
        if values and all(isinstance(each, int | float) for each in values)
    }


def write_page(page: Page, path: Path, figures: Path | None = None) -> list[Path]:
    """Write a page to `path`, and its charts as SVG and PDF to the folder `figures`; return all files."""
    write_text(path, page.html)
    written = [path]
    if figures is not None:
        figures.mkdir(parents=True, exist_ok=True)
        for figure in _figures(page.sections):
            for ending, render in (("svg", charts.to_svg), ("pdf", charts.to_pdf)):
                file = figures / f"{figure.name}.{ending}"
                write_bytes(file, render(figure.chart))
                written.append(file)
    return written


def _figures(sections: list[Section]) -> list[Figure]:
    return [block for section in sections for block in section.blocks if isinstance(block, Figure)]


def _cards(sections: list[Section]) -> list[Card]:
    groups = [block for section in sections for block in section.blocks if isinstance(block, Images)]
    # Groups that are open come first: the bound on images must not empty them.
    return [card for block in sorted(groups, key=lambda each: not each.is_open) for card in block.cards]


def _svg_uri(figure: Figure) -> str:
    return _data_uri("image/svg+xml", charts.to_svg(figure.chart))


def _csv_uri(figure: Figure) -> str:
    text = frame_to_csv(figure.data)
    return _data_uri("text/csv;charset=utf-8", text.encode())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
