"""The data card of a release: contents, balance, sources, terms of use, how to load it.

It opens with YAML front matter for Hugging Face: files of every split, columns with the names of classes,
licence, task and size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from affectdata.release.features import category_names, describe_columns
from affectdata.release.release import split_file, table_file
from affectdata.store.escape import markdown_table, to_markdown
from affectdata.store.parquet import Rows

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}  # split names on Hugging Face
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
_WITH_SPDX = re.compile(r"CC BY(-NC)?(-SA)? [34]\.0|CC BY(-NC)?-ND 4\.0|CC0 1\.0|MIT")


def data_card(info: dict[str, Any], rows: Rows) -> str:
    """Return the README.md of a release, from its release.json and the table of all rows."""
    files = {split: _data_files(info["mode"], split) for split in info["rows"]}
    features = describe_columns(_columns(info["mode"], rows), category_names(rows))
    lines = [
        *front_matter(info, files, features, image_folder=info["mode"] == "files"),
        f"# {to_markdown(info['name'])}",
        "",
        f"Release `{info['id'][:16]}`, {sum(info['rows'].values())} images ({info['originals']} originals, "
        f"{info['copies']} augmented copies), balanced on {to_markdown(info['target'])}.",
        "",
        *markdown_table(("split", "images"), sorted(info["rows"].items())),
        "",
        *_empty_splits(info["rows"]),
        "Only `train` contains augmented copies; val and test contain originals only. Near-duplicate images",
        "are always in the same split.",
        "",
        *_folds(info["folds"]),
        *_lexicon(info.get("lexicon")),  # absent in earlier releases
        f"## Balance of the train split, by {to_markdown(info['target'])}",
        "",
        *markdown_table(
            ("bin", "before", "after", "short of target"),
            [(b["bin"], b["n_before"], b["n_after"], b["shortfall"] or "–") for b in info["balance"]["bins"]],
        ),
        "",
        "Copies add no new information about rare cells; release.json gives the effective sample size of",
        "each cell (`n_eff`).",
        "",
        "## Sources and terms of use",
        "",
        *sources_and_terms(info),
        "## Use",
        "",
        "```python",
        "import affectdata",
        "train = affectdata.open_release(path).dataset('train')   # a torch Dataset",
        "",
        "import datasets",
        "dataset = datasets.load_dataset(path)                    # Hugging Face",
        "```",
        "",
        *_virtual_note(info),
        f"`{table_file(info['mode'])}` has one row per image: labels, source image, pipeline, seed.",
        "`sha256sum -c SHA256SUMS` or `affectdata verify` checks the files; `affectdata balance` rebuilds",
        "them from `recipe.yaml`.",
    ]
    return "\n".join(lines) + "\n"


def _data_files(mode: str, split: str) -> str:
    return split_file(mode, split) if mode == "virtual" else f"{split}/*"


def _columns(mode: str, rows: Rows) -> list[pa.Field]:
    """Return the columns as `datasets` gives them: the image in place of the name of its file."""
    if mode == "virtual":
        return list(rows.schema)
    return [pa.field("image", pa.binary()), *(field for field in rows.schema if field.name != "file_name")]


def front_matter(
    info: dict[str, Any],
    files: Mapping[str, str],
    features: Sequence[Mapping[str, Any]] = (),
    image_folder: bool = False,
) -> list[str]:
    """Return the YAML front matter for Hugging Face; `files` maps each split to its file pattern.

    `imagefolder` takes features from its config alone, other builders from `dataset_info`.
    """
    declared = {"features": list(features)} if features else {}
    licenses = list(info["terms"]["pictures"]) if "terms" in info else ["not stated"]
    n = sum(info["rows"].values())
    document = {
        "pretty_name": info["name"],
        **_license(" and ".join(licenses)),
        "task_categories": ["image-classification"],
        "tags": ["affective-computing", "emotion"],
        "size_categories": [next((size for bound, size in _SIZES.items() if n < bound), "n>10M")],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": name, "path": files[split]}
                    for split, name in SPLIT_NAMES.items()
                    if info["rows"].get(split) and split in files
                ],
                **(declared if image_folder else {}),
            }
        ],
        **({"dataset_info": declared} if declared and not image_folder else {}),
    }
    return ["---", yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip(), "---", ""]


def _license(license_: str) -> dict[str, str]:
    """Return the licence for Hugging Face: an SPDX id, or "other" with the licence's name as a slug."""
    slug = re.sub(r"[^a-z0-9.]+", "-", license_.lower()).strip("-")
    return {"license": slug} if _WITH_SPDX.fullmatch(license_) else {"license": "other", "license_name": slug}


def _empty_splits(rows: dict[str, int]) -> list[str]:
    names = " and ".join(name for name, n in sorted(rows.items()) if not n)
    text = f"The recipe requests {names}, but too few groups were available: no image was assigned to it."
    return [text, ""] if names else []


def _folds(n: int | None) -> list[str]:
    if n is None:
        return []
    return [
        f"The train split is divided into {n} folds (column `fold`). To cross-validate, train on all folds",
        "but one, including their copies, and evaluate on the originals (`copy` 0) of the remaining fold.",
        "The train split was balanced as a whole, so without one fold it is only about as balanced as the",
        "folds are alike. Train rows without a fold come from other sources, to fill bins; always train on",
        "them.",
        "",
    ]


def _lexicon(lexicon: dict[str, Any] | None) -> list[str]:
    if lexicon is None:
        return []
    return [
        "`lexicon_valence` and `lexicon_arousal` are not ratings: they are derived from emotions, as the",
        f"mean coordinates of {to_markdown(', '.join(lexicon['words']))} in {to_markdown(lexicon['file'])}",
        f"(SHA-256 {lexicon['sha256']}).",
        "",
    ]


def _virtual_note(info: dict[str, Any]) -> list[str]:
    if info["mode"] == "files":
        return []
    return [
        "This release is virtual: it contains no images. Each one is rendered from its source when read.",
        "",
    ]


def sources_and_terms(info: dict[str, Any]) -> list[str]:
    """Return Markdown lines about the sources and their terms of use; the last line is empty."""
    lines = []
    for source in info["manifests"]:
        lines += [
            f"**{to_markdown(source['title'])}** ({to_markdown(source['source'])}). "
            f"Terms: {to_markdown(source['license'])}. Its images {_redistribution(source)}.",
            f"Cite: {to_markdown(source['citation'])}",
            *_bibtex(source.get("bibtex", "")),  # absent in earlier releases
            *_estimated(source.get("estimated", [])),  # absent in earlier releases
            "",
        ]
    return lines + (_combined_terms(info["terms"]) if "terms" in info else [])  # absent in earlier releases


def _redistribution(terms: dict[str, Any]) -> str:
    return "may be redistributed" if terms["redistributable"] else "must not be redistributed"


def _bibtex(entry: str) -> list[str]:
    return ["", "```bibtex", entry.replace("```", "'''"), "```"] if entry else []


def _estimated(columns: list[str]) -> list[str]:
    listed = to_markdown(", ".join(columns))
    return [f"These columns were estimated automatically: {listed}."] if columns else []


def _combined_terms(terms: dict[str, Any]) -> list[str]:
    """Describe the terms of the release as a whole: the strictest of every term."""
    conditions = [
        f"its images {_redistribution(terms)}",
        "commercial use is allowed" if terms["commercial_use"] else "no commercial use",
    ]
    if not terms["changes"]:
        conditions.append("modified images, such as the copies, must not be redistributed")
    if terms["share_alike"]:
        licenses = to_markdown(" and ".join(terms["share_alike"]))
        conditions.append(f"share alike: derived work must be redistributed under {licenses}")
    text = f"**This release as a whole**, by its strictest terms: {'; '.join(conditions)}."
    lines = [f"{text} Every row has its own terms (`license`, `attribution`, `url`).", ""]
    if len(terms["pictures"]) > 1:
        lines += [*markdown_table(("terms", "images"), list(terms["pictures"].items())), ""]
    return lines
