"""Compare the cost of an epoch from the cache of decoded images with decoding in every epoch.

    python benchmarks/bench_dataset.py [--quick]

Fine-tuning decodes every image once, into a file of uint8 squares (`train.images`), and reads shuffled
batches from it (`train.feed`): as uint8, as sent to a GPU, or as floats, as used on the CPU. The baseline
makes the same squares from the JPEG files in every epoch, on all cores. The cache is warm. Required speed-up:
50 with uint8, 8 with floats; target: 100 and 11.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from _bench import compare, make_images, parse_options, write_section

from affectdata.train.feed import Feed
from affectdata.train.images import LoadImages, Readable, store_images
from affectdata.train.trunks import Normalisation
from affectdata.workers import default_workers, map_ordered

SIZE_PX, BATCH = 128, 32
NORMALISATION = Normalisation(SIZE_PX)


def read_files(batch: pa.Table) -> list[bytes]:
    return [Path(path).read_bytes() for path in batch["path"].to_pylist()]


def decode_epoch(table: pa.Table, order: np.ndarray, as_floats: bool) -> None:
    batches = (table.take(pa.array(order[start : start + BATCH])) for start in range(0, len(order), BATCH))
    for images in map_ordered(LoadImages(read_files, SIZE_PX), batches, default_workers()):
        if as_floats:
            NORMALISATION.apply(torch.from_numpy(images))


def read_epoch(feed: Feed, order: np.ndarray, as_floats: bool) -> None:
    for images in feed.stream(order[start : start + BATCH] for start in range(0, len(order), BATCH)):
        if as_floats:
            NORMALISATION.apply(images)


def main() -> None:
    options = parse_options(__doc__)
    n = options.pick(256, 4000)
    order = np.random.default_rng(0).permutation(n)
    lines = [f"{n:,} JPEG images of 640 × 480 px, squares of {SIZE_PX} px, batches of {BATCH}.", ""]
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), n)
        paths = sorted(str(path) for path in Path(folder).rglob("*.jpg"))
        table = pa.table({"path": paths, "key": paths})
        part = Readable(np.arange(n), table, read_files)
        feed = Feed(store_images([part], SIZE_PX, Path(folder), default_workers()), torch.device("cpu"))
        for form in ("uint8", "floats"):
            ways = {
                f"decoded in every epoch, {form}": partial(decode_epoch, table, order, form == "floats"),
                f"from the cache, {form}": partial(read_epoch, feed, order, form == "floats"),
            }
            lines += [*compare(ways, options.pick(1, 5)), ""]
    write_section("Images for a network", lines[:-1], ("torch", "numpy", "simplejpeg"))


if __name__ == "__main__":
    main()
