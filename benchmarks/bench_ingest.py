"""Compare the image loop of `ingest` with hand-written loops and with decoding alone.

    python benchmarks/bench_ingest.py [--quick]

The loop of `ingest` reads, hashes, decodes and probes every image. The hand-written loops run on one thread
per core: the same functions, without batches, rows and handling of damaged files; the same with bare
libraries (imagehash for the pHash, one view instead of eight); reading, SHA-256 and decoding alone. One
worker shows how well the work is distributed over the cores. The whole command is `ingest` into an empty
folder, from recognising the source to the last finding; then it runs again on the same tree. Images are
generated, or those of the tree AFFECTDATA_BENCH_ROOT.

Required time: at most 1.18 of the hand-written loop (target: 1.05) and 2 of decoding alone (1.67); 0.59 of
one worker; for the second run 1/15 of the first (1/30).
"""

import hashlib
import io
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
import pyarrow as pa
import simplejpeg
import xxhash
from _bench import Options, make_images, parse_options, ratios, real_root, time_in_turns, write_section
from PIL import Image

from affectdata.hashing import file_hash
from affectdata.images.decode import decode as decode_image
from affectdata.images.phash import perceptual_hashes, pixel_hash
from affectdata.images.probe import Probe
from affectdata.manifest.ingest import ingest
from affectdata.manifest.join import _BATCH
from affectdata.reading.tree import read_tree
from affectdata.workers import default_workers, map_ordered


def loop(root: Path, names: list[str], workers: int) -> None:
    """Probe every image like `ingest`."""
    table = pa.table({"path": names})
    batches = (table.slice(start, _BATCH) for start in range(0, len(table), _BATCH))
    for _ in map_ordered(Probe(str(root)), batches, workers):
        pass


def first_ingest(root: Path, out: Path, workers: int) -> None:
    """Ingest into an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    ingest(root, out=out, workers=workers)


def probe_with_own_functions(path: Path) -> tuple[str, list[str], str]:
    """Call the functions of the loop."""
    data = path.read_bytes()
    rgb = decode_image(data).rgb
    return file_hash(data), perceptual_hashes(rgb), pixel_hash(rgb)


def decode(path: Path) -> tuple[bytes, np.ndarray]:
    """Read, hash and decode a file."""
    data = path.read_bytes()
    hashlib.sha256(data).hexdigest()
    if data[:2] == b"\xff\xd8":
        return data, simplejpeg.decode_jpeg(data)
    return data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def probe_with_libraries(path: Path) -> tuple[str, str]:
    """Do the work of the loop with bare libraries."""
    rgb = decode(path)[1]
    return xxhash.xxh3_128_hexdigest(rgb.data), str(imagehash.phash(Image.fromarray(rgb)))


def run_by_hand(work: Callable[[Path], object], root: Path, names: list[str]) -> None:
    """Call `work` for every file, on one thread per core."""
    with ThreadPoolExecutor(default_workers()) as pool:
        for _ in pool.map(work, [root / name for name in names]):
            pass


def measure(options: Options, root: Path, folder: Path) -> list[str]:
    """Time all alternatives and return the tables of ratios."""
    names, workers = list(read_tree(root).images()), default_workers()
    first_ingest(root, folder / "second", workers)
    ways = {
        "loop of ingest": lambda: loop(root, names, workers),
        "the loop with one worker": lambda: loop(root, names, 1),
        "hand-written, own functions": lambda: run_by_hand(probe_with_own_functions, root, names),
        "hand-written: read, SHA-256, decode, xxh3, imagehash": lambda: run_by_hand(
            probe_with_libraries, root, names
        ),
        "read, SHA-256, decode alone": lambda: run_by_hand(decode, root, names),
        "ingest, the whole command": lambda: first_ingest(root, folder / "first", workers),
        "the command with one worker": lambda: first_ingest(root, folder / "first", 1),
        "ingest again, nothing changed": lambda: ingest(root, out=folder / "second"),
    }
    times = time_in_turns(ways, options.pick(1, 5))
    hand, libraries, decoding = list(ways)[2:5]
    of_loop = ratios(times, "loop of ingest", "the loop with one worker", hand, libraries, decoding)
    whole = "ingest, the whole command"
    of_whole = ratios(times, whole, "the command with one worker", hand, libraries, decoding)
    return [*of_loop, "", *of_whole, "", *ratios(times, "ingest again, nothing changed", whole)]


def main() -> None:
    options = parse_options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        root = real_root() or Path(folder, "images")
        if not real_root():
            make_images(root, options.pick(60, 8000))
        n, lines = len(list(read_tree(root).images())), measure(options, root, Path(folder))
    kind = f"{n:,} images, {'real' if real_root() else 'generated JPEG of 640 × 480 px'}."
    title = f"Ingest, {'real' if real_root() else 'generated'} images"
    write_section(title, [kind, "", *lines], ("numpy", "pillow", "simplejpeg", "imagehash"))


if __name__ == "__main__":
    main()
