"""The column map: which columns of a table, or which parts of a file's name, are what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from affectdata.config import StrictModel
from affectdata.labels import spell_emotion
from affectdata.records import RATINGS, Scale, SourceInfo, Subtype

TEXTS = (
    *("subtype", "subject_id", "artist", "theme", "age_group", "gender", "ethnicity"),
    *("license", "attribution", "url"),
)
SPREADS = tuple(f"{name}_{part}" for name in RATINGS for part in ("sd", "n"))
MAPPED = (*RATINGS, *SPREADS, *TEXTS, "emotion", "agreement", "age", "split")
MAP_FILE = "columns.yaml"  # at the root, it is the column map of the tree
PLACE = re.compile(r"\{([^{}]+)\}")


class SubtypeMap(StrictModel):
    """A content category: what its code means."""

    name: str
    sign: Literal[-1, 0, 1] | None = None
    upright: bool = True
    tags: list[str] = []


class SampleMap(StrictModel):
    """How the generated sample of a packaged map looks."""

    tables: list[str] = []  # paths; where the map gives a `header`, the last one has none
    above: list[str] = []  # lines above the header
    header: list[str] = []  # as shipped, also names that are there twice
    images: str  # path of an image, with {key}
    keys: list[str]  # "%d" is the row's number; used in turn
    urls: str = ""  # path of the table that the map's `urls` mean


class UrlMap(StrictModel):
    """A table of the addresses of images, beside those of ratings."""

    table: str  # its path inside the root, or a pattern
    path: str  # the column that says where an image is wanted, under the root
    url: str  # rows for one path are tried in their order


class ColumnMap(StrictModel):
    """Where tables are, which of their columns is what, on which scales, and under which terms."""

    name: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_]*$")]
    table: str | list[str] = []  # paths inside the root, or patterns such as ratings/*.csv
    key: str = "key"  # the column that names the image
    file: str = "{key}"  # {key} or any column in braces; an image's suffix is optional
    match_parts: Annotated[int, Field(ge=1)] | None = None  # of paths, from the end, that are compared
    title: str = ""
    sheet: str | None = None
    skip_rows: Annotated[int, Field(ge=0)] = 0  # the header is the first row from here with every column
    header: list[str] = []  # of a table that has none
    encoding: str | None = None
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    na: list[str] = ["NA", "N/A", "nan", "NaN", "null", "None"]  # an empty cell always is
    placeholder: dict[str, str] = {}  # column and the word in it that says: there is no such image
    repeated: Literal["reject", "mean"] = "reject"  # rows for one image that differ
    split_by_table: bool = False  # the tables are called train, val, test
    scales: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] = {}
    columns: dict[str, str] = {}
    values: dict[str, dict[str, str | None]] = {}  # what the codes in a mapped column mean; null: nothing
    emotions: dict[str, str] = {}
    percent: bool = False
    subtypes: dict[str, SubtypeMap] = {}
    groups: list[str] = []
    estimated: list[str] = []  # columns that a machine filled in
    license: str = "not stated"
    citation: str = "not stated"
    url: str = ""
    bibtex: str = ""
    evidence: Literal["seen", "unverified"] = "seen"
    urls: UrlMap | None = None  # else `columns: {url: …}` has the addresses
    sample: SampleMap | None = None

    @property
    def patterns(self) -> list[str]:
        """The paths and patterns of its tables; none where the files' names say it all."""
        return [self.table] if isinstance(self.table, str) else self.table

    @property
    def needed(self) -> list[str]:
        """The columns that a table must have."""
        placed = [name for name in PLACE.findall(self.file) if name != "key"]
        mapped = [*self.columns.values(), *self.emotions.values(), *self.placeholder]
        return list(dict.fromkeys([self.key, *placed, *mapped]))

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, encoding: str | None) -> str | None:
        try:
            "".encode(encoding or "utf-8")
        except LookupError:
            raise ValueError("no such encoding") from None
        return encoding

    @field_validator("scales")
    @classmethod
    def _usable_scales(cls, scales: dict[str, list[float]]) -> dict[str, list[float]]:
        known = ", ".join(RATINGS)
        _refuse(
            [f"{name} is no rating; these are: {known}" for name in scales if name not in RATINGS]
            + [f"{name} does not go from low to high" for name, (low, high) in scales.items() if low >= high]
        )
        return scales

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        scales = info.data.get("scales", RATINGS)  # if those are wrong, that is said already
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
        columns = info.data.get("columns", names)
        usable = ("emotion", *TEXTS) if info.field_name == "values" else MAPPED
        _refuse([f"{name} is not among `columns`" for name in names if name not in columns])
        _refuse([f"{name} takes no words" for name in names if name not in usable])
        return names

    @field_validator("emotions")
    @classmethod
    def _spelt_emotions(cls, emotions: dict[str, str]) -> dict[str, str]:
        _refuse(
            [f"write {name} as {spell_emotion(name)}" for name in emotions if spell_emotion(name) != name]
        )
        return emotions

    @model_validator(mode="after")
    def _says_where(self) -> ColumnMap:
        if "table" in self.model_fields_set and "key" not in self.model_fields_set:
            raise ValueError("`key` says which column of the table names the image")
        if not self.patterns and "file" not in self.model_fields_set:
            raise ValueError("give `table` and `key`, or a `file` with the parts of its name in braces")
        return self

    def to_info(self, name: str) -> SourceInfo:
        """Return the data sheet that the map amounts to."""
        return SourceInfo(
            name=name,
            title=self.title or name,
            scales={rating: Scale(low, high) for rating, (low, high) in self.scales.items()},
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
        called = PLACE.sub(lambda at: f"<{self.key if at[1] == 'key' else at[1]}>", self.file)
        return ", ".join([*self.patterns, f"images called {called}"])


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))


def _lacks_mean(name: str, columns: Mapping[str, str]) -> bool:
    return name in columns and name.split("_")[0] not in columns
