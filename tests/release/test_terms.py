"""Combined terms: the strictest wins, share-alike is kept, a permission not granted is denied."""

from __future__ import annotations

import pytest

from affectdata.registry import find_plugins, load_plugin
from affectdata.release.terms import combine_terms


@pytest.mark.parametrize(
    ("licenses", "commercial_use", "changes", "share_alike"),
    [
        (["CC0 1.0"], True, True, []),
        (["CC BY 4.0", "MIT"], True, True, []),
        (["CC BY 4.0", "CC BY-NC 4.0"], False, True, []),
        (["not stated", "CC0 1.0"], False, True, []),
        (["open access for research"], False, True, []),
        (["MIT; research only"], False, True, []),
        (["CC BY-SA 4.0", "CC0 1.0"], True, True, ["CC BY-SA 4.0"]),
        (["CC BY-NC-SA 3.0; research only", "CC0"], False, True, ["CC BY-NC-SA 3.0; research only"]),
        (["CC BY-NC-ND 4.0"], False, False, []),
        (["Share-Alike, whatever you do"], False, True, ["Share-Alike, whatever you do"]),
    ],
)
def test_the_strictest_wins(
    licenses: list[str], commercial_use: bool, changes: bool, share_alike: list[str]
) -> None:
    terms = combine_terms(dict.fromkeys(licenses, 1), redistributable=True)
    assert (terms["commercial_use"], terms["changes"]) == (commercial_use, changes)
    assert terms["share_alike"] == share_alike and terms["redistributable"]


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("CC BY-SA 4.0", "CC BY-SA 4.0 (texts)", True),
        ("CC BY-SA 4.0", "CC BY-NC-SA 4.0", False),
        ("CC BY-NC-SA 3.0", "CC BY-NC-SA 4.0", False),
    ],
)
def test_different_share_alike_licences_forbid_redistribution(
    first: str, second: str, together: bool
) -> None:
    assert combine_terms({first: 1, second: 1}, True)["redistributable"] is together
    assert not combine_terms({first: 1}, False)["redistributable"]


def test_no_collection_is_parsed_as_allowing_commercial_use() -> None:
    licenses = {load_plugin("sources", name).INFO.license for name in find_plugins("sources")}
    free = [name for name in licenses if combine_terms({name: 1}, True)["commercial_use"]]
    assert free == []
