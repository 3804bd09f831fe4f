"""Keep the evaluations of finished splits, so that a killed check resumes: one .npz per split, no pickle.

A file is named by a hash of everything that the evaluation depends on: the rows, features and labels of the
split, what is trained, and the versions of the code. It has the arrays, and their structure as JSON.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from affectdata.check.evaluate import ArmResult, EvaluateSplit, SplitEvaluation
from affectdata.check.prepare import Split
from affectdata.check.target_arms import EvaluateTarget
from affectdata.store.atomic import replace_file
from affectdata.store.files import open_regular
from affectdata.train.rows import Rows

FOLDER = ".splits"  # below the folder of a release's checks
_VERSIONS = ("affectdata", "numpy", "scikit-learn", "scipy", "torch")
_ARRAY = "\0array"


@dataclass(frozen=True)
class SplitStore:
    """Evaluations of finished splits in `folder`; `others` are the rows that sources are fitted on."""

    folder: Path
    others: Mapping[str, Rows]

    def evaluate(self, split: Split, evaluate: EvaluateSplit | EvaluateTarget) -> SplitEvaluation:
        """Return the kept evaluation of a split, or evaluate it and keep the result."""
        path = self.folder / f"{self._key(split, evaluate)}.npz"
        kept = _read(path)
        if kept is None:
            kept = evaluate(split)
            _write(kept, path)
        return kept

    def clear(self) -> None:
        """Remove all evaluations, once the check is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _key(self, split: Split, evaluate: EvaluateSplit | EvaluateTarget) -> str:
        digest = xxhash.xxh3_128()
        digest.update(f"{self._code} {evaluate.settings!r}".encode())
        for part in _walk([split, self._others]):
            digest.update(part)
        return digest.hexdigest()

    @cached_property
    def _others(self) -> str:
        digest = xxhash.xxh3_128()
        for part in _walk(dict(self.others)):
            digest.update(part)
        return digest.hexdigest()

    @cached_property
    def _code(self) -> str:
        """The versions of libraries, and a hash of the code that trains and evaluates."""
        digest = xxhash.xxh3_128()
        package = Path(__file__).parent.parent
        for path in sorted([*package.glob("check/*.py"), *package.glob("train/*.py"), package / "labels.py"]):
            digest.update(path.read_bytes())
        return repr([digest.hexdigest(), [version(name) for name in _VERSIONS]])


def _walk(value: Any) -> Iterator[bytes]:
    """Yield bytes that determine a value made of dataclasses, mappings, lists and arrays."""
    if isinstance(value, np.ndarray):
        yield f"{value.dtype.str}{value.shape}".encode()
        yield (
            repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes()
        )
    elif is_dataclass(value):
        for field in fields(value):
            yield from _walk(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield f"{name!r}:".encode()
            yield from _walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)
    else:
        yield repr(value).encode()


def _write(evaluation: SplitEvaluation, path: Path) -> None:
    arrays: list[np.ndarray] = []
    document = {
        "arms": {name: asdict(arm) for name, arm in evaluation.arms.items()},
        "nearest": evaluation.nearest,
        "shuffled": evaluation.shuffled,
    }
    text = json.dumps(_take_arrays(document, arrays))
    with replace_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, np.array(text), *arrays, allow_pickle=False)


def _read(path: Path) -> SplitEvaluation | None:
    """Return a kept evaluation; None if there is none, or if its file is damaged."""
    try:
        with open_regular(path) as opened, np.load(opened, allow_pickle=False) as file:
            text, *arrays = (file[f"arr_{number}"] for number in range(len(file.files)))
        document = _put_arrays(json.loads(str(text)), arrays)
        arms = {name: ArmResult(**arm) for name, arm in document["arms"].items()}
        shuffled = document["shuffled"]
        return SplitEvaluation(arms, document["nearest"], shuffled and (shuffled[0], shuffled[1]))
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _take_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return `value` as JSON, with its arrays replaced by their numbers in `arrays`."""
    if isinstance(value, np.ndarray):
        is_text = value.dtype.hasobject
        if is_text and not all(isinstance(item, str) for item in value.tolist()):
            raise TypeError("an evaluation has objects other than strings")
        arrays.append(value.astype(str) if is_text else value)
        return {_ARRAY: [len(arrays) - 1, is_text]}
    if isinstance(value, dict):
        return {name: _take_arrays(item, arrays) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_take_arrays(item, arrays) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _put_arrays(value: Any, arrays: list[np.ndarray]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            number, is_text = value[_ARRAY]
            return arrays[number].astype(object) if is_text else arrays[number]
        return {name: _put_arrays(item, arrays) for name, item in value.items()}
    return [_put_arrays(item, arrays) for item in value] if isinstance(value, list) else value
