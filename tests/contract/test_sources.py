"""The contract of every registered source; a failure names the module, the field and what to write."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import affectdata
from affectdata.images.read import read_image
from affectdata.manifest.ingest import IngestResult, ingest, recognise
from affectdata.reading.protocol import ReadOptions
from affectdata.reading.tree import is_image_name, read_tree
from affectdata.records import RATINGS, Annotation, Scale, SourceInfo
from affectdata.registry import find_plugins, load_plugin
from affectdata.schema import manifest_schema

NAMES = find_plugins("sources")
_MOST_IMAGES = 300
_NO_PAPER = ("image_folder", "parquet_images", "table", "webdataset")
_WITH_PIXELS = (".csv", ".parquet", ".tar")  # files that may contain images
_FUNCTIONS = {
    "detect": "`def detect(tree: Tree) -> str | None`: why the tree is this source, or None",
    "read": "`def read(tree: Tree, options: ReadOptions) -> Reading`: the items of the tree",
    "write_sample": "`def write_sample(root: Path, rng: np.random.Generator) -> None`: a generated tree",
}
# Field of the data sheet, whether it is as it should be, and what to write.
_SHEET: dict[str, tuple[Callable[[SourceInfo], bool], str]] = {
    "title": (lambda info: bool(info.title), "the name of the collection, as its paper spells it"),
    "license": (lambda info: bool(info.license), "the terms of use, or 'not stated'"),
    "citation": (lambda info: bool(info.citation), "the paper in APA style, with its DOI"),
    "layout": (lambda info: bool(info.layout), "the paths of the tree as shipped, as in `gaped`"),
    "scales": (
        lambda info: set(info.scales) <= set(RATINGS),
        f"ratings among {', '.join(RATINGS)}, each with its `Scale(low, high)`",
    ),
    "groups": (
        lambda info: set(info.groups) <= set(manifest_schema().names),
        "names of manifest columns whose equal values must stay in one split",
    ),
    "evidence": (
        lambda info: info.evidence in ("seen", "unverified"),
        "'seen' if the layout was read in real files, else 'unverified'",
    ),
    "bibtex": (
        lambda info: info.name in _NO_PAPER or _is_bibtex(info.bibtex),
        "the citation as one BibTeX entry, `@article{key, …}`, with as many { as }",
    ),
}


@pytest.fixture(scope="module", params=NAMES)
def plugin(request: pytest.FixtureRequest) -> ModuleType:
    return load_plugin("sources", request.param)


@pytest.fixture(scope="module")
def sample(plugin: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("samples") / "tree"
    plugin.write_sample(root, np.random.default_rng(0))
    return root


@pytest.fixture(scope="module")
def result(plugin: ModuleType, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> IngestResult:
    if plugin.INFO.overlay:
        pytest.skip("it has no images of its own; tests/manifest/test_overlay.py")
    return ingest(sample, out=tmp_path_factory.mktemp("out"), workers=1)


def _files(root: Path) -> dict[str, bytes]:
    return {
        Path(folder, name).relative_to(root).as_posix(): Path(folder, name).read_bytes()
        for folder, _, names in os.walk(root)
        for name in names
    }


def _tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def _rows(result: IngestResult) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = result.manifest.table.to_pylist()
    return rows


def test_the_shelf_is_not_empty() -> None:
    assert {"gaped", "image_folder", "oasis", "table"} <= set(NAMES)


def _is_bibtex(entry: str) -> bool:
    return entry.startswith("@") and entry.count("{") == entry.count("}")


def _file(plugin: Any) -> str:
    """Return the file to correct: a module, or a column map."""
    name = plugin.__name__.rpartition(".")[2]
    return f"sources/{name}.py" if isinstance(plugin, ModuleType) else f"sources/maps/{name}.yaml"


def _gaps(plugin: Any) -> list[str]:
    """Return what a source lacks: the module, the field and what to write."""
    file, info = _file(plugin), getattr(plugin, "INFO", None)
    gaps = [
        f"{file} has no function {name}: write {advice}"
        for name, advice in _FUNCTIONS.items()
        if not callable(getattr(plugin, name, None))
    ]
    if len((plugin.__doc__ or "").splitlines()) <= 5:
        gaps.append(
            f"{file}: the docstring is too short: write the data sheet (what, how many, who rated, scale, "
            "paper, the tree as shipped)"
        )
    if not isinstance(info, SourceInfo):
        return [*gaps, f"{file} has no data sheet: write `INFO = SourceInfo(name=…, title=…, …)`"]
    stem = plugin.__name__.rpartition(".")[2]
    if info.name != stem:
        gaps.append(f"{file}: `name` is {info.name!r}: write {stem!r}, the name of the file")
    return gaps + [
        f"{file}: `{field}` is {getattr(info, field)!r}: write {advice}"
        for field, (is_right, advice) in _SHEET.items()
        if not is_right(info)
    ]


def test_module_has_its_functions_and_a_full_data_sheet(plugin: ModuleType) -> None:
    gaps = _gaps(plugin)
    assert not gaps, "\n".join(gaps)


@pytest.mark.parametrize(
    ("field", "value", "advice"),
    [
        ("bibtex", "", "BibTeX entry"),
        ("bibtex", "@article{key, title = {A}", "as many { as }"),
        ("citation", "", "APA style"),
        ("title", "", "as its paper spells it"),
        ("license", "", "or 'not stated'"),
        ("layout", "", "the tree as shipped"),
        ("name", "gpaed", "write 'gaped', the name of the file"),
        ("scales", {"pleasure": Scale(1, 9)}, "valence, arousal, dominance"),
        ("groups", ("scene",), "manifest columns"),
        ("evidence", "guessed", "else 'unverified'"),
    ],
)
def test_a_gap_names_the_module_the_field_and_what_to_write(field: str, value: Any, advice: str) -> None:
    gaped = load_plugin("sources", "gaped")
    module = ModuleType("affectdata.sources.gaped", gaped.__doc__)
    vars(module).update({name: getattr(gaped, name) for name in _FUNCTIONS})
    vars(module)["INFO"] = replace(gaped.INFO, **{field: value})
    (gap,) = _gaps(module)
    assert gap.startswith(f"sources/gaped.py: `{field}` is {value!r}: write ") and advice in gap


def test_a_module_without_anything_is_told_everything_to_write() -> None:
    gaps = _gaps(ModuleType("affectdata.sources.mine", "Mine."))
    assert [gap.split(": write")[0] for gap in gaps] == [
        *(f"sources/mine.py has no function {name}" for name in _FUNCTIONS),
        "sources/mine.py: the docstring is too short",
        "sources/mine.py has no data sheet",
    ]
    assert _gaps(SimpleNamespace(__name__="mine"))[0].startswith("sources/maps/mine.yaml has no function")


@pytest.mark.slow
def test_sample_depends_on_nothing_but_the_seed(plugin: ModuleType, sample: Path, tmp_path: Path) -> None:
    plugin.write_sample(tmp_path / "again", np.random.default_rng(0))
    first, second = _files(sample), _files(tmp_path / "again")
    differing = sorted(path for path in first.keys() | second if first.get(path) != second.get(path))
    assert not differing, (
        f"{_file(plugin)}: `write_sample` writes other files for the same seed: draw everything from "
        f"`rng`, and write no time of day: {', '.join(differing[:5])}"
    )


def test_sample_is_small_and_drawn(plugin: ModuleType, sample: Path, tmp_path: Path) -> None:
    plugin.write_sample(tmp_path / "other", np.random.default_rng(1))
    first, second = _files(sample), _files(tmp_path / "other")
    images = [path for path in first if is_image_name(path)]
    sample_of = f"{_file(plugin)}: the sample of `write_sample`"
    assert len(images) <= _MOST_IMAGES, f"{sample_of} has {len(images)} images: write at most {_MOST_IMAGES}"
    with_pixels = images or [path for path in first if path.endswith(_WITH_PIXELS)]
    assert with_pixels, f"{sample_of} has no image: write some with `draw_image` and `save_image`"
    shipped = [path for path in with_pixels if first[path] == second.get(path)]
    assert not shipped, (  # a real image would be the same for every seed
        f"{sample_of} has the same image for two seeds, {shipped[0]}: draw it with `draw_image(rng, …)`"
    )
    for path in images:
        with Image.open(sample / path) as image:
            is_drawn = not image.getexif() and "icc_profile" not in image.info
        assert is_drawn, f"{sample_of} has camera metadata in {path}: write it with `save_image`"


def test_package_ships_no_image() -> None:
    files = _files(Path(affectdata.__file__).parent)
    assert files
    images = [path for path in files if is_image_name(path)]
    assert not images, f"remove {', '.join(images)}: samples are generated by `write_sample`"


def _folders(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir() if path.is_dir()]


def test_own_sample_is_recognised_by_it_alone(plugin: ModuleType, sample: Path, tmp_path: Path) -> None:
    if plugin.INFO.overlay:
        sample = Path(
            shutil.copytree(sample, tmp_path / "alone", ignore=lambda folder, names: _folders(folder))
        )
    tree = read_tree(sample)
    plugins = [load_plugin("sources", name) for name in NAMES]
    claims = {source.INFO.name: source.INFO.generic for source in plugins if source.detect(tree)}
    claims = {name: generic for name, generic in claims.items() if not generic or plugin.INFO.generic}
    assert list(claims) == [plugin.INFO.name], (
        f"{_file(plugin)}: its sample is recognised by {', '.join(claims) or 'no source'}: write "
        "`detect` so that it returns a text for this tree, and for no tree of another source"
    )
    assert recognise(tree)[0] == plugin.INFO.name


def test_nothing_is_recognised_in_foreign_files(plugin: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("Theme, and other words")
    (tmp_path / "things.csv").write_bytes(b"name;\xff\xfe\r\n\x00\x01\r\n")
    why = plugin.detect(read_tree(tmp_path))
    assert why is None, (
        f"{_file(plugin)}: `detect` returns {why!r} for files of no collection: return None unless the "
        "columns or file names of this source are in the tree"
    )


def test_every_file_is_accounted_for_once(plugin: ModuleType, sample: Path, result: IngestResult) -> None:
    items = plugin.read(read_tree(sample), ReadOptions()).items
    annotations = [item.path for item in items if isinstance(item, Annotation)]
    named = result.rejects["path"].to_pylist() + [row["path"] for row in _rows(result)]
    of_files = [path for path in named if "#" not in path]
    of_rows = [path for path in named if "#" in path]  # of a table: without an image, or images themselves
    counts = Counter(of_files + annotations)
    wrong = {path: counts[path] for path in counts.keys() | _files(sample) if counts[path] != 1}
    assert not wrong, (
        f"{_file(plugin)}: `read` must yield every table and readme once as an Annotation, and every "
        f"image at most once as a Record or Reject; files and how often they are accounted for: {wrong}"
    )
    assert set(counts) == set(_files(sample))
    repeated = [path for path, count in Counter(of_rows).items() if count > 1]
    assert not repeated, (
        f"{_file(plugin)}: `read` yields {', '.join(repeated[:5])} several times: yield one item per row"
    )
    assert result.n_seen == len(_files(sample)) + len(of_rows)
    assert result.counts["kept"] == len(_rows(result))
    assert result.counts["kept"], (
        f"{_file(plugin)}: `read` yields no Record for the sample: yield one per rated image"
    )
    assert result.counts["annotation"] == len(annotations)


def test_ids_are_sha256_of_the_files(sample: Path, result: IngestResult) -> None:
    for row in _rows(result):
        data = read_image(sample, row["path"])
        assert row["image_id"] == hashlib.sha256(data).hexdigest()
        assert row["bytes"] == len(data)


def test_pomp_gives_the_raw_rating_back(plugin: ModuleType, result: IngestResult) -> None:
    for row in _rows(result):
        for name in RATINGS:
            if row[name] is None:
                assert row[f"{name}_raw"] is None
                continue
            low, high = Fraction(row[f"{name}_min"]), Fraction(row[f"{name}_max"])
            raw = low + Fraction(row[name]) / 100 * (high - low)
            assert abs(raw - Fraction(row[f"{name}_raw"])) <= (high - low) / 100 / 10**6
            assert 0 <= row[name] <= 100, (
                f"{_file(plugin)}: {name} of {row['path']} is outside its scale: correct `scales` of INFO"
            )


class _Shuffled(list[Any]):
    def __enter__(self) -> _Shuffled:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def _ingest_elsewhere(
    sample: Path, place: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> dict[str, bytes]:
    shutil.copytree(sample, place / "tree")
    scandir, rng = os.scandir, random.Random(workers)

    def shuffled(path: Any) -> _Shuffled:
        entries = sorted(scandir(path), key=lambda entry: entry.name, reverse=True)
        rng.shuffle(entries)
        return _Shuffled(entries)

    with monkeypatch.context() as patch:
        patch.setattr("affectdata.reading.tree.os.scandir", shuffled)
        ingest(place / "tree", out=place / "out", workers=workers)
    return _tables(place / "out")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_same_tree_same_bytes(
    workers: int,
    plugin: ModuleType,
    sample: Path,
    result: IngestResult,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = tmp_path / "another" / "place"
    place.mkdir(parents=True)
    first = _tables(result.manifest.path.parent)
    has_ledger = any(row["split"] for row in _rows(result))
    assert len(first) == 3 + has_ledger
    second = _ingest_elsewhere(sample, place, workers, monkeypatch)
    differing = [name for name in first.keys() | second if first.get(name) != second.get(name)]
    assert not differing, (
        f"{_file(plugin)}: the same tree in another folder gives another {', '.join(differing)}: let `read` "
        "depend on nothing but the files, and not on their order on disk"
    )


def test_downloaded_images_are_where_the_source_looks(
    plugin: ModuleType, sample: Path, result: IngestResult, tmp_path: Path
) -> None:
    find_links = getattr(plugin, "find_links", None)
    links = list(find_links(read_tree(sample), ReadOptions())) if find_links else []
    if not links:
        pytest.skip("it has no addresses of images")
    assert {link.path for link in links} & _files(sample).keys(), (
        f"{_file(plugin)}: no link of `find_links` has the path of an image of the sample: where the image "
        "is in the tree already, yield `Link` with its path"
    )
    root = Path(shutil.copytree(sample, tmp_path / "tree"))
    for path in filter(is_image_name, _files(sample)):
        (root / path).unlink()
    wanted = {link.path for link in find_links(read_tree(root), ReadOptions())}
    for number, path in enumerate(sorted(wanted)):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64 + number, 64)).save(root / path, "JPEG")
    fetched = ingest(root, out=tmp_path / "out", workers=1)
    assert {row["path"] for row in _rows(fetched)} == wanted, (
        f"{_file(plugin)}: `read` does not find the images where `find_links` wants them: make the two agree"
    )
    assert "missing_rating" not in fetched.rejects["reason"].to_pylist()
