"""The code for GPUs, as far as it runs without one: bf16 on the CPU, tensors on one device, settings, memory.

The device `meta` has tensors without data, and refuses to compute with tensors of another device.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from affectdata.train import feed
from affectdata.train import loop as training_loop
from affectdata.train.backbones import load_backbone
from affectdata.train.feed import Feed
from affectdata.train.finetune import finetune
from affectdata.train.loop import Loop, repeatable
from affectdata.train.networks import build_network
from affectdata.train.task import Examples, Settings, prepare_examples

N, SIZE = 40, 24
SETTINGS = Settings(steps=80, head_steps=20, every=10, batch=8, lr_trunk=1e-3, lr_head=1e-2)
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 100, N)


@pytest.fixture(scope="module")
def images(truth: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 15, (N, SIZE, SIZE, 3))
    return np.clip(noise + 2.5 * truth[:, None, None, None], 0, 255).astype(np.uint8)


@pytest.mark.slow
def test_in_bf16_it_learns_as_in_float32_and_weights_stay_float32(
    images: np.ndarray, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_network("small_cnn", 1, "none", size_px=SIZE, device="cpu")
    train = Examples(np.arange(30), truth[:30])
    plain = finetune(network, images, train, SETTINGS)
    monkeypatch.setattr(training_loop, "_AUTOCAST", ("cpu",))
    halved, again = (finetune(network, images, train, SETTINGS) for _ in range(2))
    assert halved.curve == again.curve  # the same seed
    assert halved.curve != plain.curve  # bf16 was used
    assert halved.curve[-1]["loss"] == pytest.approx(plain.curve[-1]["loss"], rel=0.3)
    assert {value.dtype for value in halved.network.module.state_dict().values()} == {torch.float32}
    assert np.abs(halved.predict(images, np.arange(30, N))[:, 0] - truth[30:]).mean() < 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "n_outputs", "more"),
    [
        ("squared_error", 1, {}),
        ("cross_entropy", 2, {"class_weights": (0.5, 1.5)}),
        ("distribution", 2, {}),
    ],
)
@pytest.mark.parametrize("name", ["small_cnn", "efficientnet_lite0"])
def test_a_step_computes_with_tensors_of_the_device_only(
    name: str, loss: str, n_outputs: int, more: dict[str, Any], images: np.ndarray, truth: np.ndarray
) -> None:
    meta = torch.device("meta")
    network = build_network(name, n_outputs, "none", size_px=SIZE, takes_output=True, device="meta")
    classes = (truth > 50).astype(int)
    targets = {"squared_error": truth, "cross_entropy": classes}.get(loss, np.eye(2)[classes])
    examples = Examples(np.arange(N), targets, weights=np.linspace(1, 2, N), outputs=truth)
    held = prepare_examples(network, images, examples, loss)
    settings = replace(SETTINGS, loss=loss, dropout=0.5, head_steps=0, **more)
    loop = Loop(network, held, None, settings, print)
    loop._set_phase()
    loop._set_rates()
    rows = np.arange(8)
    (batch,) = Feed(images, meta).stream([rows])
    cost = loop._take_step(torch.from_numpy(rows).to(meta), batch)
    state = [held.targets, held.weights, held.outputs, batch, cost, *network.module.state_dict().values()]
    states = [value for slots in loop.optimiser.state.values() for value in slots.values() if value.ndim]
    assert {value.device for value in (*state, *states)} == {meta}
    assert len(states) > 0


def test_a_forgotten_device_move_is_found(images: np.ndarray, truth: np.ndarray) -> None:
    """The test above fails where it should: with weights that were left on the CPU."""
    network = build_network("small_cnn", 1, "none", size_px=SIZE, device="meta")
    held = prepare_examples(network, images, Examples(np.arange(N), truth), "squared_error")
    loop = Loop(network, replace(held, weights=torch.ones(N)), None, SETTINGS, print)
    rows = np.arange(8)
    (batch,) = Feed(images, network.device).stream([rows])
    with pytest.raises(RuntimeError, match="device"):
        loop._take_step(torch.from_numpy(rows).to("meta"), batch)


def test_a_backbone_and_its_input_are_on_the_device() -> None:
    network = load_backbone("small_cnn", "none", "cpu")
    moved = replace(network, module=network.module.to("meta"), device=torch.device("meta"))
    x = moved.normalise(np.zeros((2, 128, 128, 3), np.uint8))
    assert (x.device.type, moved.module(x).device.type) == ("meta", "meta")


def test_the_settings_that_make_cuda_repeatable_are_set_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    forked: list[Any] = []
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: forked.append(devices) or nullcontext())
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)

    def flags() -> tuple[int, bool, bool]:
        deterministic: Any = torch.utils.deterministic
        benchmark = torch.backends.cudnn.benchmark
        return torch.get_deterministic_debug_mode(), benchmark, deterministic.fill_uninitialized_memory

    before = flags()
    with pytest.raises(KeyboardInterrupt), repeatable(CUDA):
        assert flags() == (1, False, False)  # 1: warn
        raise KeyboardInterrupt
    assert flags() == before
    assert forked == [[CUDA]]  # the generators of the caller are left alone


@pytest.mark.parametrize(("free", "resident"), [(2.1, True), (1.9, False)])
def test_images_use_at_most_half_of_the_free_memory(
    free: float, resident: bool, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free * images.nbytes), 10**12))
    monkeypatch.setattr(Feed, "_upload", lambda _: torch.zeros(1))
    assert (Feed(images, CUDA).resident is not None) == resident


@pytest.mark.parametrize("bytes_at_once", [1, 5000, 1 << 28])
def test_the_upload_in_parts_is_complete(
    bytes_at_once: int, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "_UPLOAD_BYTES", bytes_at_once)
    source = Feed(images, torch.device("cpu"))
    assert source.resident is None  # on the CPU the memmap itself is read
    source.resident = source._upload()
    rows = np.array([3, 0, 3, 39])
    (batch,) = source.stream([rows])
    assert (batch.numpy() == images[rows]).all()
