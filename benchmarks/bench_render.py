"""Compare rendering with a bare loop of decode, albumentations, resize, encode and write.

    python benchmarks/bench_render.py [--quick]

Each image gives an original and three copies through the upright pipeline of valence_bins. `render` also
checks every source against its SHA-256, hashes every written file and measures its statistics; the bare loop
does not. Both decode an image once, on one thread per core, and write JPEG 4:4:4 at quality 95. Required
time: at most 1.11 of the bare loop, 0.59 of one worker.
"""

import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import albumentations as A
import cv2
import pyarrow as pa
import simplejpeg
from _bench import compare, make_images, parse_options, write_section

from affectdata.manifest.manifest import Images
from affectdata.recipe.recipe import Recipe, find_recipe, read_recipe
from affectdata.release.journal import WriteSamples, _batches
from affectdata.render.render import RenderSamples
from affectdata.workers import default_workers, map_ordered

COPIES = 4
RECIPE = read_recipe(find_recipe("valence_bins"))


def render_images(root: Path, table: pa.Table, out: Path, workers: int, recipe: Recipe = RECIPE) -> None:
    """Render like `balance`."""
    write = WriteSamples(RenderSamples(Images({"bench": root}), recipe.image, recipe.pipelines), str(out))
    for _ in map_ordered(write, _batches(table), workers):
        pass


def render_bare(path: Path, out: Path) -> None:
    """Render one image and its copies with bare libraries."""
    affine = A.Affine(
        rotate=(-10, 10),
        scale=(0.95, 1.05),
        interpolation=cv2.INTER_CUBIC,
        border_mode=cv2.BORDER_REFLECT_101,
        p=1.0,
    )
    pipeline = A.Compose([A.HorizontalFlip(p=0.5), affine])
    rgb = simplejpeg.decode_jpeg(path.read_bytes())
    for copy in range(COPIES):
        drawn = pipeline(image=rgb)["image"] if copy else rgb
        scale = 256 / min(drawn.shape[:2])
        size = (round(drawn.shape[1] * scale), round(drawn.shape[0] * scale))
        small = cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)
        data = simplejpeg.encode_jpeg(small, 95, colorsubsampling="444")
        (out / f"{path.stem}-{copy}.jpg").write_bytes(data)


def make_plan(root: Path) -> pa.Table:
    """Plan an original and copies of every image."""
    rows = []
    for path in sorted(root.rglob("*.jpg")):
        image_id = hashlib.sha256(path.read_bytes()).hexdigest()
        for copy in range(COPIES):
            row = {"sample_id": f"{image_id[:16]}-{copy}", "image_id": image_id, "source": "bench"}
            row |= {"path": path.relative_to(root).as_posix(), "split": "train"}
            rows.append({**row, "pipeline": "upright" if copy else "", "seed": len(rows)})
    return pa.Table.from_pylist(rows)


def main() -> None:
    options = parse_options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder, "images"), Path(folder, "out")
        make_images(root, options.pick(24, 240))
        (out / "train").mkdir(parents=True)
        table, paths = make_plan(root), sorted(root.rglob("*.jpg"))

        def run_bare_loop() -> None:
            with ThreadPoolExecutor(default_workers()) as pool:
                for _ in pool.map(lambda path: render_bare(path, out), paths):
                    pass

        ways = {
            "render": lambda: render_images(root, table, out, default_workers()),
            "the same with one worker": lambda: render_images(root, table, out, 1),
            "bare loop": run_bare_loop,
        }
        lines = compare(ways, options.pick(1, 5))
    kind = f"{len(table)} images of 256 px from {len(paths)} JPEG of 640 × 480 px."
    write_section("Render", [kind, "", *lines], ("albumentations", "opencv-python-headless", "simplejpeg"))


if __name__ == "__main__":
    main()
