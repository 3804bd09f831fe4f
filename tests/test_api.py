"""The functions do what the commands do, print nothing, and name their parameters like the options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from affectdata import api
from affectdata.errors import UsageError
from affectdata.manifest.ingest import IngestResult
from affectdata.registry import find_plugins, load_plugin

RECIPE = """
name: made
target: valence
bins: {width: 20}
strata: [subtype]
split: {val: 0.15, test: 0.2}
balance: {max_copies: 2}
image: {size_px: [32, 32]}
pipelines: {flip: [{HorizontalFlip: {p: 1.0}}]}
subtypes: {default: {pipeline: flip}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a recipe."""
    monkeypatch.chdir(tmp_path)
    Path("made.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.slow
def test_the_whole_job_in_python(sample_gaped: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stages: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        stages[stage] = (done, total)

    ingested = api.ingest(sample_gaped, progress=progress)
    assert isinstance(ingested, IngestResult) and ingested.counts["kept"] == len(ingested.manifest)
    plan = api.plan_balance("made.yaml")
    assert not Path("releases").exists()
    assert plan.to_pandas()["n_before"].sum() == plan.splits.rows["train"]
    made = api.balance(plan, progress=progress)
    again = api.balance("made.yaml")
    assert made.is_new and not again.is_new and again.release.path == made.release.path
    assert api.verify(progress=progress).is_sound
    assert api.verify(made.release, rebuild=2).n_rebuilt == 2
    assert api.diff(made.release, again.release.path).step == "none"
    assert api.export(made.release, "croissant", progress=progress).is_dir()
    checked = api.train_check(backbone="small_cnn", weights="none", workers=1, progress=progress)
    assert checked.path.is_file() and checked.passed == checked.document.verdict.passed
    assert set(checked.rules["outcome"]) <= {"pass", "fail", "undecided", "notice"}
    assert len(checked.to_pandas()) == ingested.counts["kept"]
    assert stages.keys() == {"ingest", "render", "verify", "features", "train"}
    assert all(done == total for done, total in stages.values())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "call",
    [
        lambda address: api.ingest("gaped", out=address),
        lambda address: api.sample("gaped", address),
        lambda address: api.plan_balance("made.yaml", manifests=address),
        lambda address: api.init(address),
        lambda address: api.doctor(address),
    ],
)
def test_an_address_is_no_name_of_a_local_folder(call: Callable[[str], Any], here: Path) -> None:
    before = sorted(here.rglob("*"))
    with pytest.raises(UsageError, match="only local paths"):
        call("s3://bucket/folder")
    assert sorted(here.rglob("*")) == before


def test_results_have_a_repr_of_one_line_and_tables_for_notebooks(small_gaped: Path, here: Path) -> None:
    api.ingest(small_gaped)
    plan = api.plan_balance("made.yaml")
    made = api.balance(plan)
    for result in (plan, made, made.release, plan.manifests[0]):
        assert "\n" not in repr(result) and repr(result).startswith("<")
    for result in (made.release, plan.manifests[0]):
        assert "<table" in result._repr_html_() and "&lt;" in result._repr_html_()


OF_COMMANDS = {"--json", "--quiet", "-v", "--rules", "--dry-run", "--lint", "--why", "--study", "--forget"}
OF_COMMANDS |= {"--no-report", "--format"}
RENAMED = {"map": "column_map", "root": "roots", "no_crossfit": "crossfit"}


def options_of(command: click.Command) -> set[str]:
    """The parameters that a function should have for the options of a command."""
    flags = {option.opts[0] for option in command.params if isinstance(option, click.Option)} - OF_COMMANDS
    names = {flag.removeprefix("--").replace("-", "_") for flag in flags}
    return {RENAMED.get(name, name) for name in names}


FUNCTIONS = (
    *(
        "ingest",
        "balance",
        "concat",
        "diff",
        "download",
        "export",
        "compare",
        "init",
        "query",
        "sample",
        "split",
    ),
    *("study", "train_check", "verify"),
)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters_are_named_like_the_options(name: str) -> None:
    command = load_plugin("cli", name).command
    there = set(inspect.signature(getattr(api, name)).parameters)
    assert options_of(command) <= there


def test_sources_are_those_of_the_registry() -> None:
    assert [info.name for info in api.list_sources()] == find_plugins("sources")


@pytest.mark.parametrize(
    ("call", "option"),
    [
        (lambda: api.train_check(steps=10), "--steps has no effect with --mode frozen"),
        (lambda: api.ingest("x.csv", onto=["a.parquet"], strict=True), "--strict has no effect with --onto"),
        (
            lambda: api.ingest("x.csv", onto=["a.parquet"], trust_names=True),
            "--trust-names has no effect with --onto",
        ),
    ],
)
def test_an_option_without_effect_is_refused(call: Callable[[], Any], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        call()
