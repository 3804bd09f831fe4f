"""Each exception knows its exit code, and the tree in the docstring is the tree in the code."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from affectdata import errors
from affectdata.errors import AffectdataError, DecodeError, InputError

EXIT_CODES = {
    "UsageError": 2,
    "InputError": 3,
    "SourceError": 3,
    "ManifestError": 3,
    "RecipeError": 3,
    "ImagesNotFound": 3,
    "DecodeError": 3,
    "IntegrityError": 4,
    "MissingError": 5,
}


def test_every_exception_has_its_exit_code() -> None:
    found = {
        name: each.exit_code
        for name, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, AffectdataError) and each is not AffectdataError
    }
    assert found == EXIT_CODES


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    rows = re.findall(r"^([│├└─ ]*)(\w+) {2,}(\d?)", errors.__doc__ or "", re.MULTILINE)
    assert {name for _, name, _ in rows} == {"AffectdataError", *EXIT_CODES}
    for branches, name, code in rows:
        depth = len(branches) // 4
        assert len(getattr(errors, name).__mro__) - len(AffectdataError.__mro__) == depth, name
        if code:
            assert getattr(errors, name).exit_code == int(code)


@pytest.mark.parametrize(
    ("where", "fix", "lines"),
    [
        ("", "", ["what"]),
        ("a.csv, row 3", "", ["what", "  where: a.csv, row 3"]),
        ("a.csv", "correct it", ["what", "  where: a.csv", "  fix:   correct it"]),
    ],
)
def test_message_says_what_where_and_what_to_do(where: str, fix: str, lines: list[str]) -> None:
    assert str(InputError("what", where=where, fix=fix)).splitlines() == lines


def test_a_decode_error_carries_its_reason() -> None:
    error = DecodeError("truncated", "Premature end of JPEG file")
    assert (error.reason, error.what) == ("truncated", "Premature end of JPEG file")


def example(kind: type[AffectdataError]) -> AffectdataError:
    """Return an exception of a class with all its fields filled."""
    if issubclass(kind, DecodeError):
        error: AffectdataError = kind("truncated", "what")
        error.where, error.fix = "a.csv", "correct it"
        return error
    return kind("what", where="a.csv", fix="correct it")


@pytest.mark.parametrize("name", ["AffectdataError", *EXIT_CODES])
def test_an_exception_survives_pickling_with_its_fields(name: str) -> None:
    error = example(getattr(errors, name))
    error.add_note("row 7")
    for back in (
        *(pickle.loads(pickle.dumps(error, n)) for n in (2, pickle.HIGHEST_PROTOCOL)),
        copy.copy(error),
    ):
        assert (type(back), back.args, vars(back), str(back)) == (
            type(error),
            error.args,
            vars(error),
            str(error),
        )
