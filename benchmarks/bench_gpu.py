"""Compare the speed of fine-tuning with that of the bare training step, in images per second.

    python benchmarks/bench_gpu.py [--device cpu] [--name resnet50] [--quick]

The bare step: the same layers, loss and optimiser on one batch of floats on the device, so that nothing is
read, transferred or normalised. Fine-tuning: decoded JPEG images as uint8, in the memory of the GPU, or in a
memmap on disk. Required: at least 0.9 of the speed of the bare step. The images are generated; the result
replaces its section of RESULTS.md. The exit code is 1 if a ratio on a GPU is lower.
"""

import argparse
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _bench import write_section
from PIL import Image

from affectdata.train import feed
from affectdata.train.finetune import finetune
from affectdata.train.loop import Loop, repeatable
from affectdata.train.networks import Network, build_network
from affectdata.train.task import Examples, Settings, prepare_examples

REQUIRED = 0.9
ROUNDS = 5  # all in turn, so that other load on the machine affects all of them
CHUNK = 20  # steps per point of the curve
SIZES = {"cuda": ("resnet50", 224, 128, 2048, 6), "cpu": ("small_cnn", 64, 32, 256, 3)}


def make_images(n: int, size_px: int) -> np.ndarray:
    """Draw soft shapes, encode them as JPEG and decode them: statistics of photographs, not of noise."""
    rng = np.random.default_rng(0)
    images = np.empty((n, size_px, size_px, 3), np.uint8)
    for image in images:
        shapes = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((size_px, size_px))
        buffer = io.BytesIO()
        shapes.save(buffer, "JPEG", quality=95)
        image[:] = np.asarray(Image.open(buffer).convert("RGB"))
    return images


def time_bare_step(network: Network, settings: Settings, n_chunks: int) -> float:
    """Return the images per second of training steps on one batch of floats on the device."""
    size = network.normalisation.size_px
    examples = Examples(np.zeros(settings.batch, int), np.full(settings.batch, 50.0))
    held = prepare_examples(network, np.zeros((1, size, size, 3), np.uint8), examples, settings.loss)
    loop = Loop(network.copy(), held, None, settings, print)
    loop.module.train()
    shape = (settings.batch, 3, size, size)
    x = torch.randn(shape, device=network.device).to(memory_format=torch.channels_last)
    rates = []
    with repeatable(network.device):
        for _ in range(n_chunks):
            start = time.perf_counter()
            total = torch.zeros((), device=network.device)
            for _ in range(CHUNK):
                loop.optimiser.zero_grad()
                with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
                    outputs = loop.module(x)
                loss = loop.cost(outputs.float(), held.targets, None).mean()
                loss.backward()
                loop.optimiser.step()
                total += loss.detach()
            float(total)  # waits for the device, as the loop does at every point of its curve
            rates.append(CHUNK * settings.batch / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def time_finetune(network: Network, images: np.ndarray, settings: Settings, resident_frac: float) -> float:
    """Return the images per second of fine-tuning; with `resident_frac` 0 images stay in the memmap."""
    feed._RESIDENT_FRAC = resident_frac
    rows = np.arange(len(images))
    points: list[dict] = []
    finetune(network, images, Examples(rows, rows % 100.0), settings, progress=points.append)
    return statistics.median(point["images_per_s"] for point in points[1:])


def measure(device: str, name: str | None, rounds: int) -> tuple[dict[str, float], str]:
    """Return the images per second of each alternative, and a description of the run."""
    default_name, size_px, batch, n, n_chunks = SIZES["cuda" if device.startswith("cuda") else "cpu"]
    network = build_network(name or default_name, 1, "none", size_px=size_px, device=device)
    settings = Settings(steps=CHUNK * n_chunks, head_steps=0, batch=batch, every=CHUNK)
    images = make_images(n, size_px)
    rates: dict[str, list[float]] = {"alone": [], "memory": [], "memmap": []}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "images.npy"), images)
        mapped = np.load(Path(folder, "images.npy"), mmap_mode="r")
        for _ in range(rounds):
            rates["alone"].append(time_bare_step(network, settings, n_chunks))
            rates["memory"].append(time_finetune(network, images, settings, 0.5))
            rates["memmap"].append(time_finetune(network, mapped, settings, 0.0))
    description = f"{network.name}, {size_px} px, batches of {batch}, {settings.steps} steps, {n} images"
    return {label: statistics.median(values) for label, values in rates.items()}, description


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", help="a network of train-check")
    parser.add_argument("--quick", action="store_true", help="run everything once; only print the result")
    options = parser.parse_args()
    rates, description = measure(options.device, options.name, 1 if options.quick else ROUNDS)
    where = f"the CPU, {torch.get_num_threads()} threads, float32: not a result for a GPU"
    if options.device.startswith("cuda"):
        where = f"{torch.cuda.get_device_name(options.device)}, CUDA {torch.version.cuda}, bf16"
    labels = {
        "alone": "the bare step",
        "memory": "fine-tuning, from memory",
        "memmap": "fine-tuning, memmap",
    }
    lines = [f"{description}. {where}.", "", "| way | images/s | ratio |", "| --- | --- | --- |"]
    lines += [f"| {labels[way]} | {rate:.0f} | {rate / rates['alone']:.2f} |" for way, rate in rates.items()]
    write_section("Fine-tuning on a GPU", lines, ("torch", "torchvision", "numpy"))
    reached = min(rates["memory"], rates["memmap"]) / rates["alone"] >= REQUIRED
    return 0 if reached or options.quick or options.device == "cpu" else 1


if __name__ == "__main__":
    sys.exit(main())
