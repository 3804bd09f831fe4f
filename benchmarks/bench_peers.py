"""How fast are others at parts of the same job?

    python benchmarks/bench_peers.py [--quick]

Looking at pictures: `ingest` against imagehash in as many processes as there are cores, Hugging Face
`imagefolder` with `map`, imagededup and cleanvision (both look for near-duplicates as well). Copies: our
renderer against torchvision v2 and Augmentor with the like of its pipeline. None of them does all that ours
does: a SHA-256, a hash of the pixels, eight views and damage in every file; a seed per copy. Needs
benchmarks/requirements.txt.
"""

import contextlib
import hashlib
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}

import Augmentor
import imagehash
import torch
from _bench import compare, make_pictures, parse_options, write_section
from bench_render import COPIES, make_plan, ours
from cleanvision import Imagelab
from datasets import load_dataset
from imagededup.methods import PHash
from PIL import Image
from torchvision.io import decode_image, encode_jpeg
from torchvision.transforms import v2

from affectdata.ingest import ingest
from affectdata.workers import default_workers

WORKERS = default_workers()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of others from the results."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def hash_file(path: Path) -> tuple[str, str]:
    """Hash a file and its look with imagehash."""
    data = path.read_bytes()
    return hashlib.sha256(data).hexdigest(), str(imagehash.phash(Image.open(io.BytesIO(data))))


def by_imagehash(root: Path) -> None:
    """Hash every picture, in processes."""
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(hash_file, sorted(root.rglob("*.jpg")), chunksize=16))


def hash_row(row: dict[str, Any]) -> dict[str, str]:
    """Hash one picture that Hugging Face decoded."""
    return {"phash": str(imagehash.phash(row["image"]))}


def by_hugging_face(root: Path) -> None:
    """Load the folder and hash every picture."""
    with quiet(), tempfile.TemporaryDirectory() as cache:
        rows = load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=cache)
        rows.map(hash_row, num_proc=WORKERS)


def by_imagededup(root: Path) -> None:
    """Hash every picture and find near-duplicates."""
    with quiet():
        hasher = PHash(verbose=False)
        hashes = hasher.encode_images(str(root), recursive=True, num_enc_workers=WORKERS)
        hasher.find_duplicates(encoding_map=hashes, max_distance_threshold=6)


def by_cleanvision(root: Path) -> None:
    """Find exact and near-duplicates."""
    with quiet():
        lab = Imagelab(data_path=str(root))
        lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, n_jobs=WORKERS, verbose=False)


def by_torchvision(root: Path, out: Path) -> None:
    """Render an original and copies of every picture on threads."""
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


def by_augmentor(root: Path, out: Path, n: int) -> None:
    """Render as many copies as the others make pictures."""
    with quiet():
        pipeline = Augmentor.Pipeline(str(root), str(out), save_format="JPEG")
        pipeline.flip_left_right(0.5)
        pipeline.rotate(1, 10, 10)
        pipeline.resize(1, 341, 256)
        pipeline.sample(n, multi_threaded=True)


def main() -> None:
    options = parse_options(__doc__)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder, "pictures"), Path(folder, "out")
        make_pictures(root, options.pick(40, 500))
        (out / "train").mkdir(parents=True)
        plan = make_plan(root).slice(0, COPIES * options.pick(40, 200))
        few = Path(folder, "few")
        make_pictures(few, len(plan) // COPIES)
        looking = {
            "ingest, every file opened": lambda: ingest(root, out=out, rehash=True),
            "imagehash and SHA-256, processes": lambda: by_imagehash(root),
            "Hugging Face imagefolder and map": lambda: by_hugging_face(root),
            "imagededup": lambda: by_imagededup(root),
            "cleanvision": lambda: by_cleanvision(root),
        }
        copies = {
            "render": lambda: ours(root, plan, out, WORKERS),
            "torchvision v2": lambda: by_torchvision(few, out),
            "Augmentor": lambda: by_augmentor(few, out, len(plan)),
        }
        rounds = options.pick(1, 3)
        lines = compare(looking, rounds)
        lines += ["", *compare(copies, rounds)]
    names = ("imagehash", "datasets", "imagededup", "cleanvision", "torchvision", "Augmentor")
    write_section("Others", lines, names)


if __name__ == "__main__":
    main()
