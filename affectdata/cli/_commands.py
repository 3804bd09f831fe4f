"""The commands in the order of the workflow: a line for `affectdata --help`, and an example for their own."""

from __future__ import annotations

# Of at most 62 characters, so that no line is cut at 80 columns.
COMMANDS: dict[str, tuple[str, str]] = {
    "sources": ("List the known collections, their terms and layouts.", "sources oasis"),
    "sample": ("Write a small generated tree in the layout of a source.", "sample gaped gaped/"),
    "download": ("Download images of which a source has only the URLs.", "download wikiart/ --limit 100"),
    "ingest": ("Turn a folder of rated images into a manifest.", "ingest gaped/"),
    "init": ("Write a project folder with a recipe for your manifest.", "init ."),
    "query": (
        "Run a SELECT over the manifests.",
        'query "SELECT subtype, avg(valence) FROM gaped GROUP BY 1"',
    ),
    "compare": ("Show how similar two images are by several hashes.", "compare a.jpg b.jpg"),
    "concat": (
        "Write several manifests as one.",
        "concat manifests/gaped.parquet manifests/oasis.parquet --name both",
    ),
    "groups": (
        "Group cropped, mirrored or re-encoded copies of one image.",
        "groups manifests/gaped.parquet",
    ),
    "split": (
        "Write the splits of a recipe into a manifest.",
        "split manifests/gaped.parquet --recipe valence_bins",
    ),
    "select": (
        "Select a stimulus set matched between its cells.",
        "select manifests/oasis.parquet --recipe set.yaml",
    ),
    "balance": (
        "Split, balance and render images into a release.",
        "balance --recipe valence_bins --link releases/current",
    ),
    "verify": ("Re-hash a release and check its lineage.", "verify --rebuild 10"),
    "doctor": ("Report what is unfinished or broken in a working folder.", "doctor ."),
    "diff": ("Show what changed between two releases.", "diff releases/a-01234567 releases/a-89abcdef"),
    "train-check": ("Train on a release, score originals, apply the rules.", "train-check releases/current"),
    "study": ("Train a grid of settings and name the best on val.", "study study.yaml releases/current"),
    "predict": ("Predict the labels of images with a kept model.", "predict model.safetensors a.jpg b.jpg"),
    "suggest": (
        "Rank unrated images by the cells that they would fill.",
        "suggest new/ --recipe valence_bins --model model.safetensors",
    ),
    "report": ("Write one HTML page about a release or a manifest.", "report releases/current"),
    "export": (
        "Write a release for Hugging Face, timm, Keras, Croissant.",
        "export releases/current --to hf --i-may-redistribute",
    ),
    "publish": (
        "Write a release to a bucket (s3://, gs://, az://).",
        "publish releases/current s3://lab/sets",
    ),
    "schema": ("Print the JSON Schema of a file.", "schema recipe"),
}
