"""The Dice coefficient against hand counts and MONAI 1.6.1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rmldnn_torch.metrics import dice_coefficient, dice_counts, num_dice_classes


def waves(*shape: int) -> Tensor:
    return torch.sin(torch.arange(torch.Size(shape).numel(), dtype=torch.float32) * 1.7).reshape(shape) * 3


def accuracy(predicted: list[int], truth: list[int]) -> float:
    """Of one class, for pixels that are predicted to be inside (1) or outside (0)."""
    output = torch.tensor(predicted).reshape(1, 1, 1, -1) * 2.0 - 1
    targets = torch.tensor(truth, dtype=torch.float32).reshape(1, 1, 1, -1)
    return dice_coefficient(dice_counts(output, targets, "sigmoid"))


def test_by_hand() -> None:
    # Foreground: 1 common pixel of 2 and 2, Dice 2/4. Background: 2 common pixels of 3 and 3, Dice 4/6.
    assert accuracy([1, 1, 0, 0, 0], [1, 0, 1, 0, 0]) == pytest.approx((2 / 4 + 4 / 6) / 2)


def test_all_background_is_half_right() -> None:
    # The background's Dice is 2 * 9 / (10 + 9); the lesion's is 0.
    assert accuracy([0] * 10, [1] + [0] * 9) == pytest.approx((18 / 19 + 0) / 2)


def test_a_class_that_is_neither_there_nor_predicted_is_right() -> None:
    assert accuracy([0, 0], [0, 0]) == 1.0
    assert accuracy([1, 1], [1, 1]) == 1.0
    assert accuracy([1, 1], [0, 0]) == 0.0


def test_a_probability_of_one_half_is_inside() -> None:
    counts = dice_counts(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), "sigmoid")
    assert dice_coefficient(counts) == 1.0


def test_against_monai() -> None:
    # monai.metrics.compute_dice on the samples laid side by side, background and foreground: 0.6111 and 0.5.
    targets = (torch.arange(32).reshape(2, 1, 4, 4) % 3 == 0).float()
    counts = dice_counts(waves(2, 1, 4, 4), targets, "sigmoid")
    assert dice_coefficient(counts) == pytest.approx(0.5555555820465088, rel=1e-6)
    # Three classes: 0.3158, 0.4 and 0.3.
    classes = torch.arange(32).reshape(2, 4, 4) % 3
    for activation in ("softmax", "log_softmax"):
        counts = dice_counts(waves(2, 3, 4, 4), classes, activation)
        assert dice_coefficient(counts) == pytest.approx(0.33859649300575256, rel=1e-6)


def test_counts_of_batches_add_up() -> None:
    output, targets = waves(6, 1, 4, 4), (waves(6, 1, 4, 4).roll(5) > 0).float()
    whole = dice_counts(output, targets, "sigmoid")
    parts = [dice_counts(output[part], targets[part], "sigmoid") for part in (slice(0, 1), slice(1, 6))]
    assert torch.equal(whole, torch.stack(parts).sum(0))


def test_ignored_pixels_do_not_count() -> None:
    output = torch.eye(3).reshape(1, 3, 1, 3) * 5  # predicts the classes 0, 1, 2
    targets = torch.tensor([0, 1, 255]).reshape(1, 1, 3)
    counts = dice_counts(output, targets, "softmax", ignore_index=255)
    assert counts.tolist() == [[1, 1, 0], [2, 2, 0]]
    assert dice_coefficient(counts) == 1.0


def test_channels_of_their_own_are_judged_by_themselves() -> None:
    output = torch.tensor([[1.0, -1.0], [1.0, 1.0]]).reshape(1, 2, 1, 2)
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).reshape(1, 2, 1, 2)
    # First channel: right. Second: one common pixel of two and one.
    assert dice_coefficient(dice_counts(output, targets, "sigmoid")) == pytest.approx((1 + 2 / 3) / 2)


def test_counts_beyond_what_float32_can_count() -> None:
    size = 2**24 + 1
    counts = dice_counts(torch.ones(1, 1, 1, size), torch.ones(1, 1, 1, size), "sigmoid")
    assert counts[:, 1].tolist() == [size, 2 * size]


def test_one_channel_stands_for_two_classes() -> None:
    assert [num_dice_classes(channels) for channels in (1, 2, 3)] == [2, 2, 3]
