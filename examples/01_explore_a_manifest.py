"""Explore a manifest: the smallest cells, near-duplicates, and rejects.

python examples/01_explore_a_manifest.py manifests/gaped.parquet
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

import affectdata

path = Path(sys.argv[1])
manifest = affectdata.load_manifest(path)
print(f"{len(manifest)} images of {', '.join(manifest.sources)}")

smallest_cells = (
    "SELECT subtype, floor(valence / 20) * 20 AS from_valence, count(*) AS images, avg(arousal) AS arousal "
    "FROM manifest GROUP BY ALL ORDER BY images LIMIT 5"
)
print(manifest.sql(smallest_cells).to_pandas())

edges = pq.read_table(path.with_suffix(".edges.parquet"))  # plain Parquet, readable with any tool
rejects = pq.read_table(path.with_suffix(".rejects.parquet"))
print(f"{len(edges)} pairs of near-duplicates; {len(rejects)} files or rows are not in the manifest")
