"""Fine-tuning: first the new last layer alone, then the whole network, for a fixed number of steps.

In: a network (`networks`), uint8 images, examples and settings (`task`). Out: a fitted copy of the network
and the curve of its training. Arms that take the same number of steps of the same size have had the same
training, however many rows each of them has.

AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101); in the second phase both rates warm up linearly and fall
as a cosine (arXiv:1608.03983). On a GPU bf16 autocast and channels-last, elsewhere float32. The same seed
gives the same numbers on one device, but for the few operations of which CUDA has no deterministic version.
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
from affectdata.train.task import Examples, Settings, check_images, hold_examples, hold_outputs


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained network. `curve`: per point step, phase, loss (mean since the last point), val_loss if any.

    `n_parts` is what each batch was cut into to fit into memory.
    """

    network: Network
    settings: Settings
    curve: list[Point]
    n_parts: int = 1

    def predict(
        self, images: np.ndarray, rows: np.ndarray | None = None, outputs: np.ndarray | None = None
    ) -> np.ndarray:
        """Return float32 (n, n_outputs) of images, or of some rows of them: POMP, or shares of classes.

        Raises:
            InputError: the images or the regressor's `outputs` are not what the network takes.
        """
        chosen = np.arange(len(images)) if rows is None else np.asarray(rows)
        check_images(self.network, images, chosen)
        chosen = chosen.astype(np.int64)
        told = hold_outputs(self.network, outputs, len(chosen))
        size = self.settings.batch
        batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
        module = self.network.module.eval()
        found = [torch.zeros(0, self.network.n_outputs)]
        with torch.inference_mode():
            for number, batch in enumerate(Feed(images, self.network.device).stream(batches)):
                x = self.network.normalisation.apply(batch)
                part = None if told is None else told[number * size : (number + 1) * size]
                found.append(module(x, part).float().cpu())
        return np.asarray(find_loss(self.settings.loss).decode(torch.cat(found)).numpy())


def finetune(
    network: Network,
    images: np.ndarray,
    examples: Examples,
    settings: Settings,
    *,
    val: Examples | None = None,
    folder: Path | None = None,
    progress: Callable[[Point], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Train a copy of `network` on examples of `images`, uint8 (n, height, width, 3), array or memmap.

    `folder` keeps checkpoints, from which the same call goes on. `progress` gets every point of the curve,
    with `steps`, `images_per_s` and `eta_s`; `say` what a person should know.

    Raises:
        InputError: rows, targets or weights do not fit each other or the network, or the loss is no number.
        UsageError: early stopping without `val`.
        MissingError: not even a part of a batch fits into the device's memory.
    """
    if settings.patience and val is None:
        raise UsageError("early stopping needs examples to validate on", fix="give `val`, or no patience")
    held = [hold_examples(network, images, each, settings.loss) for each in (examples, val) if each]
    loop = Loop(network.copy(), held[0], held[1] if val else None, settings, say)
    checkpoint = None
    if folder:
        key = run_key(network, images, [each for each in (examples, val) if each], settings)
        checkpoint = Checkpoint(folder / f"{key}.pt")
        if state := checkpoint.read():
            loop.resume(state)
            say(f"goes on after step {loop.step} of {loop.n_steps}")
    with repeatable(network.device):
        for point in loop.run(Feed(images, network.device)):
            progress(point)
            if checkpoint:
                checkpoint.write(loop.state(), at_once=loop.done)
    return Fitted(loop.network, settings, loop.curve, loop.n_parts)
