"""train.finetune: it learns, results are repeatable, an interrupted run resumes to the same result."""

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
from affectdata.train import loop as training_loop
from affectdata.train.feed import Feed, iter_batches
from affectdata.train.finetune import FittedNetwork, finetune
from affectdata.train.loop import Loop
from affectdata.train.networks import HeadedNetwork, Network, build_network
from affectdata.train.task import Examples, Settings

N, SIZE = 40, 24
FEW = Settings(steps=6, head_steps=2, every=2, batch=8, lr_trunk=1e-3, lr_head=1e-2)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """Valence; the brightness of each image is proportional to it."""
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


def weights_of(fitted: FittedNetwork) -> dict[str, torch.Tensor]:
    return fitted.network.module.state_dict()


def same(left: FittedNetwork, right: FittedNetwork) -> bool:
    """Return whether two trained networks have bit-identical weights, and equal curves."""
    pairs = zip(weights_of(left).values(), weights_of(right).values(), strict=True)
    return left.curve == right.curve and all(torch.equal(a, b) for a, b in pairs)


# Learning.


@pytest.mark.slow
def test_valence_is_learnt_from_brightness(images: np.ndarray, truth: np.ndarray, examples: Examples) -> None:
    fitted = finetune(small(), images, examples, replace(FEW, steps=80, head_steps=20))
    predicted = fitted.predict(images, np.arange(30, N))[:, 0]
    assert np.abs(predicted - truth[30:]).mean() < 5  # POMP; predicting the mean has an error of 26
    assert fitted.curve[-1]["loss"] < fitted.curve[0]["loss"] / 10


@pytest.mark.slow
def test_valence_and_arousal_are_learnt_together(images: np.ndarray, truth: np.ndarray) -> None:
    both = np.column_stack([truth, 100 - truth])
    settings = replace(FEW, steps=80, head_steps=20, loss="polarity")
    predicted = finetune(small(2), images, Examples(np.arange(N), both), settings).predict(images)
    assert np.abs(predicted - both).mean() < 6


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "binary", "distribution"])
def test_classes(loss: str, images: np.ndarray, truth: np.ndarray) -> None:
    numbers = (truth > 50).astype(int)
    targets = numbers if loss == "cross_entropy" else np.eye(2)[numbers]
    settings = replace(FEW, steps=60, head_steps=20, loss=loss)
    shares = finetune(small(2), images, Examples(np.arange(N), targets), settings).predict(images)
    assert (shares.argmax(1) == numbers).mean() > 0.9
    assert loss == "binary" or shares.sum(1) == pytest.approx(1)


def test_a_classifier_uses_the_output_of_the_regressor(truth: np.ndarray) -> None:
    grey = np.full((N, SIZE, SIZE, 3), 128, np.uint8)  # identical images: only the output distinguishes them
    numbers = (truth > 50).astype(int)
    examples = Examples(np.arange(N), numbers, outputs=truth)
    settings = replace(FEW, steps=100, head_steps=100, lr_head=0.1, loss="cross_entropy")
    fitted = finetune(small(2, takes_output=True), grey, examples, settings)
    assert (fitted.predict(grey, outputs=truth).argmax(1) == numbers).mean() > 0.9


def test_rows_of_weight_0_are_not_learnt(images: np.ndarray, truth: np.ndarray) -> None:
    wrong = np.where(np.arange(30) < 15, truth[:30], 100 - truth[:30])
    weights = np.where(np.arange(30) < 15, 4.0, 0.0)
    settings = replace(FEW, steps=80, head_steps=20)
    fitted = finetune(small(), images, Examples(np.arange(30), wrong, weights), settings)
    assert np.corrcoef(fitted.predict(images)[:, 0], truth)[0, 1] > 0.95


def test_class_weights_shift_the_predictions(images: np.ndarray) -> None:
    blind = Examples(np.arange(N), np.arange(N) % 2)
    settings = replace(FEW, steps=60, head_steps=60, loss="cross_entropy", class_weights=(0.2, 1.8))
    assert finetune(small(2), images, blind, settings).predict(images).mean(0)[1] > 0.7


def test_the_first_phase_trains_the_output_layer_only(images: np.ndarray, examples: Examples) -> None:
    network = build_network("resnet18", 1, "none", size_px=SIZE, device="cpu")
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    first = finetune(network, images, examples, replace(FEW, steps=2, head_steps=2))
    changed = {name for name, value in weights_of(first).items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}  # and no batch norm averages
    both = finetune(network, images, examples, replace(FEW, steps=3, head_steps=2))
    changed = {name for name, value in weights_of(both).items() if not torch.equal(value, before[name])}
    assert {"body.conv1.weight", "body.bn1.running_mean"} < changed
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


# Repeatable results.


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
    """Interrupts a run in these tests."""


def stop_at(step: int) -> Callable[[dict[str, Any]], None]:
    def progress(point: dict[str, Any]) -> None:
        if point["step"] > step:
            raise Stopped

    return progress


@pytest.mark.parametrize("stop", [2, 4])  # at the end of the first phase, and in the second
def test_an_interrupted_run_resumes_to_the_same_result(
    stop: int, images: np.ndarray, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "_EVERY_S", 0.0)
    settings = replace(FEW, dropout=0.3)
    whole = finetune(small(), images, examples, settings)
    with pytest.raises(Stopped):
        finetune(small(), images, examples, settings, folder=tmp_path, progress=stop_at(stop))
    messages: list[str] = []
    points: list[dict[str, Any]] = []
    resumed = finetune(
        small(), images, examples, settings, folder=tmp_path, note=messages.append, progress=points.append
    )
    assert messages == [f"resuming after step {stop} of 6"]
    assert [point["step"] for point in points] == list(range(stop + 2, 7, 2))
    assert same(whole, resumed)


def test_a_finished_run_is_not_run_again(
    images: np.ndarray, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finetune(small(), images, examples, FEW, folder=tmp_path)
    monkeypatch.setattr(Loop, "_take_step", None)
    assert same(first, finetune(small(), images, examples, FEW, folder=tmp_path))


def test_another_run_in_the_same_folder_starts_from_scratch(
    images: np.ndarray, examples: Examples, tmp_path: Path
) -> None:
    for run in (
        (small(), images, examples, FEW),
        (small(seed=1), images, examples, FEW),
        (small(), 255 - images, examples, FEW),
        (small(), images, replace(examples, targets=examples.targets[::-1]), FEW),
        (small(), images, examples, replace(FEW, seed=1)),
    ):
        messages: list[str] = []
        finetune(*run, folder=tmp_path, note=messages.append)
        assert messages == []
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_that_is_not_a_checkpoint(images: np.ndarray, examples: Examples, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "was_run",)

    finetune(small(), images, examples, FEW, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    torch.save({"step": Evil()}, path)
    with pytest.raises(InputError, match="not a checkpoint"):
        finetune(small(), images, examples, FEW, folder=tmp_path)
    assert not (tmp_path / "was_run").exists()


# Steps, batches, memory.


def test_batches_are_concatenated_shuffles() -> None:
    batches = iter_batches(10, 4, seed=0)
    order = np.concatenate([next(batches) for _ in range(5)])
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10].tolist() != order[10:].tolist()
    later = iter_batches(10, 4, seed=0, start=3)
    assert next(later).tolist() == order[12:16].tolist()


def test_a_batch_may_be_larger_than_the_rows() -> None:
    (batch,) = (next(iter_batches(3, 7, seed=0)) for _ in range(1))
    assert np.bincount(batch).min() >= 2 and len(batch) == 7


def test_epochs_become_steps(images: np.ndarray, examples: Examples) -> None:
    assert finetune(small(), images, examples, replace(FEW, epochs=1.5)).curve[-1]["step"] == 6  # 45 / 8


def test_early_stopping_restores_the_best_weights(
    images: np.ndarray, truth: np.ndarray, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([0.1, 3.0, 2.0, 2.5, 2.2, 1.0])  # the first is of the first phase and does not count
    seen: list[torch.Tensor] = []

    def validate(loop: Loop, *_: Any) -> dict[str, float]:
        seen.append(loop.module.head.weight.clone())
        return {"loss": next(losses)}

    monkeypatch.setattr(Loop, "_validate", validate)
    settings = replace(FEW, steps=40, patience=2)
    fitted = finetune(small(), images, examples, settings, val=Examples(np.arange(30, N), truth[30:]))
    assert [point["step"] for point in fitted.curve] == [2, 4, 6, 8, 10]
    assert torch.equal(fitted.network.module.head.weight, seen[2])


def test_the_validation_loss_matches_the_predictions(
    images: np.ndarray, truth: np.ndarray, examples: Examples
) -> None:
    val = Examples(np.arange(30, N), truth[30:])
    fitted = finetune(small(), images, examples, FEW, val=val)
    by_hand = (((fitted.predict(images, val.rows)[:, 0] - truth[30:]) / 50) ** 2).mean()
    assert fitted.curve[-1]["val_loss"] == pytest.approx(by_hand, rel=1e-4)


def test_out_of_memory_splits_the_batch_with_a_message(
    images: np.ndarray, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(small(), images, examples, FEW)
    forward = HeadedNetwork.all_outputs

    def narrow(module: HeadedNetwork, x: torch.Tensor, output: torch.Tensor | None = None) -> Any:
        if len(x) > 3:
            raise torch.OutOfMemoryError("no more")
        return forward(module, x, output)

    monkeypatch.setattr(HeadedNetwork, "all_outputs", narrow)
    messages: list[str] = []
    fitted = finetune(small(), images, examples, FEW, note=messages.append)
    assert fitted.n_parts == 4
    assert ["in 2 parts" in messages[0], "in 4 parts" in messages[1], len(messages)] == [True, True, 2]
    for expected, actual in zip(weights_of(whole).values(), weights_of(fitted).values(), strict=True):
        assert torch.allclose(expected, actual, atol=1e-4)  # the effective batch size is unchanged


def test_a_network_that_never_fits_in_memory_is_an_error(
    images: np.ndarray, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(HeadedNetwork, "all_outputs", full)
    with pytest.raises(MissingError, match="not even with 2 images"):
        finetune(small(), images, examples, FEW)


# Errors.


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"epochs": 0.0},
        {"batch": 1},
        {"dropout": 1.0},
        {"every": 0},
        {"patience": 0},
        {"lr_trunk": -1.0},
        {"loss": "hinge"},
        {"class_weights": (1.0,)},
    ],
)
def test_settings_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": np.arange(30) + 20}, "rows 20–49 are out of range for 40 images"),
        ({"rows": np.arange(30) - 1}, "rows -1"),
        ({"rows": np.arange(30) / 2}, "array of integers"),
        ({"targets": np.zeros(29)}, "equally many"),
        ({"rows": np.arange(0), "targets": np.zeros(0)}, "at least one"),
        ({"targets": np.full(30, np.nan)}, "30 targets are not finite"),
        ({"weights": np.zeros(30)}, "not all 0"),
        ({"weights": -np.ones(30)}, ">= 0"),
        ({"outputs": np.zeros(30)}, "does not take the outputs"),
    ],
)
def test_invalid_examples(
    changes: dict[str, Any], words: str, images: np.ndarray, examples: Examples
) -> None:
    with pytest.raises(InputError, match=words):
        finetune(small(), images, replace(examples, **changes), FEW)


def test_images_of_another_size_or_type(images: np.ndarray, examples: Examples) -> None:
    for wrong in (images[:, :20], images.astype(np.float32)):
        with pytest.raises(InputError, match="takes uint8 images"):
            finetune(small(), wrong, examples, FEW)


def test_a_diverging_loss_is_an_error(images: np.ndarray, examples: Examples) -> None:
    with pytest.raises(InputError, match="not finite at step"):
        finetune(small(), images, examples, replace(FEW, lr_head=1e30, lr_trunk=1e30, steps=20))


def test_invalid_outputs_and_class_weights(images: np.ndarray, examples: Examples) -> None:
    with pytest.raises(InputError, match="requires the outputs"):
        finetune(small(takes_output=True), images, examples, FEW)
    with pytest.raises(InputError, match="30 finite numbers"):
        finetune(small(takes_output=True), images, replace(examples, outputs=np.zeros(3)), FEW)
    classes = replace(examples, targets=np.zeros(30, int))
    with pytest.raises(InputError, match="1 class weights for 2"):
        finetune(small(2), images, classes, replace(FEW, loss="cross_entropy", class_weights=(1.0,)))


def test_early_stopping_without_validation(images: np.ndarray, examples: Examples) -> None:
    with pytest.raises(UsageError, match="needs validation examples"):
        finetune(small(), images, examples, replace(FEW, patience=1))


# On a GPU.


@on_gpu
def test_a_gpu_gives_the_same_result_from_its_memory_and_from_a_memmap(
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
