"""Terms of use, read from the words of licences: what holds for images of several sources together.

Every row carries its licence; together the strictest wins. What no word of a licence allows counts as not
allowed. This is a reading aid and no legal advice: the owners' own words stand beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SHARE_ALIKE = re.compile(r"\bshare[- ]?alike\b|(?<=[- ])SA\b", re.IGNORECASE)
_NO_CHANGES = re.compile(r"\bno[- ]?deriv|(?<=[- ])ND\b", re.IGNORECASE)
_NOT_COMMERCIAL = re.compile(
    r"\bnon-?commercial|(?<=[- ])NC\b|\bresearch\b|\bacademic\b|\beducation", re.IGNORECASE
)
_NOT_PASSED_ON = re.compile(
    r"\b(must|may|can) ?not\b|\bnot (to )?be (re-?)?(distributed|published|shared|passed)"
    r"|\bno (re-?)?distribution\b|\b(not|non)[- ]redistributable\b|\bdo not (re-?)?distribute\b"
    r"|\bresearch (use |purposes )?only\b|\ball rights reserved\b",
    re.IGNORECASE,
)
_FREE = re.compile(r"\bCC0\b|\bpublic domain\b|\bCC[- ]BY\b|\bMIT\b|\bApache\b|\bODC|\bPDDL\b", re.IGNORECASE)


def combine_terms(images: Mapping[str, int], redistributable: bool) -> dict[str, Any]:
    """Return what holds for all: `images` counts them by licence, `redistributable` holds for every source.

    `share_alike` names the licences under which anything made from the images must be passed on; two that
    differ cannot be kept together, so that then nothing may be passed on.

    >>> combine_terms({"CC BY 4.0": 3, "CC BY-SA 4.0": 1}, True)["commercial_use"]
    True
    """
    licenses = sorted(images)
    share_alike = [each for each in licenses if _SHARE_ALIKE.search(each)]
    return {
        "pictures": {each: images[each] for each in licenses},
        "redistributable": redistributable and len({_name_of(each) for each in share_alike}) < 2,
        "commercial_use": all(_FREE.search(each) and not _NOT_COMMERCIAL.search(each) for each in licenses),
        "changes": not any(_NO_CHANGES.search(each) for each in licenses),
        "share_alike": share_alike,
    }


def forbids_passing_on(license_: str) -> bool:
    """Say whether a licence forbids in words that images are passed on.

    >>> forbids_passing_on("research only, must not be broadcast"), forbids_passing_on("CC BY-NC 4.0")
    (True, False)
    """
    return _NOT_PASSED_ON.search(license_) is not None


def _name_of(license_: str) -> str:
    """Return the licence alone, of a text that says more: `CC BY-SA 4.0`."""
    found = re.search(r"CC[- ]BY[-A-Z ]*?SA(?: \d\.\d)?", license_, re.IGNORECASE)
    return found[0].upper().replace("CC-", "CC ") if found else license_
