"""The column map: the meaning of the columns of a table, or of the parts of file names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from affectdata.config import MANIFEST_PATTERN, StrictModel
from affectdata.labels import spell_emotion
from affectdata.reading.tree import is_image_name
from affectdata.records import RATINGS, Scale, SourceInfo, Subtype
from affectdata.schema import INTENSITY

TEXTS = (
    *("subtype", "subject_id", "artist", "theme", "age_group", "gender", "ethnicity"),
    *("license", "attribution", "url"),
)
SPREADS = tuple(f"{name}_{part}" for name in RATINGS for part in ("sd", "n"))
MAPPED = (*RATINGS, *SPREADS, *TEXTS, "emotion", "agreement", "age", "split")
MAP_FILE = "columns.yaml"  # the column map of a tree, at its root
_SUMS = ("total", "sum", "n", "count", "votes", "n_votes")
# A column in braces; in file names without a table also with a width or a regular expression: {emotion:2}.
PLACEHOLDER = re.compile(r"\{([^{}:]+)(?::((?:[^{}]|\{[\d,]+\})+))?\}")


class SubtypeMap(StrictModel):
    """A content category: the meaning of its code."""

    name: str
    sign: Literal[-1, 0, 1] | None = None
    upright: bool = True
    tags: list[str] = []


class SampleMap(StrictModel):
    """The layout of the generated sample of a packaged map."""

    tables: list[str] = []  # paths; where the map gives a `header`, the last one has none
    above: list[str] = []  # lines above the header
    header: list[str] = []  # as shipped, repeated names included
    images: str  # path of an image, with {key}
    keys: list[str]  # used in turn; "%d" is the number of the row
    urls: str = ""  # path of the table of addresses (`urls` of the map)


class UrlMap(StrictModel):
    """A table of image addresses, beside the rating tables."""

    table: str  # path inside the root, or a pattern
    path: str  # column with the path of the image, under the root
    url: str  # column with the address; several rows for one path are tried in order


class ColumnMap(StrictModel):
    """Where the tables are, what their columns mean, the rating scales, and the terms of use."""

    name: Annotated[str, Field(pattern=MANIFEST_PATTERN)]
    table: str | list[str] = []  # paths inside the root, or patterns such as ratings/*.csv
    key: str = "key"  # the column that names the image
    file: str = "{key}"  # {key} or any column in braces; an image's suffix is optional
    match_parts: Annotated[int, Field(ge=1)] | None = None  # compare only that many last parts of paths
    title: str = ""
    sheet: str | None = None
    skip_rows: Annotated[int, Field(ge=0)] = 0  # the header is the first row after these with all columns
    header: list[str] = []  # of a table without one
    encoding: str | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    decimal: Literal[".", ","] = "."
    thousands: Literal[".", ",", " ", "'"] | None = None
    na: list[str] = ["NA", "N/A", "#N/A", "nan", "NaN", "null", "None"]  # beside empty cells
    placeholder: dict[str, str] = {}  # column, and the word in it for rows without an image
    rows: Literal["image", "rater", "person"] = "image"  # what a row is about: an image, a rater's answers, …
    rater: str | None = None  # column that names the rater, of whom one row per image counts
    repeated: Literal["reject", "mean"] = "reject"  # what to do with different rows for one image
    split_by_table: bool = False  # the tables are named train, val, test
    scales: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = {}
    columns: dict[str, str] = {}
    raters: dict[
        str, str | list[str]
    ] = {}  # ratings or `emotion`: columns with the answers of one rater each
    values: dict[
        str, dict[str, str | float | None]
    ] = {}  # meaning of codes in a mapped column; null: missing
    separator: Annotated[str, Field(min_length=1)] | None = None  # of several labels in a cell of `emotion`
    emotions: dict[str, str] = {}  # columns of shares, or …
    percent: bool = False  # … percentages …
    counts: bool = False  # … numbers of votes
    intensities: dict[str, str] = {}  # columns of graded emotions, on `scales: {intensity: …}`
    subtypes: dict[str, SubtypeMap] = {}
    groups: list[str] = []
    estimated: list[str] = []  # columns with values estimated by a machine
    license: str = "not stated"
    citation: str = "not stated"
    url: str = ""
    bibtex: str = ""
    evidence: Literal["seen", "unverified"] = "seen"
    urls: UrlMap | None = None  # or `columns: {url: …}`, if the rating table has the addresses
    sample: SampleMap | None = None

    @property
    def patterns(self) -> list[str]:
        """The paths and patterns of the tables; empty if all labels are in file names."""
        return [self.table] if isinstance(self.table, str) else self.table

    @property
    def needed(self) -> list[str]:
        """The columns that a table must have."""
        in_file = [match[1] for match in PLACEHOLDER.finditer(self.file) if match[1] != "key"]
        listed = [column for names in self.raters.values() if isinstance(names, list) for column in names]
        mapped = [*self.columns.values(), *self.emotions.values(), *self.intensities.values(), *listed]
        rater = [self.rater] if self.rater else []
        return list(dict.fromkeys([self.key, *in_file, *rater, *mapped, *self.placeholder]))

    def rater_columns(self, name: str, header: Iterable[str]) -> list[str]:
        """The columns with a rater's answers each, for a rating or `emotion`."""
        names = self.raters.get(name, [])
        if isinstance(names, list):
            return names
        return [column for column in header if column == names or fnmatchcase(column, names)]

    def scale_of(self, name: str) -> list[float]:
        """The scale of a rating, or of an intensity, `intensity_<emotion>`."""
        return self.scales.get(name) or self.scales["intensity"]

    @property
    def has_votes(self) -> bool:
        """Whether labels are computed from raw votes."""
        return self.counts or bool(self.raters) or self.rows != "image"

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            "".encode(encoding or "utf-8")
        except LookupError:
            raise ValueError("unknown encoding") from None
        return encoding

    @field_validator("scales")
    @classmethod
    def _usable_scales(cls, scales: dict[str, list[float]]) -> dict[str, list[float]]:
        known = ", ".join([*RATINGS, "intensity", "intensity_<emotion>"])
        others = [name for name in scales if name not in RATINGS and not (name + "_").startswith(INTENSITY)]
        _refuse(
            [f"{name} is not a rating; the ratings are: {known}" for name in others]
            + [
                f"{name}: the first value must be lower than the second"
                for name, (low, high) in scales.items()
                if low >= high
            ]
        )
        return scales

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        scales = info.data.get("scales", RATINGS)  # wrong scales are reported by their own validator
        unscaled = [name for name in RATINGS if name in columns.keys() - scales]
        _refuse(
            [f"{name} is unknown; known: {', '.join(MAPPED)}" for name in columns if name not in MAPPED]
            + [f"{name} needs its scale under `scales`" for name in unscaled]
            + [f"{name} without {name.split('_')[0]}" for name in SPREADS if _lacks_mean(name, columns)]
        )
        return columns

    @field_validator("values", "groups", "estimated")
    @classmethod
    def _of_columns(cls, names: Mapping[str, object] | list[str], info: ValidationInfo) -> object:
        columns = {**info.data.get("columns", dict.fromkeys(names)), **info.data.get("raters", {})}
        usable = ("emotion", *RATINGS, *TEXTS) if info.field_name == "values" else MAPPED
        _refuse([f"{name} is not among `columns`" for name in names if name not in columns])
        _refuse([f"{name} does not take text values" for name in names if name not in usable])
        return names

    @field_validator("values")
    @classmethod
    def _meanings(cls, values: dict[str, dict[str, str | float | None]]) -> object:
        _refuse(
            [
                f"{name}: {meaning!r} is not a {'number' if name in RATINGS else 'text'}"
                for name, codes in values.items()
                for meaning in codes.values()
                if meaning is not None and isinstance(meaning, str) == (name in RATINGS)
            ]
        )
        return values

    @field_validator("raters")
    @classmethod
    def _known_raters(cls, raters: dict[str, str | list[str]], info: ValidationInfo) -> object:
        scales, columns = info.data.get("scales", RATINGS), info.data.get("columns", {})
        _refuse(
            [f"{name} is not a rating or `emotion`" for name in raters if name not in (*RATINGS, "emotion")]
            + [f"{name} needs its scale under `scales`" for name in RATINGS if name in raters.keys() - scales]
            + [f"{name} is among `columns` too" for name in raters if name in columns]
        )
        return raters

    @field_validator("intensities")
    @classmethod
    def _scaled(cls, intensities: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        scales = info.data.get("scales", {"intensity": []})
        lacking = [name for name in intensities if not {"intensity", INTENSITY + name} & scales.keys()]
        _refuse([f"{name} needs `scales: {{intensity: [lowest, highest]}}`" for name in lacking])
        return intensities

    @field_validator("emotions", "intensities")
    @classmethod
    def _spelt_emotions(cls, emotions: dict[str, str]) -> dict[str, str]:
        _refuse(
            [f"write {name} as {spell_emotion(name)}" for name in emotions if spell_emotion(name) != name]
            + [f"{name} is not an emotion; it is computed" for name in emotions if name in _SUMS]
        )
        return emotions

    @model_validator(mode="after")
    def _agrees(self) -> ColumnMap:
        computed = {*SPREADS, "agreement"} & self.columns.keys() if self.rows == "rater" else set()
        _refuse(
            [f"{name}: with `rows: rater` it is computed; leave it out" for name in sorted(computed)]
            + ["`counts` and `percent` exclude each other"] * (self.counts and self.percent)
            + ["`rater` needs `rows: rater`"] * (self.rater is not None and self.rows != "rater")
            + ["`rows: rater` and `raters` exclude each other"] * (self.rows == "rater" and bool(self.raters))
            + ["`repeated` has no effect with `rows`"] * (self.rows != "image" and self.repeated != "reject")
            + ["`decimal` and `thousands` are the same"] * (self.decimal == self.thousands)
            + ["`emotion` and `emotions` exclude each other where votes are counted"]
            * (bool(self.emotions) and self._counts_words)
        )
        return self

    @property
    def _counts_words(self) -> bool:
        return "emotion" in self.raters or ("emotion" in self.columns and self.rows == "rater")

    @model_validator(mode="after")
    def _locates_images(self) -> ColumnMap:
        if "table" in self.model_fields_set and "key" not in self.model_fields_set:
            raise ValueError("give `key`: the column of the table that names the image")
        if not self.patterns and "file" not in self.model_fields_set:
            raise ValueError("give `table` and `key`, or a `file` with the parts of its name in braces")
        if self.patterns and any(match[2] for match in PLACEHOLDER.finditer(self.file)):
            raise ValueError("`file` with a width or an expression ({name:2}) is for labels in file names")
        try:
            _ = self.name_pattern
        except re.error as error:
            raise ValueError(f"`file` is not a valid pattern: {error}") from error
        return self

    @cached_property
    def name_pattern(self) -> re.Pattern[str]:
        """The pattern of image paths without suffix; its groups are the columns in braces, in their order."""
        file = self.file.rpartition(".")[0] if is_image_name(self.file) else self.file
        pattern, end = "(?:.*/)?", 0
        for match in PLACEHOLDER.finditer(self.file):
            part = match[2] or "[^/]+?"
            part = f"[^/]{{{part}}}" if part.isdecimal() else f"(?:{part})"
            pattern += re.escape(file[end : match.start()]) + f"(?P<_{end}>{part})"
            end = match.end()
        return re.compile(pattern + re.escape(file[end:]))

    def to_info(self, name: str) -> SourceInfo:
        """Return the data sheet of the source that the map describes."""
        return SourceInfo(
            name=name,
            title=self.title or name,
            scales={
                **{name: Scale(*self.scales[name]) for name in RATINGS if name in self.scales},
                **{INTENSITY + name: Scale(*self.scale_of(INTENSITY + name)) for name in self.intensities},
            },
            license=self.license,
            citation=self.citation,
            url=self.url,
            layout=self._layout(),
            subtypes={
                code: Subtype(item.name, item.sign, item.upright, tuple(item.tags))
                for code, item in self.subtypes.items()
            },
            groups=tuple(self.groups),
            estimated=tuple(self.estimated),
            evidence=self.evidence,
            bibtex=self.bibtex,
        )

    def _layout(self) -> str:
        names = PLACEHOLDER.sub(lambda match: f"<{self.key if match[1] == 'key' else match[1]}>", self.file)
        return ", ".join([*self.patterns, f"images called {names}"])


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))


def _lacks_mean(name: str, columns: Mapping[str, str]) -> bool:
    return name in columns and name.split("_")[0] not in columns
