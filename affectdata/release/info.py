"""What release.json may hold: the type of every field that anything reads, and the hash that covers them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from affectdata.config import parse_model
from affectdata.errors import IntegrityError, RecipeError
from affectdata.hashing import canonical_json, file_hash

COVER = "content_sha256"
_UNCOVERED = (COVER, "created")
FORMER = "affectdata/release/2"  # the last form without COVER
_RESTORE = "restore the file, or make the release anew with `affectdata balance`"

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]


class _Part(BaseModel):
    """Strict in what it knows, and silent about what a later version adds."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Bin(_Part):
    bin: str
    target: _Count
    n_before: _Count
    n_filled: _Count
    n_after: _Count
    shortfall: _Count


class _Cell(_Part):
    bin: str
    stratum: str
    cell: str
    n_before: _Count
    n_after: _Count
    n_eff: float


class _BeforeAfter(_Part):
    before: float | None
    after: float | None


class _Balance(_Part):
    rows: _Count
    bins: list[_Bin]
    cells: list[_Cell]
    imbalance_ratio: _BeforeAfter
    entropy: _BeforeAfter


class _Entry(_Part):
    """One source of a manifest."""

    name: str
    digest: str
    source: str
    title: str
    license: str
    citation: str
    redistributable: bool
    url: str = ""
    evidence: str = ""
    estimated: list[str] = []


class _Terms(_Part):
    pictures: dict[str, _Count]
    redistributable: bool
    commercial_use: bool
    changes: bool
    share_alike: list[str]


class _Lexicon(_Part):
    file: str
    sha256: str
    words: list[str]


class _Change(_Part):
    mean: float
    mean_abs: float


class _Probe(_Part):
    auc: float
    low: float
    high: float


class _Drift(_Part):
    copies: _Count
    near_copies: _Count = 0
    all: dict[str, _Change] = {}
    by_pipeline: dict[str, dict[str, _Change]] = {}
    by_subtype: dict[str, dict[str, _Change]] = {}
    probe: _Probe | None = None


class _Info(_Part):
    """All of release.json; what has a default is not in every release of form 2."""

    id: _Sha256
    name: str
    mode: str
    recipe_sha256: str
    manifests: list[_Entry]
    target: str
    rows: dict[str, _Count]
    folds: _Count | None
    originals: _Count
    copies: _Count
    balance: _Balance
    versions: dict[str, str]
    render_version: _Count | str
    cpu_features: str
    canaries: dict[str, str]
    sums_sha256: str
    created: str
    terms: _Terms | None = None
    lexicon: _Lexicon | None = None
    drift: _Drift | None = None
    content_sha256: str | None = None


def check_types(info: dict[str, Any], where: str) -> None:
    """Refuse a release.json of which a field is missing or of another type.

    Raises:
        IntegrityError: naming every such field.
    """
    try:
        parse_model(_Info, info, where)
    except RecipeError as error:
        raise IntegrityError(
            error.what,
            where=where,
            fix=_RESTORE,
        ) from error


def content_hash(info: dict[str, Any]) -> str | None:
    """Return the SHA-256 over every field but `created` and itself; None for what JSON cannot hold."""
    try:
        covered = canonical_json({key: value for key, value in info.items() if key not in _UNCOVERED})
        return file_hash(covered.encode())
    except (ValueError, RecursionError):  # an infinite number, half a character
        return None


def require_cover(info: dict[str, Any], where: str) -> None:
    """Refuse a release.json that is not the one that was published; for whatever reads rows only.

    Raises:
        IntegrityError: naming what is wrong.
    """
    if found := check_cover(info):
        raise IntegrityError(
            f"release.json: {'; '.join(found)}",
            where=where,
            fix=_RESTORE,
        )


def check_cover(info: dict[str, Any]) -> list[str]:
    """Say in words what is wrong with the hash over release.json and with its time."""
    found = []
    if COVER not in info:
        if info.get("schema") != FORMER:
            found.append(f"{COVER} is not there")
    elif info[COVER] != content_hash(info):
        found.append(f"its content is not the one that was published ({COVER})")
    try:
        TypeAdapter(AwareDatetime).validate_python(datetime.fromisoformat(str(info.get("created"))))
    except (ValueError, ValidationError):
        found.append(f"created is no time with its zone: {str(info.get('created'))[:40]!r}")
    return found
