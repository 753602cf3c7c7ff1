"""Segmentation accuracy: the Dice coefficient of hard predictions, averaged over all classes.

The background is one of the classes, as in rmldnn. The coefficient of a class, 2 |P and T| / (|P| + |T|), is taken
of all pixels of the evaluation together, so it depends neither on the batch size nor on how samples are
grouped. rmldnn does not publish how it averages.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rmldnn_torch.losses import one_hot


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
        threshold = 0.0 if activation == "sigmoid" else 0.5
        predicted, truth = output >= threshold, targets >= 0.5
        if activation in {"softmax", "log_softmax"}:
            predicted = one_hot(output.argmax(dim=1), output) > 0
        if output.shape[1] == 1:
            return torch.cat([~predicted, predicted], dim=1), torch.cat([~truth, truth], dim=1), everywhere
        return predicted, truth, everywhere
    counted = everywhere if ignore_index is None else (targets != ignore_index).unsqueeze(1)
    known = targets if ignore_index is None else targets.where(targets != ignore_index, 0)
    return one_hot(output.argmax(dim=1), output) > 0, one_hot(known, output) > 0, counted
