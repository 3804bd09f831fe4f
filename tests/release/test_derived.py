"""release.json is derived from rows, recipe and data sheets; any other value in it is an error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from affectdata.errors import AffectdataError, IntegrityError
from affectdata.release.derived import check_info, release_terms
from affectdata.release.info import CONTENT_HASH, check_content_hash
from affectdata.release.lineage import validate_release
from affectdata.release.release import INFO_FILE, newest_release, open_release
from affectdata.release.terms import forbids_redistribution
from tests.made import publish, sign

Info = dict[str, Any]
Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def made(small_gaped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound release with folds. Not to be written to."""
    out = tmp_path_factory.mktemp("derived")
    return publish(small_gaped, out, split={"val": 0.2, "test": 0.2, "folds": 2}).path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may modify."""
    return Path(shutil.copytree(made, tmp_path / "releases" / made.name))


def texts(folder: Path) -> list[str]:
    return [finding.text for finding in check_info(open_release(folder))]


def stated(folder: Path) -> Info:
    return dict(json.loads((folder / INFO_FILE).read_text()))


def test_a_release_agrees_with_its_rows(made: Path) -> None:
    assert texts(made) == []
    assert release_terms(open_release(made)) == stated(made)["terms"]


def test_an_edit_without_the_hash_is_found_by_the_hash(folder: Path) -> None:
    (folder / INFO_FILE).write_text(json.dumps({**stated(folder), "cpu_features": "none"}))
    assert texts(folder) == [
        "release.json: the content was modified after publication (content_sha256 does not match)"
    ]


def test_only_the_former_form_may_lack_the_hash(made: Path) -> None:
    info = {key: value for key, value in stated(made).items() if key != CONTENT_HASH}
    assert check_content_hash({**info, "schema": "affectdata/release/2"}) == []
    assert check_content_hash({**info, "schema": "affectdata/release/3"}) == ["content_sha256 is missing"]


def test_the_time_alone_may_change(folder: Path) -> None:
    (folder / INFO_FILE).write_text(json.dumps({**stated(folder), "created": "2026-01-01T00:00:00+00:00"}))
    assert texts(folder) == []


@pytest.mark.parametrize("when", ["", "soon", "1970-01-01T00:00:00", "2026-13-01T00:00:00+00:00"])
def test_an_invalid_time_is_reported(folder: Path, when: str) -> None:
    (folder / INFO_FILE).write_text(json.dumps({**stated(folder), "created": when}))
    assert texts(folder) == [f"release.json: created must be a time with a time zone, not {when!r}"]


def redistributable(info: Info) -> None:
    info["manifests"][0]["redistributable"] = True


def free_terms(info: Info) -> None:
    info["terms"].update(redistributable=True, commercial_use=True)


def free_licence(info: Info) -> None:
    info["manifests"][0]["license"] = "CC0 1.0"


def other_source(info: Info) -> None:
    info["manifests"] = []


def more_rows(info: Info) -> None:
    info["rows"]["train"] += 1


def fewer_copies(info: Info) -> None:
    info["copies"] -= 1
    info["originals"] += 1


def more_in_a_bin(info: Info) -> None:
    info["balance"]["bins"][0]["n_after"] += 1


def worth_more(info: Info) -> None:
    info["balance"]["cells"][0]["n_eff"] += 1


def a_bin_less(info: Info) -> None:
    info["balance"]["bins"] = [
        b for b in info["balance"]["bins"] if b["bin"] != info["balance"]["cells"][0]["bin"]
    ]


def level(info: Info) -> None:
    info["balance"]["entropy"]["before"] = 1.0


FORGED: list[tuple[Callable[[Info], Any], str]] = [
    (redistributable, "marks gaped as redistributable"),
    (free_terms, r"terms is {'commercial_use': True, 'redistributable': True}"),
    (free_licence, "none of its rows has it"),
    (other_source, r"lacks the sources \['gaped'\]"),
    (more_rows, "rows is {'train'"),
    (fewer_copies, "copies is"),
    (more_in_a_bin, "balance.bins: n_after"),
    (worth_more, "balance.cells: n_eff"),
    (a_bin_less, "balance.bins must list every bin"),
    (level, "balance.entropy.before is 1.0"),
    (lambda info: info.update(name="other"), "name is 'other'"),
    (lambda info: info.update(target="arousal"), "target is 'arousal'"),
    (lambda info: info.update(folds=7), "folds is 7"),
    (lambda info: info.update(folds=None), "folds is None, but rows are in fold 1"),
    (lambda info: info.update(recipe_sha256="0" * 64), "recipe_sha256 is"),
]


@pytest.mark.parametrize(("change", "why"), FORGED)
@pytest.mark.parametrize("form", [2, 3])
def test_a_wrong_value_is_refused_though_the_hash_is_right(
    folder: Path, change: Callable[[Info], Any], why: str, form: int
) -> None:
    info = stated(folder)
    change(info)
    if form == 2:  # it has no hash
        info["schema"] = "affectdata/release/2"
        del info[CONTENT_HASH]
    sign(folder, info)
    with pytest.raises(IntegrityError, match=why):
        validate_release(open_release(folder))


def test_every_command_refuses_a_wrong_value(folder: Path, tmp_path: Path, cli: Cli) -> None:
    info = stated(folder)
    redistributable(info)
    free_terms(info)
    sign(folder, info)
    assert cli("verify", folder).code == 4
    for form in ("webdataset", "folders", "croissant"):
        ran = cli("export", folder, "--to", form, "--out", tmp_path / "out", "--i-may-redistribute")
        assert ran.code == 4 and "release.json: terms is" in ran.err


def test_a_diff_refuses_an_edit_on_either_side(made: Path, folder: Path, cli: Cli) -> None:
    (folder / INFO_FILE).write_text(json.dumps({**stated(folder), "cpu_features": "none"}))
    for pair in ((made, folder), (folder, made)):
        ran = cli("diff", *pair)
        assert ran.code == 4 and "modified after publication" in ran.err


def test_splits_are_not_taken_from_a_release_that_contradicts_itself(
    made: Path, folder: Path, tmp_path: Path, cli: Cli
) -> None:
    manifest = made.parent.parent / "manifests" / "gaped.parquet"
    info = stated(folder)
    more_rows(info)
    sign(folder, info)
    ran = cli(
        "balance", "--recipe", "valence_bins", "--manifest", manifest, "--split-from", folder, "--dry-run"
    )
    assert ran.code == 4, ran.err


JSON = [None, True, -1, 1.5, 10**30, "x", "\ud800", [], [1, {"x": None}], {}, {"x": {"y": []}}]


def fields(info: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths in release.json: every key of its mappings, and the first item of its lists."""
    keys = list(info) if isinstance(info, dict) else [0] if isinstance(info, list) and info else []
    inside = [field for key in keys for field in fields(info[key], (*path, key))]
    return [(*path, key) for key in keys] + inside


def test_a_value_of_a_wrong_type_raises_an_error_of_ours(folder: Path) -> None:
    """Every error is an AffectdataError with a message."""
    good = stated(folder)
    for index, path in enumerate(fields({key: value for key, value in good.items() if key != "drift"})):
        value = JSON[index % len(JSON)]
        info = json.loads(json.dumps(good))
        *parents, last = path
        inner = info
        for key in parents:
            inner = inner[key]
        if inner[last] == value and type(inner[last]) is type(value):
            continue
        inner[last] = value
        (folder / INFO_FILE).write_text(json.dumps(info))
        with pytest.raises(AffectdataError):
            validate_release(open_release(folder))


@pytest.mark.parametrize("schema", ["affectdata/release/3", "affectdata/release/2"])
def test_terms_that_are_null_are_refused(folder: Path, schema: str) -> None:
    sign(folder, {**stated(folder), "terms": None, "schema": schema})
    with pytest.raises(IntegrityError, match="terms: must be a mapping of keys"):
        open_release(folder)


def test_terms_cannot_be_left_out(folder: Path) -> None:
    sign(folder, {key: value for key, value in stated(folder).items() if key != "terms"})
    with pytest.raises(IntegrityError, match="terms is None, but should be"):
        validate_release(open_release(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    "key", ["terms", "manifests", "rows", "drift", "balance", "created", "canaries", "id"]
)
def test_commands_end_with_their_own_code(folder: Path, tmp_path: Path, cli: Cli, key: str) -> None:
    for value in JSON:
        if value in (None, {}) and key in ("terms", "drift", "canaries"):
            continue
        (folder / INFO_FILE).write_text(json.dumps({**stated(folder), key: value}))
        assert cli("verify", folder).code in (3, 4)
        assert cli("verify", "--releases", folder.parent).code in (3, 4)
        assert cli("diff", folder, folder).code in (3, 4)
        out = tmp_path / "out"
        assert cli("export", folder, "--to", "croissant", "--out", out).code in (3, 4)


@pytest.mark.parametrize("text", ["NaN", "[" * 100_000, '{"created": 1e999}', '{"x": Infinity}'])
def test_invalid_json_is_refused_with_a_message(folder: Path, text: str) -> None:
    (folder / INFO_FILE).write_text(text)
    for opening in (lambda: open_release(folder), lambda: newest_release(folder.parent)):
        with pytest.raises(AffectdataError):
            opening()


@pytest.mark.parametrize(
    ("license_", "forbids"),
    [
        ("research only", True),
        ("must not be redistributed", True),
        ("free for research; no redistribution", True),
        ("annotations, not to be redistributed", True),
        ("All rights reserved", True),
        ("CC BY-NC-SA 4.0", False),
        ("CC0 1.0", False),
        ("not stated", False),
    ],
)
def test_a_licence_forbids_redistribution_in_words(license_: str, forbids: bool) -> None:
    assert forbids_redistribution(license_) is forbids
