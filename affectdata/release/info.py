"""The schema of release.json: the type of every field in use, and the hash that covers them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from affectdata.config import parse_model
from affectdata.errors import IntegrityError, RecipeError
from affectdata.store.sealed import content_hash

CONTENT_HASH = "content_sha256"
_NOT_HASHED = (CONTENT_HASH, "created")
FORMER = "affectdata/release/2"  # the last form without CONTENT_HASH
_RESTORE = "restore the file, or re-run `affectdata balance`"

_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """Strict about known fields; fields added by later versions are allowed."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Bin(_Part):
    bin: str
    target: _Count
    n_before: _Count
    n_filled: _Count
    n_after: _Count
    shortfall: _Count


class Cell(_Part):
    bin: str
    stratum: str
    cell: str
    n_before: _Count
    n_after: _Count
    n_eff: float


class BeforeAfter(_Part):
    before: float | None
    after: float | None


class Balance(_Part):
    rows: _Count
    bins: list[Bin]
    cells: list[Cell]
    imbalance_ratio: BeforeAfter
    entropy: BeforeAfter


class Entry(_Part):
    """One source of a manifest that images come from."""

    name: str
    digest: str
    source: str
    title: str
    license: str
    citation: str
    bibtex: str = ""
    redistributable: bool
    url: str = ""
    evidence: str = ""
    estimated: list[str] = []


class Terms(_Part):
    pictures: dict[str, _Count]
    redistributable: bool
    commercial_use: bool
    changes: bool
    share_alike: list[str]


class Lexicon(_Part):
    file: str
    sha256: str
    words: list[str]


class Change(_Part):
    mean: float
    mean_abs: float


class Probe(_Part):
    auc: float
    low: float
    high: float


class Drift(_Part):
    copies: _Count
    near_copies: _Count = 0
    all: dict[str, Change] = {}
    by_pipeline: dict[str, dict[str, Change]] = {}
    by_subtype: dict[str, dict[str, Change]] = {}
    probe: Probe | None = None


class ReleaseInfo(_Part):
    """All of release.json; fields with a default are missing in some releases of form 2."""

    form: str = Field(alias="schema")

    id: _Sha256
    name: str
    mode: str
    recipe_sha256: str
    manifests: list[Entry]
    target: str
    rows: dict[str, _Count]
    folds: _Count | None
    originals: _Count
    copies: _Count
    balance: Balance
    versions: dict[str, str]
    render_version: _Count | str
    cpu_features: str
    canaries: dict[str, str]
    canary_draws: Annotated[int, Field(ge=1, le=1000)] = 1
    sums_sha256: str
    created: str
    terms: Terms | None = None
    lexicon: Lexicon | None = None
    drift: Drift | None = None
    ledger_sha256: _Sha256 | None = None
    content_sha256: str | None = None

    @field_validator("terms", mode="before")
    @classmethod
    def _not_null(cls, value: Any) -> Any:
        if value is None:  # they are there, or missing
            raise ValueError("must be a mapping of keys")
        return value


def parse_info(info: dict[str, Any], where: str) -> ReleaseInfo:
    """Return release.json with types.

    Raises:
        IntegrityError: lists every missing or wrong field.
    """
    try:
        return parse_model(ReleaseInfo, info, where)
    except RecipeError as error:
        raise IntegrityError(
            error.what,
            where=where,
            fix=_RESTORE,
        ) from error


def info_hash(info: dict[str, Any]) -> str | None:
    """Return the SHA-256 over every field but `created` and itself; None if a value cannot be JSON."""
    return content_hash({key: value for key, value in info.items() if key not in _NOT_HASHED})


def require_content_hash(info: dict[str, Any], where: str) -> None:
    """Refuse a release.json that was modified after publication; for whatever reads rows only.

    Raises:
        IntegrityError: naming what is wrong.
    """
    if problems := check_content_hash(info):
        raise IntegrityError(f"release.json: {'; '.join(problems)}", where=where, fix=_RESTORE)


def check_content_hash(info: dict[str, Any]) -> list[str]:
    """Return messages on what is wrong with the hash over release.json and with its time."""
    problems = []
    if CONTENT_HASH not in info:
        if info.get("schema") != FORMER:
            problems.append(f"{CONTENT_HASH} is missing")
    elif info[CONTENT_HASH] != info_hash(info):
        problems.append(f"the content was modified after publication ({CONTENT_HASH} does not match)")
    try:
        TypeAdapter(AwareDatetime).validate_python(datetime.fromisoformat(str(info.get("created"))))
    except (ValueError, ValidationError):
        problems.append(f"created must be a time with a time zone, not {str(info.get('created'))[:40]!r}")
    return problems
