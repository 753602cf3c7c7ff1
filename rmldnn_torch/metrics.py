"""Accuracy: of labels the fraction that is correct, of masks the Dice coefficient averaged over all classes.

Of masks the background is one of the classes, as in rmldnn, and the hard predictions count. The coefficient of a
class, 2 |P and T| / (|P| + |T|), is taken of all pixels of the evaluation together, so it depends neither on the batch
size nor on how samples are grouped. rmldnn does not publish how it averages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from rmldnn_torch.losses import one_hot


@dataclass(frozen=True)
class Accuracy:
    """An accuracy that follows from counts, which add up over batches and processes.

    Attributes:
        num_counts: how many there are.
        count: int64 (num_counts,) of a batch's logits and targets.
        value: the accuracy, 0 to 1, of the counts of all batches.
    """

    num_counts: int
    count: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor], float]


def dice_accuracy(num_channels: int, activation: str, ignore_index: int | None) -> Accuracy:
    """The Dice coefficient, for a network of so many output channels that ends in ``activation``."""

    def count(output: Tensor, targets: Tensor) -> Tensor:
        return dice_counts(output, targets, activation, ignore_index).flatten()

    return Accuracy(2 * num_dice_classes(num_channels), count, lambda counts: dice_coefficient(counts.reshape(2, -1)))


def label_accuracy(activation: str, ignore_index: int | None) -> Accuracy:
    """The fraction of correct labels, for a network that ends in ``activation``; not a number where none counts."""
    count = partial(label_counts, activation=activation, ignore_index=ignore_index)
    return Accuracy(2, count, _fraction)


def _fraction(counts: Tensor) -> float:
    correct, counted = counts.tolist()
    return correct / counted if counted else math.nan


def label_counts(output: Tensor, targets: Tensor, activation: str, ignore_index: int | None = None) -> Tensor:
    """How many labels of a batch are predicted correctly, and how many count.

    Args:
        output: logits (n, channels).
        targets: class numbers, int64 (n,), or 0 and 1, float (n, 1), for a network of one output.
        activation: in what the network ends. One output predicts class 1 from a probability of 0.5 up (with a
            linear end, from a value of 0.5 up); else the largest logit is the prediction.
        ignore_index: samples of this class do not count.

    Returns:
        int64 (2,).
    """
    if targets.is_floating_point():
        predicted, truth = output[:, 0] >= _threshold(activation), targets[:, 0] >= 0.5
        return torch.stack([(predicted == truth).sum(), torch.full((), len(truth), device=truth.device)])
    counted = torch.ones_like(targets, dtype=torch.bool) if ignore_index is None else targets != ignore_index
    return torch.stack([((output.argmax(dim=1) == targets) & counted).sum(), counted.sum()])


def _threshold(activation: str) -> float:
    """The logit from which a value counts as true."""
    return 0.0 if activation == "sigmoid" else 0.5


def dice_counts(output: Tensor, targets: Tensor, activation: str, ignore_index: int | None = None) -> Tensor:
    """Pixel counts of a batch, from which :func:`dice_coefficient` follows once they are summed over batches.

    Args:
        output: logits (n, channels, spatial...).
        targets: class numbers, int64 (n, spatial...), or values in [0, 1] of the output's shape, true from 0.5 up.
        activation: in what the network ends. With one sigmoid channel the classes are background and
            foreground, predicted from a probability of 0.5 up; with several and values as targets, each
            channel is judged by itself; else the channel of the largest logit is predicted.
        ignore_index: pixels of this class number do not count.

    Returns:
        int64 (2, classes): the pixels in prediction and target, and the sum of those in either, by class.
    """
    predicted, truth, counted = _masks(output, targets, activation, ignore_index)
    dims = [axis for axis in range(output.ndim) if axis != 1]
    overlap = (predicted & truth & counted).sum(dims)
    total = (predicted & counted).sum(dims) + (truth & counted).sum(dims)
    return torch.stack([overlap, total])


def dice_coefficient(counts: Tensor) -> float:
    """The Dice coefficient, 0 to 1, averaged over classes; 1 for a class that is neither predicted nor there."""
    overlap, total = counts.double()
    return float(torch.where(total == 0, 1.0, 2 * overlap / total.clamp(min=1)).mean())


def num_dice_classes(num_channels: int) -> int:
    """How many classes :func:`dice_counts` distinguishes for a network of so many output channels."""
    return max(num_channels, 2)


def _masks(output: Tensor, targets: Tensor, activation: str, ignore_index: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction and truth (n, classes, spatial...) and which pixels count, all boolean."""
    everywhere = torch.ones((), dtype=torch.bool, device=output.device)
    if targets.is_floating_point():
        predicted, truth = output >= _threshold(activation), targets >= 0.5
        if activation in {"softmax", "log_softmax"}:
            predicted = one_hot(output.argmax(dim=1), output) > 0
        if output.shape[1] == 1:
            return torch.cat([~predicted, predicted], dim=1), torch.cat([~truth, truth], dim=1), everywhere
        return predicted, truth, everywhere
    counted = everywhere if ignore_index is None else (targets != ignore_index).unsqueeze(1)
    known = targets if ignore_index is None else targets.where(targets != ignore_index, 0)
    return one_hot(output.argmax(dim=1), output) > 0, one_hot(known, output) > 0, counted
