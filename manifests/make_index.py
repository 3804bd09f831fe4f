"""Write the index of a source from its manifest: the images, and digests of the ratings.

    affectdata ingest ROOT --out OUT
    python manifests/make_index.py OUT/NAME.parquet "where this copy comes from"

The manifest must be that of a complete copy, without a reject besides junk. Ratings are not written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from affectdata.manifest import load_manifest
from affectdata.reading.indexes import write_index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("origin", help="the first line of both files")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "index", help="folder to write to"
    )
    options = parser.parse_args()
    manifest = load_manifest(options.manifest)
    write_index(manifest.table, options.origin, options.out / f"{manifest.name}.csv")


if __name__ == "__main__":
    main()
