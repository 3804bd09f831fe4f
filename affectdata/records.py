"""What a source says: `Record` per image, `Reject` per thing that is not a row, `SourceInfo` per source.

A source's `read` yields records, rejects and annotations; `ingest` turns them into tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

RATINGS = ("valence", "arousal", "dominance")


class Reason(StrEnum):
    """Why something under a source's root is not a row of the manifest."""

    UNREADABLE = "unreadable"  # no decoder takes it
    UNSUPPORTED_FORMAT = "unsupported_format"  # an image, but of a format that is not read, such as HEIF
    TRUNCATED = "truncated"  # it ends before its image does
    TOO_LARGE = "too_large"  # more pixels than the bound
    DECODE_WARNING = "decode_warning"  # only under --strict
    MISSING_IMAGE = "missing_image"  # a rating row without a file
    MISSING_RATING = "missing_rating"  # an image without a rating row
    BAD_RATING = "bad_rating"  # a cell that is not a number
    RATING_OUT_OF_RANGE = "rating_out_of_range"  # outside the source's scale
    CONFLICTING_RATING = "conflicting_rating"  # two rows for one image that differ
    BAD_NAME = "bad_name"  # a file name that the layout does not allow
    LINK = "link"  # a link that leads out of the root or nowhere, or no plain file; not followed
    EXACT_DUPLICATE = "exact_duplicate"  # the same bytes as a row; counted as merged
    LOOK_ALIKE = "look_alike"  # the same indexed image as a row, re-encoded; counted as merged
    AMBIGUOUS_CONTENT = "ambiguous_content"  # it looks like several indexed images, none of its name
    CONTENT_MISMATCH = "content_mismatch"  # the indexed image of its name looks different
    PLACEHOLDER = "placeholder"  # "photo unavailable" and the like
    JUNK = "junk"  # Thumbs.db and other leavings


@dataclass(frozen=True, slots=True)
class Scale:
    """A rating scale, `low` to `high`, with its neutral point halfway.

    >>> Scale(1, 9).to_pomp(8.2)
    90.0
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"a rating scale goes from low to high, not from {self.low} to {self.high}")

    def to_pomp(self, raw: float) -> float:
        """Rescale to percent of maximum possible, 0–100 (Cohen et al. 1999), rounded to 6 decimals."""
        return round((raw - self.low) / (self.high - self.low) * 100, 6)

    def from_pomp(self, pomp: float) -> float:
        """Undo `to_pomp`."""
        return self.low + pomp / 100 * (self.high - self.low)

    def spread_to_pomp(self, sd: float) -> float:
        """Rescale a standard deviation to POMP units."""
        return round(sd / (self.high - self.low) * 100, 6)

    def __contains__(self, raw: float) -> bool:
        return self.low <= raw <= self.high


@dataclass(frozen=True, slots=True)
class Rating:
    """A mean rating in the source's own unit, with its spread and number of raters where known."""

    mean: float
    sd: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Subtype:
    """A content category of a source.

    `sign` is the side of the scale that the category is meant to lie on (-1, 0, 1; None: no claim);
    `upright` says whether its images have an up that a turn would spoil. `counts` are the published numbers
    of images per interval of 5 POMP units, [0, 5) … [95, 100], by measure, to compare ratings with.
    """

    name: str
    sign: int | None = None
    upright: bool = True
    tags: tuple[str, ...] = ()
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known of a source as a whole: its data sheet in a form that code can use.

    `groups` names the columns (beside pixels and `subject_id`) whose equal values must not straddle a
    split. `evidence` is "seen" when the layout was read in real files, else "unverified". `bibtex` is the
    citation as an entry for LaTeX; empty where there is no paper. `generic` is a layout of no collection in
    particular: where a collection recognises a tree too, that one wins. `takes` are the options (map, name)
    that it heeds, `variants` the readings of one tree that --variant chooses from, the default first.
    `placeholder_names`: an image that bears so many file names or more is what a site shows where a
    photograph is gone. `overlay` is a source that has no images, but labels for those of others (`ingest
    TABLE --onto MANIFEST`). `estimated` are the columns that a machine filled in, also where people looked
    them over. `same_images` are sets of `source_id` that show one image in several forms, or parts of one.
    """

    name: str
    title: str
    scales: Mapping[str, Scale]
    license: str
    citation: str
    url: str
    layout: str
    subtypes: Mapping[str, Subtype] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    redistributable: bool = False
    evidence: str = "seen"
    bibtex: str = ""
    generic: bool = False
    takes: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    placeholder_names: int | None = None
    overlay: bool = False
    estimated: tuple[str, ...] = ()
    same_images: tuple[tuple[str, ...], ...] = ()

    def together(self, source_id: str) -> str | None:
        """Return the first of the images that are versions of this one; None if there is none."""
        return next((names[0] for names in self.same_images if source_id in names), None)


@dataclass(frozen=True, slots=True)
class Record:
    """One image as its source describes it; `path` is POSIX, relative to the source's root.

    `emotions` maps an emotion to the share of raters (0–1) who chose it; `agreement` is that of `emotion`
    unless it is given, and `agreement_n` the number of votes behind both. `intensities` maps an emotion to
    its mean intensity, on the source's scale `intensity_<emotion>`. `extra` holds every other column of the
    source's table, verbatim. Images with equal `together` must stay in one split; it is not a column of the
    manifest.
    """

    path: str
    source_id: str
    subtype: str | None = None
    ratings: Mapping[str, Rating] = field(default_factory=dict)
    emotion: str | None = None
    emotions: Mapping[str, float] = field(default_factory=dict)
    agreement: float | None = None
    agreement_n: int | None = None
    intensities: Mapping[str, float] = field(default_factory=dict)
    subject_id: str | None = None
    artist: str | None = None
    theme: str | None = None
    age: int | None = None
    age_group: str | None = None
    gender: str | None = None
    ethnicity: str | None = None
    split: str | None = None
    license: str | None = None
    attribution: str | None = None
    url: str | None = None
    content_tags: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    together: str | None = None

    def __post_init__(self) -> None:
        if self.agreement is None and self.emotion is not None:
            object.__setattr__(self, "agreement", self.emotions.get(self.emotion))


@dataclass(frozen=True, slots=True)
class Reject:
    """Something that is not a row of the manifest, and why.

    `path` is a file under the root, or for a rating row without a file the table and its key.
    """

    path: str
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """A file under the root that was read for what it says about images, or is a readme."""

    path: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth a person's look: `kind` for programs, `text` for people."""

    kind: str
    text: str


_SHOWN = 3  # examples in a finding
_SINGULAR = {"are": "is", "have": "has"}


def count_text(n: int, noun: str, verb: str = "") -> str:
    """Format a number of things; `noun` has a regular plural, `verb` is in the plural.

    >>> count_text(1, "image", "have"), count_text(2, "pair")
    ('1 image has', '2 pairs')
    """
    if n == 1:
        return f"1 {noun} {_SINGULAR.get(verb, f'{verb}s')}" if verb else f"1 {noun}"
    return f"{n} {noun}s {verb}".rstrip()


def shorten(examples: Sequence[str], n: int | None = None, separator: str = ", ") -> str:
    """Return the first three of `n` examples, and how many more there are.

    >>> shorten(["a", "b", "c", "d"]), shorten(["a", "b"])
    ('a, b, c and 1 more', 'a, b')
    """
    n_more = (len(examples) if n is None else n) - len(examples[:_SHOWN])
    return separator.join(examples[:_SHOWN]) + (f" and {n_more} more" if n_more > 0 else "")
