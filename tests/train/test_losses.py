"""train.losses: every loss against a value computed by hand, and targets that are rejected."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch

from affectdata.errors import InputError, UsageError
from affectdata.train.losses import LOSSES, find_loss


def cost(name: str, outputs: list, targets: list, weights: list | None = None) -> list[float]:
    encoded = torch.tensor(targets)
    encoded = encoded if name == "cross_entropy" else encoded.float()
    class_weights = None if weights is None else torch.tensor(weights)
    return LOSSES[name].cost(torch.tensor(outputs), encoded, class_weights).tolist()


def test_squared_error_is_averaged_over_the_outputs() -> None:
    assert cost("squared_error", [[0.5], [-1.0]], [[0.0], [1.0]]) == [0.25, 4.0]
    assert cost("squared_error", [[0.5, 1.0]], [[0.0, 0.0]]) == [0.625]


def test_a_wrong_sign_of_the_first_output_costs_twice() -> None:
    # The same distance of 0.4: on the right side of neutral, on the wrong side, and with a neutral target.
    assert cost("polarity", [[0.6], [-0.2], [0.4]], [[0.2], [0.2], [0.0]]) == pytest.approx(
        [0.16, 0.32, 0.16]
    )
    # Arousal, the second output, has no polarity.
    assert cost("polarity", [[0.5, -0.2]], [[0.5, 0.2]]) == pytest.approx([0.08])


def test_cross_entropy_of_two_equal_logits_is_log_2() -> None:
    assert cost("cross_entropy", [[0.0, 0.0], [log(3), 0.0]], [1, 0]) == pytest.approx([log(2), log(4 / 3)])
    assert cost("cross_entropy", [[0.0, 0.0]], [1], [1.0, 5.0]) == pytest.approx([5 * log(2)])


def test_binary_cross_entropy_is_averaged_over_the_classes() -> None:
    by_hand = [-log(0.75), -log(1 - 0.75)]  # sigmoid(log 3) is 3 / 4
    assert cost("binary", [[log(3), log(3)]], [[1, 0]]) == pytest.approx([sum(by_hand) / 2])
    weighted = (2 * by_hand[0] + 4 * by_hand[1]) / 2
    assert cost("binary", [[log(3), log(3)]], [[1, 0]], [2.0, 4.0]) == pytest.approx([weighted])


def test_the_divergence_from_shares() -> None:
    # softmax is (3/4, 1/4); KL of (1/2, 1/2) from it is ½ log(4/6) + ½ log 2
    assert cost("distribution", [[log(3), 0.0]], [[0.5, 0.5]]) == pytest.approx(
        [0.5 * log(4 / 6) + 0.5 * log(2)]
    )
    assert cost("distribution", [[log(3), 0.0]], [[0.75, 0.25]]) == pytest.approx([0], abs=1e-7)
    assert cost("distribution", [[log(3), 0.0]], [[0.0, 1.0]]) == pytest.approx([log(4)])  # 0 log 0 is 0
    weighted = 2 * 0.5 * log(4 / 6) + 4 * 0.5 * log(2)
    assert cost("distribution", [[log(3), 0.0]], [[0.5, 0.5]], [2.0, 4.0]) == pytest.approx([weighted])


def test_numbers_are_encoded_as_minus_1_to_1_and_decoded_as_pomp() -> None:
    loss = LOSSES["squared_error"]
    encoded = loss.encode(np.array([0.0, 50.0, 75.0]), 1)
    assert encoded.tolist() == [[-1.0], [0.0], [0.5]]
    assert loss.decode(encoded).tolist() == [[0.0], [50.0], [75.0]]


def test_outputs_are_decoded_as_shares() -> None:
    outputs = torch.tensor([[log(3), 0.0]])
    assert LOSSES["cross_entropy"].decode(outputs)[0].tolist() == pytest.approx([0.75, 0.25])
    assert LOSSES["binary"].decode(outputs)[0].tolist() == pytest.approx([0.75, 0.5])
    assert LOSSES["binary"].decode(torch.tensor([[1.0]])).item() == pytest.approx(1 / (1 + exp(-1)))


def test_rounded_shares_are_normalised_to_1() -> None:
    encoded = LOSSES["distribution"].encode(np.array([[0.333, 0.333, 0.3335]]), 3)
    assert encoded.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "targets", "words"),
    [
        ("squared_error", [[1.0, 2.0]], "2 outputs|1 outputs"),
        ("squared_error", [float("nan")], "not finite"),
        ("cross_entropy", [0.0], "must be integers"),
        ("cross_entropy", [1], "network with 1 outputs"),
        ("cross_entropy", [-1], "classes -1"),
        ("binary", [[0.5]], "0 or 1"),
        ("distribution", [[0.9]], "row 0, sums to 0.9000"),
        ("distribution", [[1.0], [-1.0]], "row 1"),
    ],
)
def test_invalid_targets(name: str, targets: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        LOSSES[name].encode(np.array(targets), 1)


def test_the_error_for_an_unknown_loss_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="cross_entropy"):
        find_loss("hinge")
