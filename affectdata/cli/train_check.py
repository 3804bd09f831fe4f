"""`affectdata train-check`: what a model learns from a release, and a verdict on it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from affectdata.cli._checked import print_check, print_rules
from affectdata.cli._output import (
    common_options,
    document,
    folder_option,
    note,
    parse_roots,
    progress,
    roots_option,
    say,
    workers_option,
)
from affectdata.cli._study import print_study
from affectdata.errors import PicturesNotFound, UsageError

if TYPE_CHECKING:
    from affectdata.manifest import Manifest, Pictures
    from affectdata.release import Release

FINETUNE = "finetune"
_NETWORKS, _HEADS = {"--steps", "--size", "--splits"}, {"--keep-model", "--maps"}
_IDLE = {  # options that have no say, by what is done
    "--mode frozen": _NETWORKS,
    f"--mode {FINETUNE}": _HEADS,
    "--study": {*_NETWORKS, *_HEADS, "--mode", "--backbone", "--weights", "--no-crossfit", "--check"},
}


@click.command("train-check")
@click.argument("release_path", metavar="[RELEASE]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--backbone",
    default="mobilenet_v3_large",
    show_default=True,
    metavar="NAME",
    help="A classification model of torchvision, timm:NAME, mobilenet_v1, small_cnn, or path.py:Class.",
)
@click.option(
    "--weights",
    default="DEFAULT",
    show_default=True,
    metavar="FILE|none|DEFAULT",
    help="A .safetensors or .pt file; none: random ones; DEFAULT: torchvision's, fetched if need be.",
)
@click.option("--device", metavar="NAME", help="cpu, cuda, … [default: a GPU where there is one]")
@click.option(
    "--mode",
    type=click.Choice(["frozen", FINETUNE]),
    default="frozen",
    show_default=True,
    help="Heads on frozen features, or the whole network fine-tuned, for every arm (wants a GPU).",
)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Of every network. [default: 600]")
@click.option(
    "--size",
    "size_px",
    type=click.IntRange(1),
    metavar="PX",
    help="Of its pictures. [default: the network's]",
)
@click.option("--splits", type=click.IntRange(1, 5), metavar="N", help="How many networks see. [default: 5]")
@click.option(
    "--study",
    type=click.Path(path_type=Path),
    metavar="STUDY.yaml",
    help="No check: train what the file says on the release's own split, name the best on val.",
)
@click.option(
    "--check",
    "bounds",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A YAML file of bounds in place of the recipe's `check:`; see --rules.",
)
@click.option("--no-crossfit", is_flag=True, help="Score the held-out test only; rules that need more fail.")
@click.option(
    "--keep-model",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the model of the release's train rows, for affectdata.predict; ends in .safetensors.",
)
@click.option(
    "--maps",
    type=click.IntRange(1),
    metavar="N",
    help="Draw where the model looked, for the N clearest and the N worst predictions on test.",
)
@click.option("--rules", is_flag=True, help="List the rules of the gate with their defaults, and stop.")
@folder_option("--out", "checks", "Folder for the result, and for the features that are kept.")
@roots_option
@workers_option
@common_options
def command(
    release_path: Path | None,
    backbone: str,
    weights: str,
    device: str | None,
    mode: str,
    steps: int | None,
    size_px: int | None,
    splits: int | None,
    study: Path | None,
    bounds: Path | None,
    no_crossfit: bool,
    keep_model: Path | None,
    maps: int | None,
    rules: bool,
    out: Path,
    roots: tuple[str, ...],
    workers: int | None,
) -> int:
    """Train on a release, score on untouched originals, compare with what else could be done with them.

    RELEASE is a folder. [default: the newest in ./releases] A regressor (SVR on frozen features) and a
    classifier are trained on ten splits; the result is OUT/<release>/train-check.json. Every rule passes,
    fails or is undecided; the exit code is 1 if one fails. With fewer than 200 scored originals the check is
    inconclusive at best: it says so, and the exit code is 0. Other manifests in ./manifests are tried for
    thin bins. With --mode finetune networks are trained instead, for as many steps on every arm, on five
    splits; the result is OUT/<release>/finetune/train-check.json.
    """
    from affectdata.balance.recipe import Check
    from affectdata.config import parse_model, read_yaml
    from affectdata.manifest import load_others
    from affectdata.release import newest_release, open_release
    from affectdata.train.backbones import load_backbone
    from affectdata.train.check import run_check
    from affectdata.train.final import check_maps, draw_maps, fit_final
    from affectdata.train.gate import RULES
    from affectdata.train.kept import check_name
    from affectdata.train.kept import keep_model as write_model
    from affectdata.train.prepare import prepare_check
    from affectdata.train.trials import study_release
    from affectdata.train.tuned import prepare_networks
    from affectdata.train.words import LEAST_ORIGINALS
    from affectdata.workers import default_workers

    if keep_model:
        check_name(keep_model)
    if rules:
        listed = [(rule.name, rule.what) for rule in RULES]
        return print_rules(listed, Check().model_dump(mode="json"), LEAST_ORIGINALS)
    _refuse_idle("--study" if study else f"--mode {mode}")
    n_workers = workers or default_workers()
    release = open_release(release_path or newest_release(Path("releases")), parse_roots(roots))
    asked = parse_model(Check, read_yaml(bounds), str(bounds)) if bounds else None
    aloud = partial(click.echo, err=True)  # what goes to the network is said whatever --quiet asks for
    if study:
        with progress("runs") as move:
            found, folder = study_release(
                release, study, out, device=device, workers=n_workers, say=aloud, progress=move
            )
        return print_study(found, folder)
    network = load_backbone(backbone, weights, device, say=aloud)
    if maps:
        check_maps(release, network)
    pictures, why_none = _find_pictures(release, no_crossfit)
    others: list[Manifest] = []
    if pictures:
        others, roots_of = load_others(release.table, Path("manifests"), release.roots, say=note)
        pictures = replace(pictures, roots={**pictures.roots, **roots_of})
    with progress("features") as move:
        prepared = prepare_check(
            release,
            network,
            pictures,
            out,
            others=others,
            check=asked,
            why_none=why_none,
            workers=n_workers,
            progress=move,
        )
    note(f"features: {len(prepared.bank)} pictures, {prepared.bank.n_new} of them new")
    if mode == FINETUNE:
        with progress("pictures") as move:
            prepared, learner = prepare_networks(
                prepared,
                out,
                n_splits=splits,
                steps=steps,
                size_px=size_px,
                workers=n_workers,
                progress=move,
                say=note,
            )
        checked = run_check(prepared, learner)
    else:
        with progress("train") as move:
            checked = run_check(prepared, workers=n_workers, progress=move)
    path = checked.write(out)
    print_check(checked.document)
    say(f"\nwrote {path}")
    model = fit_final(prepared) if keep_model or maps else None
    if model and keep_model:
        write_model(model, keep_model)
    drawn = draw_maps(prepared, model, maps, path.parent / "maps") if model and maps else []
    for written in [keep_model, *sorted({each.parent for each in drawn})]:
        if written:
            say(f"wrote {written}")
    document(checked.document["schema"], {**checked.document, "path": str(path)})
    return 1 if checked.failed else 0


def _refuse_idle(doing: str) -> None:
    """Refuse options that would have no say.

    Raises:
        UsageError: naming them.
    """
    context = click.get_current_context()
    given = {
        option.opts[0]
        for option in context.command.params
        if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    }
    if given & _IDLE[doing]:
        idle = ", ".join(sorted(given & _IDLE[doing]))
        raise UsageError(f"{idle} would have no say with {doing}", fix="see --mode, or leave it out")


def _find_pictures(release: Release, no_crossfit: bool) -> tuple[Pictures | None, str]:
    """Return the source pictures, or why there are none."""
    if no_crossfit:
        return None, "--no-crossfit was asked for"
    try:
        return release.pictures(), ""
    except PicturesNotFound as error:
        note(f"note: only the held-out score\n{error}")
        return None, error.what
