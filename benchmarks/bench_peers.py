"""Compare parts of the workflow with other packages.

    python benchmarks/bench_peers.py [--quick]

Probing images: the loop of `ingest`, and the whole command (with near-duplicates and a manifest), against
imagehash in one process per core, Hugging Face `imagefolder` with `map`, imagededup's encoder (no search for
duplicates) and cleanvision (exact and near-duplicates). None of them does all the work of the loop: SHA-256
(only the first), a hash of the pixels, eight views, handling of damaged files. With a tree of real images
(AFFECTDATA_BENCH_ROOT; GAPED images are BMP), only imagehash and imagededup are compared.

Rendering copies: `render` with the packaged recipe (cubic interpolation) and with linear interpolation,
against torchvision v2 and Augmentor. Each makes an original and three copies of every image, 256 px on the
short side; half of the copies are mirrored, and all are rotated by up to 10°. `render` does more work: JPEG
4:4:4 at quality 95 (torchvision 4:2:0 at 95, Augmentor 4:2:0 at 75), reflected borders (torchvision: black),
a seed per copy, and hashes. torchvision scales by 5 % and decodes an image once, like `render`, and
interpolates linearly: it has no cubic interpolation for tensors. Augmentor does not scale, interpolates
cubically, and decodes an image for every copy.

Required time of the loop, or of the packaged recipe: 0.4 of imagehash, 0.53 of Hugging Face, 0.62 of
imagededup (GAPED: 0.5), 0.33 of cleanvision; 0.5 of torchvision, 0.33 of Augmentor. Needs
benchmarks/requirements.txt.
"""

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}

import Augmentor
import imagehash
import torch
from _bench import Options, make_images, parse_options, ratios, real_root, time_in_turns, write_section
from bench_ingest import first_ingest, loop
from bench_render import COPIES, RECIPE, make_plan, render_images
from cleanvision import Imagelab
from datasets import load_dataset
from imagededup.methods import PHash
from PIL import Image
from torchvision.io import decode_image, encode_jpeg
from torchvision.transforms import v2

from affectdata.reading.tree import read_tree
from affectdata.recipe.recipe import Recipe
from affectdata.workers import default_workers

WORKERS = default_workers()
ENCODER = "imagededup, encoder only"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output of other packages."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def hash_file(path: Path) -> tuple[str, str]:
    """Return the SHA-256 of a file and its pHash by imagehash."""
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), str(imagehash.phash(Image.open(io.BytesIO(data))))


def run_imagehash(root: Path, names: list[str]) -> None:
    """Hash every image, in one process per core."""
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(hash_file, [root / name for name in names], chunksize=16))


def hash_row(row: dict[str, Any]) -> dict[str, str]:
    """Hash one image that Hugging Face decoded."""
    return {"phash": str(imagehash.phash(row["image"]))}


def run_hugging_face(root: Path) -> None:
    """Load the folder and hash every image."""
    with quiet(), tempfile.TemporaryDirectory() as cache:
        rows = load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=cache)
        rows.map(hash_row, num_proc=WORKERS, remove_columns=rows.column_names)


def run_imagededup(root: Path) -> None:
    """Hash every image."""
    with quiet():
        PHash(verbose=False).encode_images(str(root), recursive=True, num_enc_workers=WORKERS)


def run_cleanvision(root: Path) -> None:
    """Find exact and near-duplicates."""
    with quiet():
        lab = Imagelab(data_path=str(root))
        lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=WORKERS, verbose=False)


def run_torchvision(root: Path, out: Path) -> None:
    """Render an original and copies of every image, on one thread per core."""
    resize = v2.Resize(256)
    affine = v2.RandomAffine(10, scale=(0.95, 1.05), interpolation=v2.InterpolationMode.BILINEAR)
    draw = v2.Compose([v2.RandomHorizontalFlip(0.5), affine])

    def render(path: Path) -> None:
        rgb = decode_image(str(path))
        for copy in range(COPIES):
            small = resize(draw(rgb) if copy else rgb)
            (out / f"{path.stem}-{copy}.jpg").write_bytes(encode_jpeg(small, 95).numpy().tobytes())

    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(render, sorted(root.rglob("*.jpg"))))


def run_augmentor(root: Path, out: Path, n_copies: int) -> None:
    """Render every image, and `n_copies` copies of random images."""
    with quiet():
        originals, copies = (
            Augmentor.Pipeline(str(root), str(out), save_format="JPEG") for _ in ("originals", "copies")
        )
        copies.flip_left_right(0.5)
        copies.rotate(1, 10, 10)
        for pipeline in (originals, copies):
            pipeline.resize(1, 341, 256)
        originals.process()
        copies.sample(n_copies, multi_threaded=True)


def linear_recipe() -> Recipe:
    """Return the recipe of `bench_render` with linear interpolation."""
    steps = [
        {name: {**values, "interpolation": "linear"} if name == "Affine" else values}
        for step in RECIPE.pipelines["upright"]
        for name, values in step.items()
    ]
    return RECIPE.model_copy(update={"pipelines": {**RECIPE.pipelines, "upright": steps}})


def compare_probing(options: Options, root: Path, folder: Path) -> list[str]:
    """Compare packages that hash images."""
    names = list(read_tree(root).images())
    ways = {
        "loop of ingest": lambda: loop(root, names, WORKERS),
        "ingest, the whole command": lambda: first_ingest(root, folder / "manifests", WORKERS),
        "imagehash and SHA-256, processes": lambda: run_imagehash(root, names),
        ENCODER: lambda: run_imagededup(root),
    }
    if not real_root():
        ways |= {
            "Hugging Face imagefolder and map": lambda: run_hugging_face(root),
            "cleanvision": lambda: run_cleanvision(root),
        }
    times = time_in_turns(ways, options.pick(1, 5))
    own_loop, command, *others = ways
    summary = f"{len(names):,} images, {'real' if real_root() else 'generated JPEG of 640 × 480 px'}."
    return [summary, "", *ratios(times, own_loop, *others), "", *ratios(times, command, *others)]


def compare_rendering(options: Options, folder: Path) -> list[str]:
    """Compare packages that render copies."""
    root, out = folder / "originals", folder / "out"
    make_images(root, options.pick(40, 200))
    (out / "train").mkdir(parents=True)
    plan = make_plan(root)
    ways = {
        "render, packaged recipe, cubic": partial(render_images, root, plan, out, WORKERS),
        "render, linear": partial(render_images, root, plan, out, WORKERS, linear_recipe()),
        "torchvision v2, linear": lambda: run_torchvision(root, out),
        "Augmentor, cubic": lambda: run_augmentor(root, out, len(plan) * (COPIES - 1) // COPIES),
    }
    times = time_in_turns(ways, options.pick(1, 5))
    cubic, linear, *others = ways
    summary = f"{len(plan)} images of 256 px from {len(plan) // COPIES} JPEG of 640 × 480 px."
    return [summary, "", *ratios(times, cubic, *others), "", *ratios(times, linear, *others)]


def main() -> None:
    options = parse_options(__doc__)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # torchvision warns that its codecs will move to another package
    torch.set_num_threads(1)
    names = ["imagehash", "imagededup"]
    with tempfile.TemporaryDirectory() as folder:
        root = real_root() or Path(folder, "images")
        if not real_root():
            make_images(root, options.pick(40, 4000))
        lines = compare_probing(options, root, Path(folder))
        if not real_root():
            lines += ["", *compare_rendering(options, Path(folder))]
            names += ["datasets", "cleanvision", "torchvision", "Augmentor"]
    write_section("Other packages, real images" if real_root() else "Other packages", lines, tuple(names))


if __name__ == "__main__":
    main()
