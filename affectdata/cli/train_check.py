"""`affectdata train-check`: what a model learns from a release, and a verdict on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from affectdata.api import FINETUNE
from affectdata.cli._output import (
    PathOrAddress,
    common_options,
    document,
    engine_option,
    folder_option,
    note,
    parse_roots,
    progress,
    roots_option,
    settings,
    show,
    workers_option,
)
from affectdata.cli._report import no_report_option, write_report
from affectdata.cli._study import run_study
from affectdata.train.packaged import DEFAULT_BACKBONE

_OF_A_CHECK = {  # options that --study does not take
    *(
        "--steps",
        "--size",
        "--splits",
        "--head",
        "--maps",
        "--mode",
        "--backbone",
        "--weights",
    ),
    *("--no-crossfit", "--check"),
}


@click.command("train-check")
@click.argument("release_path", metavar="[RELEASE]", required=False, type=PathOrAddress())
@click.option(
    "--backbone",
    multiple=True,
    default=[DEFAULT_BACKBONE],
    show_default=True,
    metavar="NAME",
    help="torchvision model, efficientnet_lite0, efficientnet_lite2, timm:NAME, mobilenet_v1, small_cnn, "
    "or path.py:Class. Several are used together.",
)
@click.option(
    "--weights",
    multiple=True,
    default=["DEFAULT"],
    show_default=True,
    metavar="FILE|none|DEFAULT",
    help="A .safetensors or .pt file; none: random weights; DEFAULT: the published ones, which only "
    "networks of torchvision and timm download. For each --backbone, in order.",
)
@click.option("--device", metavar="NAME", help="cpu, cuda, … [default: a GPU where there is one]")
@click.option(
    "--mode",
    type=click.Choice(["frozen", FINETUNE]),
    default="frozen",
    show_default=True,
    help="Train heads on frozen features, or fine-tune whole networks for every arm (needs a GPU).",
)
@click.option(
    "--steps", type=click.IntRange(1), metavar="N", help="Training steps per network. [default: 600]"
)
@click.option(
    "--size",
    "size_px",
    type=click.IntRange(1),
    metavar="PX",
    help="Input size in pixels. [default: the network's]",
)
@click.option(
    "--splits", type=click.IntRange(1, 5), metavar="N", help="Number of cross-validation splits. [default: 5]"
)
@click.option(
    "--study",
    type=click.Path(path_type=Path),
    metavar="STUDY.yaml",
    help="The same as `affectdata study STUDY.yaml`.",
)
@click.option(
    "--check",
    "bounds",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML file of bounds that replaces the recipe's `check:`; see --rules.",
)
@click.option(
    "--no-crossfit", is_flag=True, help="Score the held-out test split only; rules that need more fail."
)
@click.option(
    "--keep-model",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Save the model trained on the release for `affectdata predict`, a .safetensors file, and a model "
    "card beside it.",
)
@click.option(
    "--head",
    metavar="NAME",
    help="Head of the kept model: plain, subtype_aware, calibrated, or stacked:SOURCE. [default: plain]",
)
@click.option(
    "--maps",
    type=click.IntRange(1),
    metavar="N",
    help="Draw saliency maps of the N clearest and the N worst predictions on test.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown"]),
    default="text",
    show_default=True,
    help="markdown: for the summary of a CI job.",
)
@click.option("--rules", is_flag=True, help="List the rules with their default bounds, and exit.")
@folder_option("--out", "checks", "Folder for results and cached features.")
@no_report_option
@roots_option
@workers_option
@engine_option
@common_options
def command(
    release_path: Path | str | None,
    backbone: tuple[str, ...],
    weights: tuple[str, ...],
    device: str | None,
    mode: str,
    steps: int | None,
    size_px: int | None,
    splits: int | None,
    study: Path | None,
    bounds: Path | None,
    no_crossfit: bool,
    keep_model: Path | None,
    head: str | None,
    maps: int | None,
    form: str,
    rules: bool,
    out: Path,
    no_report: bool,
    roots: tuple[str, ...],
    workers: int | None,
    engine: str,
) -> int:
    """Train on a release, score untouched originals, and compare with the alternatives to balancing.

    RELEASE is a folder. [default: the newest in ./releases] A regressor (SVR on frozen features) and a
    classifier are trained on ten splits; the result is OUT/<release>/train-check.json. Every rule passes,
    fails or is undecided; the exit code is 1 if one fails. With fewer than 200 scored originals the check is
    inconclusive at best: it says so, and the exit code is 0. Other manifests in ./manifests are tried for
    thin bins. With --mode finetune networks are trained instead, with the same number of steps for every arm,
    on five splits; the result is OUT/<release>/finetune/train-check.json.
    """
    from affectdata import api
    from affectdata.cli._checked import print_check, print_markdown, print_rules

    if rules:
        from affectdata.check.gate import RULES
        from affectdata.check.words import LEAST_ORIGINALS
        from affectdata.recipe.bounds import Check

        listed = [(rule.name, rule.what) for rule in RULES]
        return print_rules(listed, Check().model_dump(mode="json"), LEAST_ORIGINALS)
    aloud = partial(click.echo, err=True)  # what goes to the network is printed even with --quiet
    if study:
        note("note: `affectdata study STUDY.yaml` is a command of its own now; --study does the same")
        api.refuse_options(_given_of_a_check(), "--study")
        return run_study(study, release_path, device, keep_model, no_report, out, parse_roots(roots), workers)
    with progress() as move:
        result = api.train_check(
            release_path,
            backbone=backbone,
            weights=weights,
            device=device,
            mode="finetune" if mode == FINETUNE else "frozen",
            steps=steps,
            size=size_px,
            splits=splits,
            check=bounds,
            crossfit=not no_crossfit,
            keep_model=keep_model,
            head=head,
            maps=maps,
            out=out,
            roots=parse_roots(roots),
            workers=workers,
            engine=engine,
            note=note,
            announce=aloud,
            progress=move,
        )
    if form == "markdown" and not settings().as_json:
        print_markdown(result.document)
        return 1 if result.outcome == "failed" else 0
    print_check(result.document)
    show(f"\nwrote {result.path}")
    for written in [result.model, *sorted({each.parent for each in result.maps})]:
        if written:
            show(f"wrote {written}")
    write_report(api.report, release_path, out, parse_roots(roots), no_report)
    document(result.document.form, result.to_dict())
    return 1 if result.outcome == "failed" else 0


def _given_of_a_check() -> list[str]:
    """Return the options on the command line that --study does not take, sorted."""
    context = click.get_current_context()
    given = {
        option.opts[0]
        for option in context.command.params
        if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    }
    return sorted(given & _OF_A_CHECK)
