"""The loop: steps of training in two phases, points of the curve, and checkpoints to resume from."""

from __future__ import annotations

import itertools
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from affectdata.errors import InputError, MissingError
from affectdata.hashing import canonical_json, file_hash, stable_seed
from affectdata.store.files import check_regular
from affectdata.store.parquet import replace_file
from affectdata.train.feed import Feed, deal_batches
from affectdata.train.losses import find_loss
from affectdata.train.networks import Network
from affectdata.train.task import LEAST_PART, Examples, Held, Settings
from affectdata.train.weights import state_hash

_WARM_FRAC = 0.05  # of the second phase
_STATE = ("step", "n_parts", "done", "curve", "best")  # attributes that a resumed run takes over
Point = dict[str, Any]
_EVERY_S = 60.0  # what an interrupted run may lose
_CHUNK = 256  # images read at a time


class Loop:
    """One run over examples; `network` is trained in place. `n_parts`: what a batch is cut into."""

    def __init__(
        self, network: Network, train: Held, val: Held | None, settings: Settings, say: Callable[[str], None]
    ) -> None:
        self.network, self.train, self.val, self.settings, self.say = network, train, val, settings, say
        self.module, self.device = network.module, network.device
        self.cost = find_loss(settings.loss).cost
        self.class_weights = _class_weights(settings, network)
        self.n_steps = settings.count_steps(len(train.rows))
        self.head_steps = min(settings.head_steps, self.n_steps)
        self.groups = network.groups()
        self.optimiser = torch.optim.AdamW(
            [{"params": self.groups["head"]}, {"params": self.groups["body"]}],
            weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.module.drop.p = settings.dropout
        self.step, self.n_parts, self.done = 0, 1, False
        self.curve: list[Point] = []
        self.best: dict[str, Tensor] = {}

    def state(self) -> dict[str, Any]:
        """Return all that `resume` needs, as tensors and plain data."""
        plain = {name: getattr(self, name) for name in _STATE}
        return {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict(), **plain}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same run."""
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name in _STATE:
            setattr(self, name, state[name])

    def run(self, feed: Feed) -> Iterator[Point]:
        """Train to the end; yield every point of the curve with `steps`, `images_per_s` and `eta_s`."""
        settings, rows = self.settings, self.train.rows
        batches = deal_batches(len(rows), settings.batch, settings.seed, self.step)
        left = 0 if self.done else self.n_steps - self.step
        dealt, ahead = itertools.tee(itertools.islice(batches, left))
        total, first, began = torch.zeros((), device=self.device), self.step, time.monotonic()
        self._set_phase()
        for at, images in zip(dealt, feed.stream(rows[each] for each in ahead), strict=True):
            torch.manual_seed(stable_seed(settings.seed, self.step))  # dropout: a resumed run draws the same
            self._set_rates()
            total += self._take_step(torch.from_numpy(at).to(self.device), images)
            self.step += 1
            if self.step % settings.every and self.step not in (self.head_steps, self.n_steps):
                continue
            n_steps, loss = self.step - first, float(total)
            rate = n_steps / max(time.monotonic() - began, 1e-9)
            self._add_point(loss / n_steps, feed)
            yield {
                **self.curve[-1],
                "steps": self.n_steps,
                "images_per_s": rate * settings.batch,
                "eta_s": (self.n_steps - self.step) / rate,
            }
            self._set_phase()  # the last step of the first phase is a point
            if self.done:
                return
            total, first, began = torch.zeros_like(total), self.step, time.monotonic()

    def _set_phase(self) -> None:
        is_head = self.step < self.head_steps
        self.module.train()
        self.module.body.train(not is_head)  # a frozen body keeps its batch norms' averages too
        for parameter in self.groups["body"]:
            parameter.requires_grad_(not is_head)

    def _set_rates(self) -> None:
        settings, is_head = self.settings, self.step < self.head_steps
        scale = 1.0 if is_head else _schedule(self.step - self.head_steps, self.n_steps - self.head_steps)
        head, body = self.optimiser.param_groups
        head["lr"], body["lr"] = settings.lr_head * scale, settings.lr_body * scale

    def _take_step(self, at: Tensor, images: Tensor) -> Tensor:
        """Train on one batch; where it does not fit into memory, in twice as many parts from now on."""
        while True:
            try:
                return self._accumulate(at, images)
            except torch.cuda.OutOfMemoryError:
                pass  # what follows stands outside, where the failed pass no longer holds its tensors
            self._halve(len(at))

    def _accumulate(self, at: Tensor, images: Tensor) -> Tensor:
        self.optimiser.zero_grad()
        total = torch.zeros((), device=self.device)
        parts = (each.tensor_split(self.n_parts) for each in (images, at))
        for part, of_part in zip(*parts, strict=True):
            loss = self._costs(self.train, of_part, part).sum() / len(at)
            torch.autograd.backward(loss)
            total += loss.detach()
        self.optimiser.step()
        return total

    def _halve(self, n_rows: int) -> None:
        self.n_parts *= 2
        if n_rows // self.n_parts < LEAST_PART:
            raise MissingError(
                f"{self.network.name} does not fit into the memory of {self.device}, not even "
                f"{n_rows // self.n_parts * 2} images at a time",
                fix="take smaller images, a smaller network, or --device cpu",
            )
        self.optimiser.zero_grad()
        torch.cuda.empty_cache()
        self.say(
            f"out of memory: batches of {n_rows} in {self.n_parts} parts from step {self.step}; "
            "the gradients are added up"
        )

    def _costs(self, held: Held, at: Tensor, images: Tensor) -> Tensor:
        """Return the weighted loss of every image; auxiliary heads join in training."""
        x = self.network.normalisation.apply(images)
        told = None if held.outputs is None else held.outputs[at]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            outputs = self.module.all_outputs(x, told)
        costs = [self.cost(each.float(), held.targets[at], self.class_weights) for each in outputs]
        joined = costs[0] + self.network.auxiliary_weight * sum(costs[1:])
        return torch.as_tensor(joined * held.weights[at])

    def _add_point(self, loss: float, feed: Feed) -> None:
        phase = "head" if self.step <= self.head_steps else "all"
        point: Point = {"step": self.step, "phase": phase, "loss": loss}
        if self.val:
            point["val_loss"] = self._validate(self.val, feed)
        if not all(math.isfinite(value) for name, value in point.items() if name.endswith("loss")):
            raise InputError(
                f"the loss is no finite number at step {self.step}",
                where=self.network.name,
                fix="lower the learning rates, or look at the targets",
            )
        self.curve.append(point)
        self.done = self.step == self.n_steps
        if self.settings.patience:
            self._judge(self.settings.patience)

    def _judge(self, patience: int) -> None:
        """Keep the weights of the best point, and stop when it is too long ago."""
        losses = [point["val_loss"] for point in self.curve if point["phase"] == "all"]
        since = len(losses) - 1 - int(np.argmin(losses)) if losses else 0
        if losses and not since:
            self.best = {name: value.cpu().clone() for name, value in self.module.state_dict().items()}
        self.done = self.done or since >= patience
        if losses and self.done:
            self.module.load_state_dict(self.best)

    def _validate(self, held: Held, feed: Feed) -> float:
        self.module.eval()
        n, size = len(held.rows), self.settings.batch
        batches = [np.arange(start, min(start + size, n)) for start in range(0, n, size)]
        total = torch.zeros((), device=self.device)
        with torch.no_grad():
            for at, images in zip(batches, feed.stream(held.rows[at] for at in batches), strict=True):
                total += self._costs(held, torch.from_numpy(at).to(self.device), images).sum()
        return float(total) / n


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Run with deterministic algorithms where they exist, and leave torch as it was.

    Only CUDA needs it: on a CPU the same number of threads gives the same numbers.
    """
    if device.type != "cuda":
        with torch.random.fork_rng(devices=[]):
            yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    before = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    flags: Any = torch.utils.deterministic  # mypy does not see what the module turns itself into
    filling = flags.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
        torch.set_deterministic_debug_mode("warn")
        torch.backends.cudnn.benchmark = False  # what it measures differs from run to run
        flags.fill_uninitialized_memory = False  # costs a write of every new tensor
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before[0])
            torch.backends.cudnn.benchmark = before[1]
            flags.fill_uninitialized_memory = filling


def _schedule(step: int, n_steps: int) -> float:
    """Return what the rates are multiplied by: up to 1 linearly, then down as a cosine."""
    warm = min(1.0, (step + 1) / max(1.0, _WARM_FRAC * n_steps))
    return warm * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def _class_weights(settings: Settings, network: Network) -> Tensor | None:
    if settings.class_weights is None:
        return None
    if len(settings.class_weights) != network.n_outputs:
        raise InputError(f"{len(settings.class_weights)} class weights for {network.n_outputs} outputs")
    return torch.tensor(settings.class_weights, device=network.device)


def run_key(network: Network, images: np.ndarray, examples: Iterable[Examples], settings: Settings) -> str:
    """Hash what decides a run: the initial weights, the images of its rows, targets, settings, device."""
    state = xxhash.xxh3_128()
    for each in examples:
        for start in range(0, len(each.rows), _CHUNK):
            state.update(np.ascontiguousarray(images[each.rows[start : start + _CHUNK]]).data)
        for values in (each.targets, each.weights, each.outputs):
            state.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    layers = [network.name, network.n_outputs, network.normalisation.size_px, network.module.takes_output]
    parts = [*layers, network.code, network.device.type, state_hash(network.module), state.hexdigest()]
    return file_hash(canonical_json([*parts, asdict(settings)]).encode())[:16]


class Checkpoint:
    """The file of one run: tensors and plain data, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """Return the state that was kept, if there is one.

        Raises:
            InputError: the file is none of a run.
        """
        if not self.path.exists():
            return None
        try:
            check_regular(self.path)
            return {**torch.load(self.path, map_location="cpu", weights_only=True)}
        except Exception as error:  # a reader on hostile bytes may raise anything
            raise InputError(
                f"{self.path.name} is no checkpoint: {type(error).__name__}",
                where=str(self.path),
                fix="remove it, and the run begins anew",
            ) from error

    def write(self, state: dict[str, Any], at_once: bool) -> None:
        """Keep a state, if the last one is old enough or it must be `at_once`."""
        if not at_once and time.monotonic() - self._written < _EVERY_S:
            return
        with replace_file(self.path) as temporary:
            torch.save(state, temporary)
        self._written = time.monotonic()
