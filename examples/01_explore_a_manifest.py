"""Look into a manifest: which cells are thin, what looks alike, what was not taken.

python examples/01_explore_a_manifest.py manifests/gaped.parquet
"""

import sys
from pathlib import Path

import pyarrow.parquet as pq

import affectdata

path = Path(sys.argv[1])
manifest = affectdata.load_manifest(path)
print(f"{len(manifest)} images of {', '.join(manifest.sources)}")

thin = (
    "SELECT subtype, floor(valence / 20) * 20 AS from_valence, count(*) AS images, avg(arousal) AS arousal "
)
print(manifest.sql(thin + "FROM manifest GROUP BY ALL ORDER BY images LIMIT 5").to_pandas())

edges = pq.read_table(path.with_suffix(".edges.parquet"))  # plain Parquet: any tool reads it
rejects = pq.read_table(path.with_suffix(".rejects.parquet"))
print(f"{len(edges)} pairs look alike; {len(rejects)} files or rows are not in the manifest")
