"""How fast are others at parts of the same job?

    python benchmarks/bench_peers.py [--quick]

Looking at images: the loop of `ingest`, and the whole command (near-duplicates and a manifest as well),
against imagehash in as many processes as there are cores, Hugging Face `imagefolder` with `map`, imagededup's
encoder (no search for duplicates) and cleanvision (exact and near-duplicates). None of them does all that the
loop does: a SHA-256 (only the first), a hash of the pixels, eight views, damage. With a tree of real images
(AFFECTDATA_BENCH_ROOT; GAPED are BMP) the first and imagededup look at that.

Copies: our renderer, with the recipe as shipped, which warps cubically, and with linear interpolation,
against torchvision v2 and Augmentor. Each makes an original and three copies of every image, 256 px on the
short side; copies are mirrored by half and turned by up to 10°. Ours has more to do: JPEG 4:4:4 at quality 95
(torchvision 4:2:0 at 95, Augmentor 4:2:0 at 75), borders that are mirrored (torchvision: black), a seed per
copy and hashes. torchvision scales by 5 % and decodes an image once, as we do, and warps linearly: its
tensors know no cubic. Augmentor does not scale, warps and resizes cubically, and decodes an image for every
copy.

Wanted, of the loop or the recipe as shipped, in time: 0.4 of imagehash, 0.53 of Hugging Face, 0.62 of
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
from bench_render import COPIES, RECIPE, make_plan, ours
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
ENCODER = "imagededup, its encoder alone"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of others from the results."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def hash_file(path: Path) -> tuple[str, str]:
    """Hash a file and its look with imagehash."""
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), str(imagehash.phash(Image.open(io.BytesIO(data))))


def by_imagehash(root: Path, names: list[str]) -> None:
    """Hash every image, in processes."""
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(hash_file, [root / name for name in names], chunksize=16))


def hash_row(row: dict[str, Any]) -> dict[str, str]:
    """Hash one image that Hugging Face decoded."""
    return {"phash": str(imagehash.phash(row["image"]))}


def by_hugging_face(root: Path) -> None:
    """Load the folder and hash every image."""
    with quiet(), tempfile.TemporaryDirectory() as cache:
        rows = load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=cache)
        rows.map(hash_row, num_proc=WORKERS, remove_columns=rows.column_names)


def by_imagededup(root: Path) -> None:
    """Hash every image."""
    with quiet():
        PHash(verbose=False).encode_images(str(root), recursive=True, num_enc_workers=WORKERS)


def by_cleanvision(root: Path) -> None:
    """Find exact and near-duplicates."""
    with quiet():
        lab = Imagelab(data_path=str(root))
        lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=WORKERS, verbose=False)


def by_torchvision(root: Path, out: Path) -> None:
    """Render an original and copies of every image on threads."""
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


def by_augmentor(root: Path, out: Path, n_copies: int) -> None:
    """Render every image, and as many copies of some."""
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


def linear() -> Recipe:
    """Return the recipe of `bench_render` with linear interpolation."""
    steps = [
        {name: {**values, "interpolation": "linear"} if name == "Affine" else values}
        for step in RECIPE.pipelines["upright"]
        for name, values in step.items()
    ]
    return RECIPE.model_copy(update={"pipelines": {**RECIPE.pipelines, "upright": steps}})


def look(options: Options, root: Path, folder: Path) -> list[str]:
    """Compare ways to look at images."""
    names = list(read_tree(root).images())
    ways = {
        "loop of ingest": lambda: loop(root, names, WORKERS),
        "ingest, the whole command": lambda: first_ingest(root, folder / "manifests", WORKERS),
        "imagehash and SHA-256, processes": lambda: by_imagehash(root, names),
        ENCODER: lambda: by_imagededup(root),
    }
    if not real_root():
        ways |= {
            "Hugging Face imagefolder and map": lambda: by_hugging_face(root),
            "cleanvision": lambda: by_cleanvision(root),
        }
    found = time_in_turns(ways, options.pick(1, 5))
    one, whole, *others = ways
    said = f"{len(names):,} images, {'real' if real_root() else 'generated JPEG of 640 × 480 px'}."
    return [said, "", *ratios(found, one, *others), "", *ratios(found, whole, *others)]


def render(options: Options, folder: Path) -> list[str]:
    """Compare ways to make copies."""
    root, out = folder / "few", folder / "out"
    make_images(root, options.pick(40, 200))
    (out / "train").mkdir(parents=True)
    plan = make_plan(root)
    ways = {
        "render as shipped, warps cubic": partial(ours, root, plan, out, WORKERS),
        "render, warps linear": partial(ours, root, plan, out, WORKERS, linear()),
        "torchvision v2, warps linear": lambda: by_torchvision(root, out),
        "Augmentor, warps cubic": lambda: by_augmentor(root, out, len(plan) * (COPIES - 1) // COPIES),
    }
    found = time_in_turns(ways, options.pick(1, 5))
    cubic, straight, *others = ways
    said = f"{len(plan)} images of 256 px out of {len(plan) // COPIES} JPEG of 640 × 480 px."
    return [said, "", *ratios(found, cubic, *others), "", *ratios(found, straight, *others)]


def main() -> None:
    options = parse_options(__doc__)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # torchvision's coders go to another package some day
    torch.set_num_threads(1)
    names = ["imagehash", "imagededup"]
    with tempfile.TemporaryDirectory() as folder:
        root = real_root() or Path(folder, "pictures")
        if not real_root():
            make_images(root, options.pick(40, 4000))
        lines = look(options, root, Path(folder))
        if not real_root():
            lines += ["", *render(options, Path(folder))]
            names += ["datasets", "cleanvision", "torchvision", "Augmentor"]
    write_section("Others, real images" if real_root() else "Others", lines, tuple(names))


if __name__ == "__main__":
    main()
