"""Count what is worth a finding while a table is read: one finding per kind, with the first examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from affectdata.errors import SourceError
from affectdata.records import Finding, count_text

_SHOWN = 3  # examples in a finding
_DROPPED = {
    "bad_vote": ("vote", "left out, no usable number or label (`na` of the column map: missing values)"),
    "off_scale": ("vote", "left out, outside the scale"),
    "repeated_rater": ("vote", "left out, as the rater has an earlier one for the image"),
}
_TEXTS = {
    **_DROPPED,
    "averaged": (
        "image",
        "with several rows, whose means are used (if a row is one rater, `rows: rater` also gives SDs and "
        "numbers of raters)",
    ),
    "repeated_row": ("image", "with several identical rows"),
    "share_sum": ("image", "with shares that do not add up to 1"),
}


class Tally:
    """Examples and counts by kind; kinds are those of `_TEXTS`."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = defaultdict(int)
        self._examples: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, example: str) -> None:
        """Count an example."""
        self._counts[kind] += 1
        if self._counts[kind] <= _SHOWN:
            self._examples[kind].append(example)

    def findings(self) -> Iterator[Finding]:
        """Yield a finding per kind."""
        for kind in self._counts:
            yield Finding(kind, self._describe(kind))

    def refuse_dropped(self) -> None:
        """Refuse votes that were left out.

        Raises:
            SourceError: there are some.
        """
        dropped = [self._describe(kind) for kind in _DROPPED if kind in self._counts]
        if dropped:
            raise SourceError(
                "some votes cannot be used (--strict)",
                where="\n         ".join(dropped),
                fix="correct the table, or run without --strict, which leaves them out and counts them",
            )

    def _describe(self, kind: str) -> str:
        noun, text = _TEXTS[kind]
        more = "; …" if self._counts[kind] > _SHOWN else ""
        return f"{count_text(self._counts[kind], noun)} {text}: {'; '.join(self._examples[kind])}{more}"
