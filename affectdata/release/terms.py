"""Parse licence strings into permissions, and combine those of several sources.

Every row has its licence; the strictest one applies to the whole. A permission that the licence text does not
grant counts as denied. This is a reading aid, not legal advice: the owners' own wording is kept beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SHARE_ALIKE = re.compile(r"\bshare[- ]?alike\b|(?<=[- ])SA\b", re.IGNORECASE)
_NO_CHANGES = re.compile(r"\bno[- ]?deriv|(?<=[- ])ND\b", re.IGNORECASE)
_NON_COMMERCIAL = re.compile(
    r"\bnon-?commercial|(?<=[- ])NC\b|\bresearch\b|\bacademic\b|\beducation", re.IGNORECASE
)
_NO_REDISTRIBUTION = re.compile(
    r"\b(must|may|can) ?not\b|\bnot (to )?be (re-?)?(distributed|published|shared|passed)"
    r"|\bno (re-?)?distribution\b|\b(not|non)[- ]redistributable\b|\bdo not (re-?)?distribute\b"
    r"|\bresearch (use |purposes )?only\b|\ball rights reserved\b",
    re.IGNORECASE,
)
_OPEN = re.compile(r"\bCC0\b|\bpublic domain\b|\bCC[- ]BY\b|\bMIT\b|\bApache\b|\bODC|\bPDDL\b", re.IGNORECASE)


def combine_terms(images: Mapping[str, int], redistributable: bool) -> dict[str, Any]:
    """Return the permissions of all images together.

    `images` counts the images per licence; `redistributable` is true if every source allows redistribution.
    `share_alike` of the result lists the licences that derived work must be redistributed under; if two of
    them differ, they cannot both be met, and nothing may be redistributed.

    >>> combine_terms({"CC BY 4.0": 3, "CC BY-SA 4.0": 1}, True)["commercial_use"]
    True
    """
    licenses = sorted(images)
    share_alike = [name for name in licenses if _SHARE_ALIKE.search(name)]
    return {
        "pictures": {name: images[name] for name in licenses},
        "redistributable": redistributable and len({_short_name(name) for name in share_alike}) < 2,
        "commercial_use": all(_OPEN.search(name) and not _NON_COMMERCIAL.search(name) for name in licenses),
        "changes": not any(_NO_CHANGES.search(name) for name in licenses),
        "share_alike": share_alike,
    }


def forbids_redistribution(license_: str) -> bool:
    """Return whether a licence text explicitly forbids redistribution.

    >>> forbids_redistribution("research only, must not be broadcast"), forbids_redistribution("CC BY-NC 4.0")
    (True, False)
    """
    return _NO_REDISTRIBUTION.search(license_) is not None


def _short_name(license_: str) -> str:
    """Return the name of the licence without further text, such as `CC BY-SA 4.0`."""
    match = re.search(r"CC[- ]BY[-A-Z ]*?SA(?: \d\.\d)?", license_, re.IGNORECASE)
    return match[0].upper().replace("CC-", "CC ") if match else license_
