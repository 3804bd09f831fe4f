"""Network weights: read from untrusted files or downloaded, and checked against the network.

A file is .safetensors, or a .pt that contains tensors and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import pickle
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
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
OTHER_WAYS = "pass --weights FILE, or use the default of --backbone, which needs no download"
State = dict[str, torch.Tensor]
_TIMEOUT_S = 30  # a connection that drops packets must not hang the command
_SHOWN = 4  # keys listed per kind of problem


def read_state(weights: str) -> State:
    """Read tensors by name from a .safetensors or a .pt file; no pickled code is ever run.

    Raises:
        MissingError: the file does not exist.
        InputError: it contains something else.
    """
    path = Path(weights)
    if not path.is_file():
        raise MissingError(f"weights file not found: {path}", fix=OTHER_WAYS)
    try:
        check_regular(path)
        state = load_file(path) if path.suffix == ".safetensors" else decode_state(path)
    except Exception as error:  # a reader on hostile bytes may raise anything
        raise InputError(
            # First sentence only: after it torch advises loading the file unsafely.
            f"{path.name} is not a weights file: {type(error).__name__}: {str(error).partition('. ')[0]}",
            where=str(path),
            fix="use a .safetensors file, or a .pt file that contains only tensors (a state_dict)",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(
            f"{path.name} does not map names to tensors", where=str(path), fix="save a state_dict"
        )
    return state


def decode_state(source: Path | bytes) -> Any:
    """Return the content of a .pt file, a state dict without the dict around it; pickled code raises."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    loaded = torch.load(file, map_location="cpu", weights_only=True)
    inner = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    return dict(inner) if isinstance(inner, dict) else inner


def fetch_state(name: str, published: Any, note: Callable[[str], None]) -> State:
    """Return torchvision's own weights from torch's cache; otherwise call `note` and download them.

    Raises:
        MissingError: the download failed.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", Path(published.url).name)
    if not file.exists():
        size = published.meta.get("_file_size", 0)
        note(f"fetching the weights of {name}: {size:.0f} MB from {published.url}")
    try:
        # torch.hub reports downloads on stdout, which is reserved for results.
        with _socket_timeout(), redirect_stdout(sys.stderr):
            state = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise MissingError(
            f"could not download the weights of {name}: {error}",
            where=f"{published.url} to {file}",
            fix=OTHER_WAYS,
        ) from error
    # DenseNet's files predate torch's rule that module names contain no dot.
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key): state[key] for key in state}


@contextmanager
def _socket_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_strict(module: nn.Module, state: State, where: str) -> None:
    """Load weights whose keys and shapes must match the module exactly.

    Raises:
        InputError: keys are missing, unknown or of another shape; the message lists them.
    """
    expected = {key: value for key, value in module.state_dict().items() if "num_batches_tracked" not in key}
    state = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected.keys() & state.keys()
        if expected[key].shape != state[key].shape
    ]
    problems = {
        "missing": expected.keys() - state.keys(),
        "unknown": state.keys() - expected.keys(),
        "shape": shapes,
    }
    lines = [f"{what}: {_shorten(sorted(keys))}" for what, keys in problems.items() if keys]
    if lines:
        raise InputError(
            f"the weights do not match {type(module).__name__}\n  " + "\n  ".join(lines),
            where=where,
            fix="pass the weights of this network, or select their network with --backbone",
        )
    module.load_state_dict(state, strict=False)


def _shorten(keys: list[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more


def state_hash(module: nn.Module) -> str:
    """Return the SHA-256 of a network's weights: their names, types, shapes and values."""
    return tensors_hash(module.state_dict())


def tensors_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of tensors: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        digest.update(f"{key}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_class(name: str) -> bool:
    """Return whether a network's name is `path.py:Class`; building it runs that file."""
    return ".py:" in name


def load_class(name: str) -> tuple[nn.Module, str]:
    """Build the network `path.py:Class` and return it with the hash of its file.

    Raises:
        UsageError: the file does not exist, or has no torch.nn.Module of this name.
        InputError: the file or the constructor raises.
    """
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    spec = importlib.util.spec_from_file_location(f"affectdata_backbone_{path.stem}", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"file not found: {path}", where=f"--backbone {name}")
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script
    try:
        spec.loader.exec_module(script)
        network = getattr(script, attribute, None)
        module = network() if isinstance(network, type) and issubclass(network, nn.Module) else None
    except Exception as error:  # user code may raise anything
        raise InputError(
            f"{path.name} failed: {type(error).__name__}: {error}",
            where=f"--backbone {name}",
            fix="fix the file; the class is called without arguments",
        ) from error
    if module is None:
        raise UsageError(
            f"{path.name} defines no torch.nn.Module named {attribute!r}", where=f"--backbone {name}"
        )
    return module, file_hash(read_regular(path))
