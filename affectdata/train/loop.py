"""The training loop: steps in two phases, points of the training curve, and checkpoints to resume from."""

from __future__ import annotations

import itertools
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from affectdata.errors import InputError, MissingError
from affectdata.hashing import canonical_json, file_hash, stable_seed
from affectdata.store.atomic import replace_file
from affectdata.store.files import check_regular
from affectdata.train.feed import Feed, iter_batches
from affectdata.train.losses import find_loss
from affectdata.train.networks import Network
from affectdata.train.task import MIN_PART, Examples, ExampleTensors, Settings
from affectdata.train.weights import state_hash

_WARM_UP_FRAC = 0.05  # of the second phase
_STATE = ("step", "n_parts", "done", "curve", "best")  # attributes saved in a checkpoint
Point = dict[str, Any]
_EVERY_S = 60.0  # between checkpoints: the most an interrupted run loses
_CHUNK = 256  # images hashed at a time
_AUTOCAST = ("cuda",)  # types of devices on which networks run in bf16


class Loop:
    """One training run; `network` is trained in place. `n_parts`: how many passes a batch is split into."""

    def __init__(
        self,
        network: Network,
        train: ExampleTensors,
        val: ExampleTensors | None,
        settings: Settings,
        note: Callable[[str], None],
    ) -> None:
        self.network, self.train, self.val, self.settings, self.note = network, train, val, settings, note
        self.module, self.device = network.module, network.device
        self.cost = find_loss(settings.loss).cost
        self.has_classes = train.targets.dtype == torch.int64
        if settings.class_signs:
            signs = _per_class(settings.class_signs, network, "class signs")
            self.cost = partial(self.cost, signs=signs)
        self.class_weights = _per_class(settings.class_weights, network, "class weights")
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
        """Return everything that `resume` needs, as tensors and plain data."""
        attributes = {name: getattr(self, name) for name in _STATE}
        return {"module": self.module.state_dict(), "optimiser": self.optimiser.state_dict(), **attributes}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from a state of the same run."""
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name in _STATE:
            setattr(self, name, state[name])

    def run(self, feed: Feed) -> Iterator[Point]:
        """Train to the end; yield each point of the curve with `steps`, `images_per_s` and `eta_s`."""
        settings, rows = self.settings, self.train.rows
        batches = iter_batches(len(rows), settings.batch, settings.seed, self.step)
        n_left = 0 if self.done else self.n_steps - self.step
        batches, upcoming = itertools.tee(itertools.islice(batches, n_left))
        total, first, start = self._zeros(), self.step, time.monotonic()
        self._set_phase()
        for index, images in zip(batches, feed.stream(rows[batch] for batch in upcoming), strict=True):
            torch.manual_seed(stable_seed(settings.seed, self.step))  # the same dropout in a resumed run
            self._set_rates()
            total += self._take_step(torch.from_numpy(index).to(self.device), images)
            self.step += 1
            if self.step % settings.every and self.step not in (self.head_steps, self.n_steps):
                continue
            n_steps = self.step - first
            rate = n_steps / max(time.monotonic() - start, 1e-9)
            self._add_point(total / n_steps, feed)
            yield {
                **self.curve[-1],
                "steps": self.n_steps,
                "images_per_s": rate * settings.batch,
                "eta_s": (self.n_steps - self.step) / rate,
            }
            self._set_phase()  # the last step of the first phase is a point
            if self.done:
                return
            total, first, start = self._zeros(), self.step, time.monotonic()

    def _zeros(self) -> Tensor:
        """Return zeros for the sums of loss and accuracy."""
        return torch.zeros(2, device=self.device)

    def _set_phase(self) -> None:
        is_head = self.step < self.head_steps
        self.module.train()
        self.module.body.train(not is_head)  # a frozen trunk keeps its batch norm averages too
        for parameter in self.groups["body"]:
            parameter.requires_grad_(not is_head)

    def _set_rates(self) -> None:
        settings, is_head = self.settings, self.step < self.head_steps
        scale = 1.0 if is_head else _schedule(self.step - self.head_steps, self.n_steps - self.head_steps)
        head, trunk = self.optimiser.param_groups
        head["lr"], trunk["lr"] = settings.lr_head * scale, settings.lr_trunk * scale

    def _take_step(self, index: Tensor, images: Tensor) -> Tensor:
        """Train on one batch; when out of memory, split this and later batches into twice as many parts."""
        while True:
            try:
                return self._accumulate(index, images)
            except torch.cuda.OutOfMemoryError:
                pass  # retry outside the handler, where the tensors of the failed pass are released
            self._halve(len(index))

    def _accumulate(self, index: Tensor, images: Tensor) -> Tensor:
        """Take one optimiser step with gradients summed over the parts; return loss and accuracy."""
        self.optimiser.zero_grad()
        total = self._zeros()
        parts = (values.tensor_split(self.n_parts) for values in (index, images))
        for part_index, part_images in zip(*parts, strict=True):
            costs, n_right = self._costs(self.train, part_index, part_images)
            loss = costs.sum() / len(index)
            torch.autograd.backward(loss)
            total += torch.stack([loss.detach(), n_right / len(index)])
        self.optimiser.step()
        return total

    def _halve(self, n_rows: int) -> None:
        self.n_parts *= 2
        if n_rows // self.n_parts < MIN_PART:
            raise MissingError(
                f"{self.network.name} does not fit in the memory of {self.device}, not even with "
                f"{n_rows // self.n_parts * 2} images at a time",
                fix="use smaller images, a smaller network, or --device cpu",
            )
        self.optimiser.zero_grad()
        torch.cuda.empty_cache()
        self.note(
            f"out of memory: from step {self.step} batches of {n_rows} run in {self.n_parts} parts "
            "with accumulated gradients"
        )

    def _costs(self, examples: ExampleTensors, index: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weighted loss of each image, and how many of its classes are right.

        In training the loss includes the auxiliary heads.
        """
        x = self.network.normalisation.apply(images)
        regressor_outputs = None if examples.outputs is None else examples.outputs[index]
        kind = self.device.type
        with torch.autocast(kind, torch.bfloat16) if kind in _AUTOCAST else nullcontext():
            outputs = self.module.all_outputs(x, regressor_outputs)
        targets = examples.targets[index]
        costs = [self.cost(output.float(), targets, self.class_weights) for output in outputs]
        total = costs[0] + self.network.auxiliary_weight * sum(costs[1:])
        n_right = (outputs[0].argmax(1) == targets).sum().float() if self.has_classes else self._zeros()[0]
        return torch.as_tensor(total * examples.weights[index]), n_right

    def _add_point(self, means: Tensor, feed: Feed) -> None:
        phase = "head" if self.step <= self.head_steps else "all"
        point: Point = {"step": self.step, "phase": phase, **self._named(means)}
        if self.val:
            point |= {f"val_{name}": value for name, value in self._validate(self.val, feed).items()}
        if not all(math.isfinite(value) for name, value in point.items() if name.endswith("loss")):
            raise InputError(
                f"the loss is not finite at step {self.step}",
                where=self.network.name,
                fix="lower the learning rates, or check the targets",
            )
        self.curve.append(point)
        self.done = self.step == self.n_steps
        if self.settings.patience:
            self._stop_early(self.settings.patience)

    def _named(self, means: Tensor) -> dict[str, float]:
        """Return loss and accuracy by name; numbers, label sets and shares have no accuracy."""
        loss, accuracy = means.tolist()
        return {"loss": loss, "accuracy": accuracy} if self.has_classes else {"loss": loss}

    def _stop_early(self, patience: int) -> None:
        """Save the weights of the best point; `patience` points after it, stop and restore them."""
        losses = [point["val_loss"] for point in self.curve if point["phase"] == "all"]
        since = len(losses) - 1 - int(np.argmin(losses)) if losses else 0
        if losses and not since:
            self.best = {name: value.cpu().clone() for name, value in self.module.state_dict().items()}
        self.done = self.done or since >= patience
        if losses and self.done:
            self.module.load_state_dict(self.best)

    def _validate(self, examples: ExampleTensors, feed: Feed) -> dict[str, float]:
        self.module.eval()
        n, size = len(examples.rows), self.settings.batch
        batches = [np.arange(start, min(start + size, n)) for start in range(0, n, size)]
        total = self._zeros()
        with torch.no_grad():
            stream = feed.stream(examples.rows[index] for index in batches)
            for index, images in zip(batches, stream, strict=True):
                costs, n_right = self._costs(examples, torch.from_numpy(index).to(self.device), images)
                total += torch.stack([costs.sum(), n_right])
        return self._named(total / n)


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Use deterministic algorithms where they exist; restore torch's settings and random state afterwards.

    Only CUDA needs it: on a CPU the same number of threads gives the same results.
    """
    if device.type != "cuda":
        with torch.random.fork_rng(devices=[]):
            yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it on first use
    before = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    flags: Any = torch.utils.deterministic  # mypy does not know the module's dynamic attributes
    fill = flags.fill_uninitialized_memory
    with torch.random.fork_rng(devices=[device]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")
        torch.set_deterministic_debug_mode("warn")
        torch.backends.cudnn.benchmark = False  # its choice of algorithms varies between runs
        flags.fill_uninitialized_memory = False  # it costs one write per new tensor
        try:
            yield
        finally:
            torch.set_deterministic_debug_mode(before[0])
            torch.backends.cudnn.benchmark = before[1]
            flags.fill_uninitialized_memory = fill


def _schedule(step: int, n_steps: int) -> float:
    """Return the factor of the learning rates: linear warm-up to 1, then cosine decay."""
    warm_up = min(1.0, (step + 1) / max(1.0, _WARM_UP_FRAC * n_steps))
    return warm_up * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def _per_class(values: tuple[float, ...] | None, network: Network, name: str) -> Tensor | None:
    if values is None:
        return None
    if len(values) != network.n_outputs:
        raise InputError(f"{len(values)} {name} for {network.n_outputs} outputs")
    return torch.tensor(values, device=network.device)


def run_key(network: Network, images: np.ndarray, examples: Iterable[Examples], settings: Settings) -> str:
    """Hash what determines a run: the initial weights, the images of its rows, targets, settings, device."""
    digest = xxhash.xxh3_128()
    for part in examples:
        for start in range(0, len(part.rows), _CHUNK):
            digest.update(np.ascontiguousarray(images[part.rows[start : start + _CHUNK]]).data)
        for values in (part.targets, part.weights, part.outputs):
            digest.update(b"-" if values is None else np.ascontiguousarray(values).tobytes())
    architecture = [
        network.name,
        network.n_outputs,
        network.normalisation.size_px,
        network.module.takes_output,
    ]
    parts = [*architecture, network.code, network.device.type, state_hash(network.module), digest.hexdigest()]
    return file_hash(canonical_json([*parts, _plain(settings)]).encode())[:16]


def _plain(settings: Settings) -> dict[str, Any]:
    """Return settings as data; signs only where there are some, so that other runs keep their key."""
    return {
        name: value for name, value in asdict(settings).items() if name != "class_signs" or value is not None
    }


class Checkpoint:
    """The checkpoint file of one run: tensors and plain data, written atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written = time.monotonic()

    def read(self) -> dict[str, Any] | None:
        """Return the saved state, or None if there is no file.

        Raises:
            InputError: the file is not a checkpoint.
        """
        if not self.path.exists():
            return None
        try:
            check_regular(self.path)
            return {**torch.load(self.path, map_location="cpu", weights_only=True)}
        except Exception as error:  # a reader on hostile bytes may raise anything
            raise InputError(
                f"{self.path.name} is not a checkpoint: {type(error).__name__}",
                where=str(self.path),
                fix="delete it to restart the run",
            ) from error

    def write(self, state: dict[str, Any], at_once: bool) -> None:
        """Save a state if the last save is old enough, or `at_once`."""
        if not at_once and time.monotonic() - self._written < _EVERY_S:
            return
        with replace_file(self.path) as temporary:
            torch.save(state, temporary)
        self._written = time.monotonic()
