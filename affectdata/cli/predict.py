"""`affectdata predict`: what a kept model says about images."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from affectdata.cli._output import common_options, document, echo, note, show, show_table
from affectdata.errors import UsageError
from affectdata.reading.tree import is_junk


@click.command("predict")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write a page with the images; with saliency maps if the extra `saliency` is installed.",
)
@click.option(
    "--maps",
    "map_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write a saliency map of every image, as PNG, to DIR; needs the extra `saliency`.",
)
@common_options
def command(
    model: Path, images: tuple[Path, ...], as_csv: bool, html: Path | None, map_folder: Path | None
) -> int:
    """Predict the labels of IMAGES with MODEL, a file written by --keep-model of `train-check` or `study`.

    A folder stands for all files in it. Values are on the scale from 0 to 100. --csv
    and --json have the probability of every label, or the shares of raters.
    """
    from affectdata.store.atomic import write_text
    from affectdata.store.escape import frame_to_csv
    from affectdata.train.model_file import load_model
    from affectdata.train.predict import labels_text, predict

    files = [file for path in images for file in _files(path)]
    loaded = load_model(model, note=note)
    predicted = predict(loaded, files)
    if as_csv:
        echo(frame_to_csv(predicted).rstrip("\n"))
    else:
        shown = predicted[["image", *loaded.targets]]
        if loaded.labels:
            kind = "shares" if loaded.are_shares else "labels" if loaded.several_labels else "class"
            shown = shown.assign(**{kind: [labels_text(loaded, row) for _, row in predicted.iterrows()]})
        show_table([str(name) for name in shown], shown.to_numpy().tolist(), indent="")
    if html:
        from affectdata.reporting.predictions import predictions_page

        maps = find_spec("captum") is not None
        write_text(html, predictions_page(loaded, files, predicted, maps=maps))
        show(f"wrote {html}")
        if not maps:
            note("note: without saliency maps: pip install 'affectdata[saliency]'")
    if map_folder:
        from affectdata.train.saliency import save_maps

        save_maps(loaded, files, map_folder)
        show(f"wrote {map_folder}")
    document("affectdata/predict/1", {"model": str(model), "predictions": predicted.to_dict("records")})
    return 0


def _files(path: Path) -> list[Path]:
    """Return a file, or the files of a folder without leftovers such as Thumbs.db.

    Raises:
        UsageError: no such file, or an empty folder.
    """
    if not path.is_dir():
        files = [path] if path.exists() else []
    else:
        files = sorted(file for file in path.iterdir() if file.is_file() and not is_junk(file.name))
    if not files:
        raise UsageError(f"no image {path}", fix="name image files, or folders that contain them")
    return files
