"""Is looking at pictures as fast as a loop written by hand, and how much more than decoding alone?

    python benchmarks/bench_ingest.py [--quick]

The loop of `ingest` reads, hashes, decodes and looks at every picture. By hand: the same with bare libraries
on as many threads (imagehash for the pHash, one view in place of eight). One worker tells how well it shares
the cores. Then `ingest` as a whole, and again
over the same tree. Pictures are generated, or those of the tree AFFECTDATA_BENCH_ROOT.
"""

import hashlib
import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import numpy as np
import pyarrow as pa
import simplejpeg
import xxhash
from _bench import compare, make_pictures, parse_options, real_root, write_section
from PIL import Image

from affectdata.ingest import ingest
from affectdata.joined import _BATCH
from affectdata.probe import Probe
from affectdata.tree import read_tree
from affectdata.workers import default_workers, map_ordered

OPTIONS = parse_options(__doc__)


def loop(root: Path, names: list[str], workers: int) -> None:
    """Look at every picture as `ingest` does."""
    table = pa.table({"path": names})
    batches = (table.slice(start, _BATCH) for start in range(0, len(table), _BATCH))
    for _ in map_ordered(Probe(str(root)), batches, workers):
        pass


def decode(path: Path) -> tuple[bytes, np.ndarray]:
    """Read, hash and decode a file."""
    data = path.read_bytes()
    hashlib.sha256(data).hexdigest()
    if data[:2] == b"\xff\xd8":
        return data, simplejpeg.decode_jpeg(data)
    return data, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def look(path: Path) -> tuple[str, str]:
    """Do by hand what the loop does."""
    rgb = decode(path)[1]
    return xxhash.xxh3_128_hexdigest(rgb.data), str(imagehash.phash(Image.fromarray(rgb)))


def by_hand(work: object, root: Path, names: list[str]) -> None:
    """Call `work` for every file, on as many threads as there are cores."""
    with ThreadPoolExecutor(default_workers()) as pool:
        for _ in pool.map(work, [root / name for name in names]):
            pass


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root, out = real_root() or Path(folder, "pictures"), Path(folder, "out")
        if not real_root():
            make_pictures(root, OPTIONS.pick(60, 1000))
        names = list(read_tree(root).pictures())
        rounds = OPTIONS.pick(1, 5)
        loops = {
            "loop of ingest": lambda: loop(root, names, default_workers()),
            "the same with one worker": lambda: loop(root, names, 1),
            "by hand: read, SHA-256, decode, xxh3, imagehash": lambda: by_hand(look, root, names),
            "read, SHA-256, decode alone": lambda: by_hand(decode, root, names),
        }
        wholes = {
            "ingest, files unchanged": lambda: ingest(root, out=out),
            "ingest, every file opened": lambda: ingest(root, out=out, rehash=True),
        }
        lines = compare(loops, rounds)
        again = compare(wholes, rounds)
    kind = f"{len(names)} pictures, {'real' if real_root() else 'generated JPEG of 640 × 480 px'}."
    title = f"Ingest, {'real' if real_root() else 'generated'} pictures"
    write_section(title, [kind, "", *lines, "", *again], ("numpy", "pillow", "simplejpeg", "imagehash"))


if __name__ == "__main__":
    main()
