"""The data card of a release: what it is, how it was levelled, on which terms, how to load it.

It opens with YAML for Hugging Face, which names the files of every split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from affectdata.release.release import split_file, table_file

_SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}  # as Hugging Face names them
_SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
_WITH_SPDX = re.compile(r"CC BY(-NC)?(-SA)? [34]\.0|CC BY(-NC)?-ND 4\.0|CC0 1\.0|MIT")


def data_card(info: dict[str, Any]) -> str:
    """Write the README.md of a release from what its release.json says."""
    files = {split: _data_files(info["mode"], split) for split in info["rows"]}
    lines = [
        *front_matter(info, files),
        f"# {info['name']}",
        "",
        f"Release `{info['id'][:16]}`, {sum(info['rows'].values())} images ({info['originals']} originals, "
        f"{info['copies']} augmented copies), levelled on {info['target']}.",
        "",
        *_table(("split", "images"), sorted(info["rows"].items())),
        "",
        *_empty(info["rows"]),
        "Only `train` holds copies; val and test are originals. Images that look alike share a split.",
        "",
        *_folds(info["folds"]),
        *_lexicon(info.get("lexicon")),  # earlier releases do not say
        f"## Levelling of train, by {info['target']}",
        "",
        *_table(
            ("bin", "before", "after", "short of target"),
            [(b["bin"], b["n_before"], b["n_after"], b["shortfall"] or "–") for b in info["balance"]["bins"]],
        ),
        "",
        "A copy adds no information about what is rare; `n_eff` per cell is in release.json.",
        "",
        "## Sources and terms",
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
        *_how_it_lies(info),
        f"`{table_file(info['mode'])}` has one row per image: labels, source image, pipeline, seed.",
        "`sha256sum -c SHA256SUMS` or `affectdata verify` checks the files; `recipe.yaml` makes them anew.",
    ]
    return "\n".join(lines) + "\n"


def _data_files(mode: str, split: str) -> str:
    return split_file(mode, split) if mode == "virtual" else f"{split}/*"


def front_matter(
    info: dict[str, Any], files: Mapping[str, str], more: Mapping[str, Any] | None = None
) -> list[str]:
    """Return the YAML that opens a README.md for Hugging Face; `files` has the pattern of each split."""
    licenses = list(info["terms"]["pictures"]) if "terms" in info else ["not stated"]
    n = sum(info["rows"].values())
    document = {
        "pretty_name": info["name"],
        **_license(" and ".join(licenses)),
        "size_categories": [next((size for bound, size in _SIZES.items() if n < bound), "n>10M")],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": name, "path": files[split]}
                    for split, name in _SPLIT_NAMES.items()
                    if info["rows"].get(split) and split in files
                ],
            }
        ],
        **(more or {}),
    }
    return ["---", yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip(), "---", ""]


def _license(license_: str) -> dict[str, str]:
    """Return the licence as Hugging Face wants it: an SPDX id, or a name that consists of such characters."""
    slug = re.sub(r"[^a-z0-9.]+", "-", license_.lower()).strip("-")
    return {"license": slug} if _WITH_SPDX.fullmatch(license_) else {"license": "other", "license_name": slug}


def _empty(rows: dict[str, int]) -> list[str]:
    names = " and ".join(name for name, n in sorted(rows.items()) if not n)
    said = f"The recipe asks for {names}, but no image is in it: there are too few groups."
    return [said, ""] if names else []


def _folds(n: int | None) -> list[str]:
    if n is None:
        return []
    return [
        f"Train is dealt into {n} folds (column `fold`). To cross-validate, train on all but one, copies",
        "too, and score the rows of that one with `copy` 0. Train was levelled as a whole: what is left is",
        "about as level as the folds are alike. Rows of train without a fold fill bins from other sources;",
        "they are always trained on.",
        "",
    ]


def _lexicon(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    return [
        "`lexicon_valence` and `lexicon_arousal` are no ratings: they are derived from emotions, as the mean",
        f"place of {', '.join(found['words'])} in {found['file']} (SHA-256 {found['sha256']}).",
        "",
    ]


def _how_it_lies(info: dict[str, Any]) -> list[str]:
    if info["mode"] == "files":
        return []
    return [
        "This release is virtual: it holds no images. Each is rendered from its source when it is read.",
        "",
    ]


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    return [
        "| " + " | ".join(header) + " |",
        "|" + " --- |" * len(header),
        *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows),
    ]


def sources_and_terms(info: dict[str, Any]) -> list[str]:
    """Return Markdown lines on where the images come from, and on which terms; the last is empty."""
    lines = []
    for each in info["manifests"]:
        pixels = "may be passed on" if each["redistributable"] else "must not be passed on"
        lines += [
            f"**{each['title']}** ({each['source']}). Terms: {each['license']}. Its images {pixels}.",
            f"Cite: {each['citation']}",
            *_estimated(each.get("estimated", [])),  # earlier releases do not say
            "",
        ]
    return lines + (_together(info["terms"]) if "terms" in info else [])  # earlier releases do not say


def _estimated(columns: list[str]) -> list[str]:
    return [f"A machine estimated these columns: {', '.join(columns)}."] if columns else []


def _together(terms: dict[str, Any]) -> list[str]:
    """Say what holds for the release as a whole: of every term the strictest."""
    said = [
        "its images may be passed on" if terms["redistributable"] else "its images must not be passed on",
        "commercial use is allowed" if terms["commercial_use"] else "no commercial use",
    ]
    if not terms["changes"]:
        said.append("changed images, as the copies are, must not be passed on")
    if terms["share_alike"]:
        said.append(f"share alike: what is made from it goes on under {' and '.join(terms['share_alike'])}")
    each = "Every row carries its own terms (`license`, `attribution`, `url`)."
    lines = [f"**This release as a whole**, by the strictest of its terms: {'; '.join(said)}. {each}", ""]
    if len(terms["pictures"]) > 1:
        lines += [*_table(("terms", "images"), list(terms["pictures"].items())), ""]
    return lines
