"""Weights: read from untrusted files, fetched where the user let it, checked against the network.

A file is safetensors, or a .pt that holds tensors and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import re
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from affectdata.errors import InputError, MissingError, UsageError
from affectdata.hashing import file_hash
from affectdata.store.files import check_regular, read_regular

DEFAULT, NONE = "DEFAULT", "none"
OTHER_WAYS = "give --weights FILE, or take --backbone small_cnn --weights none for a rough check"
State = dict[str, torch.Tensor]
_TIMEOUT_S = 30  # a network that swallows packets must not hang the command
_SHOWN = 4  # keys named per kind of problem


def read_state(weights: str) -> State:
    """Read tensors by name from a .safetensors or a .pt file; no pickled object is ever run.

    Raises:
        MissingError: there is no such file.
        InputError: it holds something else.
    """
    path = Path(weights)
    if not path.is_file():
        raise MissingError(f"no weights at {path}", fix=OTHER_WAYS)
    try:
        check_regular(path)
        state = load_file(path) if path.suffix == ".safetensors" else _load_tensors(path)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise InputError(
            # The first sentence only: torch goes on to advise loading the file unsafely.
            f"{path.name} is no file of weights: {type(error).__name__}: {str(error).partition('. ')[0]}",
            where=str(path),
            fix="weights are read from .safetensors, or from a .pt of tensors only (a state_dict)",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path.name} holds no tensors by name", where=str(path), fix="save a state_dict")
    return state


def _load_tensors(path: Path) -> Any:
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    return dict(inner) if isinstance(inner, dict) else inner


def fetch_state(name: str, published: Any, say: Callable[[str], None]) -> State:
    """Return torchvision's own weights from torch's cache, else from the network after saying so.

    Raises:
        MissingError: they could not be fetched.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
    if not file.exists():
        size = published.meta.get("_file_size", 0)
        say(f"fetching the weights of {name}: {size:.0f} MB from {published.url}")
    try:
        # torch.hub announces downloads on stdout, which is for results.
        with _bounded_wait(), redirect_stdout(sys.stderr):
            state = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise MissingError(
            f"the weights of {name} are not there and could not be fetched: {error}",
            where=f"{published.url} to {file}",
            fix=OTHER_WAYS,
        ) from error
    # The files of DenseNet are older than torch's rule that a module's name has no dot.
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): state[key] for key in state}


@contextmanager
def _bounded_wait() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def fit_state(module: nn.Module, state: State, where: str) -> None:
    """Load weights that must fit exactly.

    Raises:
        InputError: naming the keys that are missing, unknown, or of another shape.
    """
    own = {key: value for key, value in module.state_dict().items() if "num_batches_tracked" not in key}
    state = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    problems = {"missing": own.keys() - state.keys(), "unknown": state.keys() - own.keys(), "shape": shapes}
    lines = [f"{what}: {_some(sorted(keys))}" for what, keys in problems.items() if keys]
    if lines:
        raise InputError(
            f"the weights do not fit {type(module).__name__}\n  " + "\n  ".join(lines),
            where=where,
            fix="give the weights of this network, or name the network that they are of with --backbone",
        )
    module.load_state_dict(state, strict=False)


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def state_hash(module: nn.Module) -> str:
    """Return the SHA-256 over names, types, shapes and values of a network's weights."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(f"{key}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_class(name: str) -> bool:
    """Whether a network's name is `path.py:Class`: to build it runs that file."""
    return ".py:" in name


def load_class(name: str) -> tuple[nn.Module, str]:
    """Build the network `path.py:Class` and return it with the hash of its file.

    Raises:
        UsageError: no such file, or no such class in it.
        InputError: the file does not run, or the class is no torch.nn.Module or wants arguments.
    """
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"affectdata_backbone_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"no file {path}", where=f"--backbone {name}")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    try:
        spec.loader.exec_module(loaded)
        network = getattr(loaded, attribute, None)
        module = network() if isinstance(network, type) and issubclass(network, nn.Module) else None
    except Exception as error:  # it is the user's code: whatever it raises is theirs to read
        raise InputError(
            f"{path.name} does not run: {type(error).__name__}: {error}",
            where=f"--backbone {name}",
            fix="the class is built without arguments",
        ) from error
    if module is None:
        raise UsageError(
            f"{path.name} has no torch.nn.Module called {attribute!r}", where=f"--backbone {name}"
        )
    return module, file_hash(read_regular(path))
