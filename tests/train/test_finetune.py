"""train.finetune: it learns, the same seed gives the same numbers, what was interrupted goes on as if not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from affectdata.errors import InputError, MissingError, UsageError
from affectdata.train import feed
from affectdata.train import loop as checkpoints
from affectdata.train.feed import Feed, deal_batches
from affectdata.train.finetune import Fitted, finetune
from affectdata.train.loop import Loop
from affectdata.train.networks import HeadedNetwork, Network, build_network
from affectdata.train.task import Examples, Settings

N, SIZE = 40, 24
FEW = Settings(steps=6, head_steps=2, every=2, batch=8, lr_body=1e-3, lr_head=1e-2)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Valence, which the brightness of each image follows."""
    return np.random.default_rng(0).uniform(0, 100, N)


@pytest.fixture(scope="module")
def images(truth: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 15, (N, SIZE, SIZE, 3))
    return np.clip(noise + 2.5 * truth[:, None, None, None], 0, 255).astype(np.uint8)


@pytest.fixture
def examples(truth: np.ndarray) -> Examples:
    return Examples(np.arange(30), truth[:30])


def small(n_outputs: int = 1, **options: Any) -> Network:
    options = {"size_px": SIZE, "device": "cpu", **options}
    return build_network("small_cnn", n_outputs, "none", **options)


def weights_of(fitted: Fitted) -> dict[str, torch.Tensor]:
    return fitted.network.module.state_dict()


def same(one: Fitted, other: Fitted) -> bool:
    """Whether two fits are equal in every bit, their curves too."""
    pairs = zip(weights_of(one).values(), weights_of(other).values(), strict=True)
    return one.curve == other.curve and all(torch.equal(a, b) for a, b in pairs)


# What it learns.


@pytest.mark.slow
def test_valence_is_learnt_from_brightness(images: np.ndarray, truth: np.ndarray, examples: Examples) -> None:
    fitted = finetune(small(), images, examples, replace(FEW, steps=80, head_steps=20))
    predicted = fitted.predict(images, np.arange(30, N))[:, 0]
    assert np.abs(predicted - truth[30:]).mean() < 5  # POMP; their mean is 26 off
    assert fitted.curve[-1]["loss"] < fitted.curve[0]["loss"] / 10


@pytest.mark.slow
def test_the_plane_of_valence_and_arousal(images: np.ndarray, truth: np.ndarray) -> None:
    both = np.column_stack([truth, 100 - truth])
    settings = replace(FEW, steps=80, head_steps=20, loss="polarity")
    predicted = finetune(small(2), images, Examples(np.arange(N), both), settings).predict(images)
    assert np.abs(predicted - both).mean() < 6


@pytest.mark.parametrize("loss", ["cross_entropy", "binary", "distribution"])
def test_classes(loss: str, images: np.ndarray, truth: np.ndarray) -> None:
    numbers = (truth > 50).astype(int)
    targets = numbers if loss == "cross_entropy" else np.eye(2)[numbers]
    settings = replace(FEW, steps=60, head_steps=20, loss=loss)
    shares = finetune(small(2), images, Examples(np.arange(N), targets), settings).predict(images)
    assert (shares.argmax(1) == numbers).mean() > 0.9
    assert loss == "binary" or shares.sum(1) == pytest.approx(1)


def test_a_classifier_hears_the_regressor(truth: np.ndarray) -> None:
    grey = np.full((N, SIZE, SIZE, 3), 128, np.uint8)  # nothing to see: only the output tells them apart
    numbers = (truth > 50).astype(int)
    examples = Examples(np.arange(N), numbers, outputs=truth)
    settings = replace(FEW, steps=100, head_steps=100, lr_head=0.1, loss="cross_entropy")
    fitted = finetune(small(2, takes_output=True), grey, examples, settings)
    assert (fitted.predict(grey, outputs=truth).argmax(1) == numbers).mean() > 0.9


def test_rows_that_weigh_nothing_are_not_learnt(images: np.ndarray, truth: np.ndarray) -> None:
    wrong = np.where(np.arange(30) < 15, truth[:30], 100 - truth[:30])
    weights = np.where(np.arange(30) < 15, 4.0, 0.0)
    settings = replace(FEW, steps=80, head_steps=20)
    fitted = finetune(small(), images, Examples(np.arange(30), wrong, weights), settings)
    assert np.corrcoef(fitted.predict(images)[:, 0], truth)[0, 1] > 0.95


def test_class_weights_move_the_decision(images: np.ndarray) -> None:
    blind = Examples(np.arange(N), np.arange(N) % 2)
    settings = replace(FEW, steps=60, head_steps=60, loss="cross_entropy", class_weights=(0.2, 1.8))
    assert finetune(small(2), images, blind, settings).predict(images).mean(0)[1] > 0.7


def test_the_first_phase_moves_the_last_layer_only(images: np.ndarray, examples: Examples) -> None:
    network = build_network("resnet18", 1, "none", size_px=SIZE, device="cpu")
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    first = finetune(network, images, examples, replace(FEW, steps=2, head_steps=2))
    moved = {name for name, value in weights_of(first).items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}  # the averages of batch norm stay too
    both = finetune(network, images, examples, replace(FEW, steps=3, head_steps=2))
    moved = {name for name, value in weights_of(both).items() if not torch.equal(value, before[name])}
    assert {"body.conv1.weight", "body.bn1.running_mean"} < moved
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())
    assert [point["phase"] for point in both.curve] == ["head", "all"]


def test_the_given_network_and_the_callers_generator_are_left_alone(
    images: np.ndarray, examples: Examples
) -> None:
    network = small()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = (finetune(network, images, examples, FEW) for _ in range(2))
    assert torch.rand(1) == expected
    assert same(first, second)


def test_auxiliary_heads_are_trained(images: np.ndarray, examples: Examples) -> None:
    network = build_network("googlenet", 1, "none", size_px=SIZE, device="cpu")
    fitted = finetune(network, images, examples, replace(FEW, steps=2, head_steps=0))
    for layer in ("head", "body.aux1.fc2", "body.aux2.fc2"):
        before = network.module.get_parameter(f"{layer}.weight")
        assert not torch.equal(before, fitted.network.module.get_parameter(f"{layer}.weight"))


# The same numbers again.


def test_dropout_and_order_follow_from_the_seed(images: np.ndarray, examples: Examples) -> None:
    settings = replace(FEW, dropout=0.5)
    first, again, other = (
        finetune(small(), images, examples, replace(settings, seed=seed)) for seed in (1, 1, 2)
    )
    assert same(first, again)
    assert not same(first, other)


def test_a_memmap_gives_what_the_array_gives(images: np.ndarray, examples: Examples, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert same(finetune(small(), mapped, examples, FEW), finetune(small(), images, examples, FEW))


class Stopped(Exception):
    """What interrupts a run in these tests."""


def stop_at(step: int) -> Callable[[dict[str, Any]], None]:
    def progress(point: dict[str, Any]) -> None:
        if point["step"] > step:
            raise Stopped

    return progress


@pytest.mark.parametrize("stop", [2, 4])  # in the first phase's last step, and in the second phase
def test_an_interrupted_run_goes_on_to_the_same_numbers(
    stop: int, images: np.ndarray, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_EVERY_S", 0.0)
    settings = replace(FEW, dropout=0.3)
    whole = finetune(small(), images, examples, settings)
    with pytest.raises(Stopped):
        finetune(small(), images, examples, settings, folder=tmp_path, progress=stop_at(stop))
    said: list[str] = []
    points: list[dict[str, Any]] = []
    resumed = finetune(
        small(), images, examples, settings, folder=tmp_path, say=said.append, progress=points.append
    )
    assert said == [f"goes on after step {stop} of 6"]
    assert [point["step"] for point in points] == list(range(stop + 2, 7, 2))
    assert same(whole, resumed)


def test_a_finished_run_is_not_run_again(
    images: np.ndarray, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finetune(small(), images, examples, FEW, folder=tmp_path)
    monkeypatch.setattr(Loop, "_take_step", None)
    assert same(first, finetune(small(), images, examples, FEW, folder=tmp_path))


def test_another_run_in_the_same_folder_begins_anew(
    images: np.ndarray, examples: Examples, tmp_path: Path
) -> None:
    for run in (
        (small(), images, examples, FEW),
        (small(seed=1), images, examples, FEW),
        (small(), 255 - images, examples, FEW),
        (small(), images, replace(examples, targets=examples.targets[::-1]), FEW),
        (small(), images, examples, replace(FEW, seed=1)),
    ):
        said: list[str] = []
        finetune(*run, folder=tmp_path, say=said.append)
        assert said == []
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_that_is_no_checkpoint(images: np.ndarray, examples: Examples, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "was_run",)

    finetune(small(), images, examples, FEW, folder=tmp_path)
    (kept,) = tmp_path.iterdir()
    torch.save({"step": Evil()}, kept)
    with pytest.raises(InputError, match="no checkpoint"):
        finetune(small(), images, examples, FEW, folder=tmp_path)
    assert not (tmp_path / "was_run").exists()


# Steps, batches, memory.


def test_batches_are_shuffles_behind_each_other() -> None:
    batches = deal_batches(10, 4, seed=0)
    dealt = np.concatenate([next(batches) for _ in range(5)])
    assert sorted(dealt[:10]) == sorted(dealt[10:]) == list(range(10))
    assert dealt[:10].tolist() != dealt[10:].tolist()
    later = deal_batches(10, 4, seed=0, start=3)
    assert next(later).tolist() == dealt[12:16].tolist()


def test_a_batch_may_be_larger_than_the_rows() -> None:
    (batch,) = (next(deal_batches(3, 7, seed=0)) for _ in range(1))
    assert np.bincount(batch).min() >= 2 and len(batch) == 7


def test_epochs_become_steps(images: np.ndarray, examples: Examples) -> None:
    assert finetune(small(), images, examples, replace(FEW, epochs=1.5)).curve[-1]["step"] == 6  # 45 / 8


def test_early_stopping_takes_the_best_weights(
    images: np.ndarray, truth: np.ndarray, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.1, 3.0, 2.0, 2.5, 2.2, 1.0])  # the first is of the first phase, and does not count
    seen: list[torch.Tensor] = []

    def validate(loop: Loop, *_: Any) -> float:
        seen.append(loop.module.head.weight.clone())
        return next(losses)

    monkeypatch.setattr(Loop, "_validate", validate)
    settings = replace(FEW, steps=40, patience=2)
    fitted = finetune(small(), images, examples, settings, val=Examples(np.arange(30, N), truth[30:]))
    assert [point["step"] for point in fitted.curve] == [2, 4, 6, 8, 10]
    assert torch.equal(fitted.network.module.head.weight, seen[2])


def test_the_validation_loss_is_that_of_the_outputs(
    images: np.ndarray, truth: np.ndarray, examples: Examples
) -> None:
    val = Examples(np.arange(30, N), truth[30:])
    fitted = finetune(small(), images, examples, FEW, val=val)
    by_hand = (((fitted.predict(images, val.rows)[:, 0] - truth[30:]) / 50) ** 2).mean()
    assert fitted.curve[-1]["val_loss"] == pytest.approx(by_hand, rel=1e-4)


def test_out_of_memory_halves_the_batch_and_says_so(
    images: np.ndarray, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(small(), images, examples, FEW)
    forward = HeadedNetwork.all_outputs

    def narrow(module: HeadedNetwork, x: torch.Tensor, output: torch.Tensor | None = None) -> Any:
        if len(x) > 3:
            raise torch.OutOfMemoryError("no more")
        return forward(module, x, output)

    monkeypatch.setattr(HeadedNetwork, "all_outputs", narrow)
    said: list[str] = []
    fitted = finetune(small(), images, examples, FEW, say=said.append)
    assert fitted.n_parts == 4
    assert ["in 2 parts" in said[0], "in 4 parts" in said[1], len(said)] == [True, True, 2]
    for one, other in zip(weights_of(whole).values(), weights_of(fitted).values(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)  # the batch is as large as it was


def test_what_never_fits_is_an_error(
    images: np.ndarray, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(HeadedNetwork, "all_outputs", full)
    with pytest.raises(MissingError, match="not even 2 images"):
        finetune(small(), images, examples, FEW)


# What is refused.


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"epochs": 0.0},
        {"batch": 1},
        {"dropout": 1.0},
        {"every": 0},
        {"patience": 0},
        {"lr_body": -1.0},
        {"loss": "hinge"},
        {"class_weights": (1.0,)},
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": np.arange(30) + 20}, "rows 20–49 of 40 images"),
        ({"rows": np.arange(30) - 1}, "rows -1"),
        ({"rows": np.arange(30) / 2}, "whole numbers"),
        ({"targets": np.zeros(29)}, "different numbers"),
        ({"rows": np.arange(0), "targets": np.zeros(0)}, "none"),
        ({"targets": np.full(30, np.nan)}, "30 targets are no finite"),
        ({"weights": np.zeros(30)}, "not all 0"),
        ({"weights": -np.ones(30)}, "not negative"),
        ({"outputs": np.zeros(30)}, "takes no output"),
    ],
)
def test_examples_that_do_not_fit(
    changes: dict[str, Any], words: str, images: np.ndarray, examples: Examples
) -> None:
    with pytest.raises(InputError, match=words):
        finetune(small(), images, replace(examples, **changes), FEW)


def test_images_of_another_size_or_type(images: np.ndarray, examples: Examples) -> None:
    for wrong in (images[:, :20], images.astype(np.float32)):
        with pytest.raises(InputError, match="takes uint8 images"):
            finetune(small(), wrong, examples, FEW)


def test_a_loss_that_runs_away_is_an_error(images: np.ndarray, examples: Examples) -> None:
    with pytest.raises(InputError, match="no finite number at step"):
        finetune(small(), images, examples, replace(FEW, lr_head=1e30, lr_body=1e30, steps=20))


def test_outputs_and_class_weights_must_fit(images: np.ndarray, examples: Examples) -> None:
    with pytest.raises(InputError, match="wants output"):
        finetune(small(takes_output=True), images, examples, FEW)
    with pytest.raises(InputError, match="30 finite numbers"):
        finetune(small(takes_output=True), images, replace(examples, outputs=np.zeros(3)), FEW)
    classes = replace(examples, targets=np.zeros(30, int))
    with pytest.raises(InputError, match="1 class weights for 2"):
        finetune(small(2), images, classes, replace(FEW, loss="cross_entropy", class_weights=(1.0,)))


def test_early_stopping_without_validation(images: np.ndarray, examples: Examples) -> None:
    with pytest.raises(UsageError, match="examples to validate on"):
        finetune(small(), images, examples, replace(FEW, patience=1))


# On a GPU.


@on_gpu
def test_the_same_numbers_on_a_gpu_from_its_memory_and_from_a_memmap(
    images: np.ndarray, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_network("resnet18", 1, "none", size_px=SIZE, device="cuda")
    assert Feed(images, network.device).resident is not None
    first, again = (finetune(network, images, examples, FEW) for _ in range(2))
    assert same(first, again)
    monkeypatch.setattr(feed, "_RESIDENT_FRAC", 0.0)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert Feed(mapped, network.device).resident is None
    assert same(first, finetune(network, mapped, examples, FEW))


@on_gpu
def test_a_gpu_learns_what_the_cpu_learns(images: np.ndarray, truth: np.ndarray, examples: Examples) -> None:
    settings = replace(FEW, steps=80, head_steps=20)
    predicted = finetune(small(device="cuda"), images, examples, settings).predict(images)
    assert np.abs(predicted[:, 0] - truth).mean() < 6
