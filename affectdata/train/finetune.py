"""Fine-tune a network: first the new output layer alone, then all layers, for a fixed number of steps.

In: a network (`networks`), uint8 images, examples and settings (`task`). Out: a trained copy of the
network and its training curve. Arms with the same number of steps and the same batch size get the same amount
of training, however many rows they have.

AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); in the second phase both learning rates have a linear
warm-up and a cosine decay (arXiv:1608.03983). On a GPU: bf16 autocast and channels-last; elsewhere float32.
On one device the same seed gives the same results, except for the few CUDA operations without a deterministic
version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from affectdata.errors import UsageError
from affectdata.train.feed import Feed
from affectdata.train.loop import Checkpoint, Loop, Point, repeatable, run_key
from affectdata.train.losses import find_loss
from affectdata.train.networks import Network
from affectdata.train.task import Examples, Settings, check_images, prepare_examples, prepare_outputs
from affectdata.train.trunks import Note


@dataclass(frozen=True, eq=False)
class FittedNetwork:
    """A trained network.

    `curve`: per point step, phase, loss (mean since the last point), val_loss if any; of classes
    accuracy and val_accuracy too. `n_parts` is how many parts each batch was split into to fit in memory.
    """

    network: Network
    settings: Settings
    curve: list[Point]
    n_parts: int = 1

    def predict(
        self, images: np.ndarray, rows: np.ndarray | None = None, outputs: np.ndarray | None = None
    ) -> np.ndarray:
        """Return float32 predictions (n, n_outputs) for all images or some rows: POMP, or class shares.

        Raises:
            InputError: the images or the regressor's `outputs` do not match the network.
        """
        chosen = np.arange(len(images)) if rows is None else np.asarray(rows)
        check_images(self.network, images, chosen)
        chosen = chosen.astype(np.int64)
        regressor_outputs = prepare_outputs(self.network, outputs, len(chosen))
        size = self.settings.batch
        batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        module = self.network.module.eval()
        predictions = [torch.zeros(0, self.network.n_outputs)]
        with torch.inference_mode():
            for number, batch in enumerate(Feed(images, self.network.device).stream(batches)):
                x = self.network.normalisation.apply(batch)
                part = slice(number * size, (number + 1) * size)
                extra = None if regressor_outputs is None else regressor_outputs[part]
                predictions.append(module(x, extra).float().cpu())
        return np.asarray(find_loss(self.settings.loss).decode(torch.cat(predictions)).numpy())


def finetune(
    network: Network,
    images: np.ndarray,
    examples: Examples,
    settings: Settings,
    *,
    val: Examples | None = None,
    folder: Path | None = None,
    progress: Callable[[Point], None] = lambda _: None,
    note: Note = lambda _: None,
) -> FittedNetwork:
    """Train a copy of `network` on examples of `images`, uint8 (n, height, width, 3), array or memmap.

    Checkpoints go to `folder`; an interrupted call resumes from them. `progress` receives each point of the
    curve with `steps`, `images_per_s` and `eta_s`; `note` receives messages for the user.

    Raises:
        InputError: rows, targets or weights do not match each other or the network, or the loss is
            not finite.
        UsageError: early stopping without `val`.
        MissingError: not even the smallest part of a batch fits in the device's memory.
    """
    if settings.patience and val is None:
        raise UsageError("early stopping needs validation examples", fix="pass `val`, or no `patience`")
    given = [part for part in (examples, val) if part]
    tensors = [prepare_examples(network, images, part, settings.loss) for part in given]
    loop = Loop(network.copy(), tensors[0], tensors[1] if val else None, settings, note)
    checkpoint = None
    if folder:
        key = run_key(network, images, given, settings)
        checkpoint = Checkpoint(folder / f"{key}.pt")
        if state := checkpoint.read():
            loop.resume(state)
            note(f"resuming after step {loop.step} of {loop.n_steps}")
    with repeatable(network.device):
        for point in loop.run(Feed(images, network.device)):
            progress(point)
            if checkpoint:
                checkpoint.write(loop.state(), at_once=loop.done)
    return FittedNetwork(loop.network, settings, loop.curve, loop.n_parts)
