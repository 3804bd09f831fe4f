"""Is looking at images as fast as a loop written by hand, and how much more than decoding alone?

    python benchmarks/bench_ingest.py [--quick]

The loop of `ingest` reads, hashes, decodes and looks at every image. By hand, on as many threads as there
are cores: the same functions in a row, without batches, rows and what becomes of damage; the same with bare
libraries (imagehash for the pHash, one view in place of eight); reading, SHA-256 and decoding alone. One
worker tells how well the cores are shared. The whole command is `ingest` into an empty folder, from
recognising the source to the last finding; then it runs again over the same tree. Images are generated, or
those of the tree AFFECTDATA_BENCH_ROOT.

Wanted, in time: no more than 1.18 of the loop by hand (aimed at: 1.05) and twice that of decoding alone
(1.67); 0.59 of that of one worker; for the second run a fifteenth of the first (a thirtieth).
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
from affectdata.images import decode as imaging
from affectdata.images.phash import perceptual_hashes, pixel_hash
from affectdata.images.probe import Probe
from affectdata.manifest.ingest import ingest
from affectdata.manifest.join import _BATCH
from affectdata.reading.tree import read_tree
from affectdata.workers import default_workers, map_ordered


def loop(root: Path, names: list[str], workers: int) -> None:
    """Look at every image as `ingest` does."""
    table = pa.table({"path": names})
    batches = (table.slice(start, _BATCH) for start in range(0, len(table), _BATCH))
    for _ in map_ordered(Probe(str(root)), batches, workers):
        pass


def first_ingest(root: Path, out: Path, workers: int) -> None:
    """Ingest into an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    ingest(root, out=out, workers=workers)


def look_alike(path: Path) -> tuple[str, list[str], str]:
    """Call what the loop calls."""
    data = path.read_bytes()
    rgb = imaging.decode(data).rgb
    return file_hash(data), perceptual_hashes(rgb), pixel_hash(rgb)


def decode(path: Path) -> tuple[bytes, np.ndarray]:
    """Read, hash and decode a file."""
    data = path.read_bytes()
    hashlib.sha256(data).hexdigest()
    if data[:2] == b"\xff\xd8":
        return data, simplejpeg.decode_jpeg(data)
    return data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def look(path: Path) -> tuple[str, str]:
    """Do with bare libraries what the loop does."""
    rgb = decode(path)[1]
    return xxhash.xxh3_128_hexdigest(rgb.data), str(imagehash.phash(Image.fromarray(rgb)))


def by_hand(work: Callable[[Path], object], root: Path, names: list[str]) -> None:
    """Call `work` for every file, on as many threads as there are cores."""
    with ThreadPoolExecutor(default_workers()) as pool:
        for _ in pool.map(work, [root / name for name in names]):
            pass


def measure(options: Options, root: Path, folder: Path) -> list[str]:
    """Return the tables."""
    names, workers = list(read_tree(root).images()), default_workers()
    first_ingest(root, folder / "again", workers)
    ways = {
        "loop of ingest": lambda: loop(root, names, workers),
        "the loop with one worker": lambda: loop(root, names, 1),
        "by hand: the functions of ours": lambda: by_hand(look_alike, root, names),
        "by hand: read, SHA-256, decode, xxh3, imagehash": lambda: by_hand(look, root, names),
        "read, SHA-256, decode alone": lambda: by_hand(decode, root, names),
        "ingest, the whole command": lambda: first_ingest(root, folder / "first", workers),
        "the command with one worker": lambda: first_ingest(root, folder / "first", 1),
        "ingest again, nothing changed": lambda: ingest(root, out=folder / "again"),
    }
    found = time_in_turns(ways, options.pick(1, 5))
    hand, libraries, decoding = list(ways)[2:5]
    of_loop = ratios(found, "loop of ingest", "the loop with one worker", hand, libraries, decoding)
    whole = "ingest, the whole command"
    of_whole = ratios(found, whole, "the command with one worker", hand, libraries, decoding)
    return [*of_loop, "", *of_whole, "", *ratios(found, "ingest again, nothing changed", whole)]


def main() -> None:
    options = parse_options(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        root = real_root() or Path(folder, "pictures")
        if not real_root():
            make_images(root, options.pick(60, 8000))
        n, lines = len(list(read_tree(root).images())), measure(options, root, Path(folder))
    kind = f"{n:,} images, {'real' if real_root() else 'generated JPEG of 640 × 480 px'}."
    title = f"Ingest, {'real' if real_root() else 'generated'} images"
    write_section(title, [kind, "", *lines], ("numpy", "pillow", "simplejpeg", "imagehash"))


if __name__ == "__main__":
    main()
