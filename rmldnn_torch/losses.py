"""Loss functions on logits.

All of them take the ``output`` of a network without its last activation, (n, classes, spatial...), and the
``targets``: class numbers, int64 (n, spatial...), or values in [0, 1] of the output's shape (a mask of one class
is such values). All give a float32 scalar. Where the network ends in a sigmoid, each channel is a class of its own;
where it ends in a softmax or log_softmax, the channels share out one probability.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from rmldnn_contract.config import Loss
from rmldnn_contract.exit_status import HyperparameterError

LossFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor]

DICE_EPSILON = 1e-7
FOCAL_GAMMA = 2.0

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda output: output,
    "sigmoid": torch.sigmoid,
    "softmax": partial(torch.softmax, dim=1),
    "log_softmax": partial(torch.log_softmax, dim=1),
}


def activate(output: Tensor, activation: str) -> Tensor:
    """What the network itself gives for these logits: its last activation, over the channels."""
    return _ACTIVATIONS[activation](output)


def probabilities(output: Tensor, activation: str) -> Tensor:
    """The probability of each class, also where the network gives logarithms of it."""
    return activate(output, "softmax" if activation == "log_softmax" else activation)


def one_hot(targets: Tensor, output: Tensor) -> Tensor:
    """Targets in the shape of ``output``: class numbers become a channel for each class, values stay as they are."""
    if targets.is_floating_point():
        return targets
    return functional.one_hot(targets, output.shape[1]).movedim(-1, 1).to(output.dtype)


def binary_cross_entropy(output: Tensor, targets: Tensor, activation: str) -> Tensor:
    """Mean over all pixels and classes of -(t log p + (1 - t) log(1 - p)).

    Not a number where the output is: torch's own, which takes probabilities, raises an error for those of a softmax.
    """
    values = one_hot(targets, output)
    if activation == "sigmoid":
        return functional.binary_cross_entropy_with_logits(output, values)
    log_probability = torch.log_softmax(output, dim=1)
    # Float32 knows no smaller difference from 1, but 0.
    log_rest = (1 - log_probability.exp()).clamp(min=2**-24).log()
    return -(values * log_probability + (1 - values) * log_rest).mean()


def mean_squared_error(output: Tensor, targets: Tensor, activation: str) -> Tensor:
    """Mean of (p - t)^2, p being what the network gives."""
    return functional.mse_loss(activate(output, activation), one_hot(targets, output))


def dice(output: Tensor, targets: Tensor, activation: str) -> Tensor:
    """1 - (2 sum(p t) + eps) / (sum(p) + sum(t) + eps), mean over classes.

    After Milletari et al., 3DV 2016, without the squares in the denominator. The sums go over all pixels of the
    batch, so that an image whose mask is empty counts by its false positives instead of being lost or won altogether.
    """
    overlap, total = _overlap_and_total(output, targets, activation)
    return (1 - (2 * overlap + DICE_EPSILON) / (total + DICE_EPSILON)).mean()


def jaccard(output: Tensor, targets: Tensor, activation: str) -> Tensor:
    """1 - (sum(p t) + eps) / (sum(p) + sum(t) - sum(p t) + eps), sums over the batch, mean over classes."""
    overlap, total = _overlap_and_total(output, targets, activation)
    return (1 - (overlap + DICE_EPSILON) / (total - overlap + DICE_EPSILON)).mean()


def _overlap_and_total(output: Tensor, targets: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    predicted, values = probabilities(output, activation), one_hot(targets, output)
    dims = [axis for axis in range(output.ndim) if axis != 1]
    return (predicted * values).sum(dims), (predicted + values).sum(dims)


def focal(output: Tensor, targets: Tensor, activation: str) -> Tensor:
    """Mean of -(1 - p_t)^2 log(p_t), p_t the probability of the true class.

    After Lin et al., ICCV 2017, with their gamma of 2 and without their class weight alpha. For values between 0 and 1
    the factor is the squared distance (p - t)^2, which for 0 and 1 is the same.
    """
    if activation == "sigmoid":
        values = one_hot(targets, output)
        entropy = functional.binary_cross_entropy_with_logits(output, values, reduction="none")
        return ((torch.sigmoid(output) - values).abs() ** FOCAL_GAMMA * entropy).mean()
    log_probability = torch.log_softmax(output, dim=1)
    modulated = -((1 - log_probability.exp()) ** FOCAL_GAMMA) * log_probability
    return (modulated * one_hot(targets, output)).sum(dim=1).mean()


def lovasz(output: Tensor, targets: Tensor, activation: str) -> Tensor:
    """The Lovasz extension of the Jaccard loss of each image, mean over images (Berman et al., CVPR 2018).

    With a sigmoid the errors are hinges, 1 - s (2 t - 1) for logits s (section 3.1 there), mean over channels; with a
    softmax they are |t - p| (section 3.2), mean over the classes that occur in the image.
    """
    # A label is a mask of one pixel.
    values = one_hot(targets, output).unsqueeze(-1).flatten(2)
    scores = output.unsqueeze(-1).flatten(2)
    if activation == "sigmoid":
        truth = (values >= 0.5).to(scores.dtype)
        errors = 1 - scores * (2 * truth - 1)
        return _lovasz_extension(functional.relu(errors), truth).mean()
    losses = _lovasz_extension((values - torch.softmax(scores, dim=1)).abs(), values)
    occurs = (values.sum(dim=-1) > 0).to(losses.dtype)
    # Class numbers always name one; targets of values may be 0 in all channels.
    return ((losses * occurs).sum(dim=1) / occurs.sum(dim=1).clamp(min=1)).mean()


def _lovasz_extension(errors: Tensor, truth: Tensor) -> Tensor:
    """Of the Jaccard loss, for errors and truth of (..., pixels); gives (...). Algorithm 1 of the paper."""
    ordered, order = errors.sort(dim=-1, descending=True)
    positives = truth.gather(-1, order)
    num_positives = positives.sum(dim=-1, keepdim=True)
    intersection = num_positives - positives.cumsum(dim=-1)
    union = num_positives + (1 - positives).cumsum(dim=-1)
    jaccard_loss = 1 - intersection / union
    steps = jaccard_loss.diff(dim=-1, prepend=torch.zeros_like(num_positives))
    return (ordered * steps).sum(dim=-1)


def negative_log_likelihood(
    output: Tensor, targets: Tensor, weight: Tensor | None = None, ignore_index: int | None = None
) -> Tensor:
    """Mean of -log p of the true class, weighted by class; pixels of ``ignore_index`` do not count.

    Where nothing counts, as in a batch of ignored pixels alone, it is 0: torch's own mean is not a number there.

    Raises:
        HyperparameterError: there is an ``ignore_index``, and targets are values, which have none.
    """
    weights = None if weight is None else weight.to(output)
    if targets.is_floating_point():
        if ignore_index is not None:
            raise HyperparameterError(
                "the loss NLL ignores a class number, and the targets are values: "
                "set data.target_is_mask to true, or remove loss.ignore_index"
            )
        return functional.cross_entropy(output, targets, weight=weights)
    counted = torch.ones_like(targets, dtype=torch.bool) if ignore_index is None else targets != ignore_index
    known = targets.where(counted, 0)
    shares = counted.to(output) if weights is None else weights[known] * counted
    losses = functional.cross_entropy(output, known, reduction="none")
    return (losses * shares).sum() / shares.sum().clamp(min=torch.finfo(torch.float32).tiny)


_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, str], Tensor]] = {
    "BCE": binary_cross_entropy,
    "MSE": mean_squared_error,
    "Dice": dice,
    "Jaccard": jaccard,
    "Focal": focal,
    "Lovasz": lovasz,
}


def build_loss(loss: Loss, activation: str, num_classes: int) -> LossFunction:
    """The loss function of the document, for a network that ends in ``activation`` and ``num_classes`` channels.

    Raises:
        HyperparameterError: the network does not end in what ``loss.source`` says or in what the function needs,
            or ``weight`` and ``ignore_index`` are given to a function that has none.
    """
    if loss.source is not None and loss.source != activation:
        raise HyperparameterError(
            f"loss.source is {loss.source!r}, but the network ends in {activation!r}: make the two agree"
        )
    if activation == "linear" and loss.function != "MSE":
        raise HyperparameterError(
            f"the loss {loss.function} needs a network that ends in a sigmoid, softmax or log_softmax over its channels"
        )
    if loss.function == "NLL":
        return _build_negative_log_likelihood(loss, activation, num_classes)
    if loss.weight is not None or loss.ignore_index is not None:
        raise HyperparameterError(f"weight and ignore_index belong to the loss NLL; {loss.function} has neither")
    function = _FUNCTIONS[loss.function]
    return lambda output, targets: function(output, targets, activation)


def _build_negative_log_likelihood(loss: Loss, activation: str, num_classes: int) -> LossFunction:
    if activation == "sigmoid" or num_classes < 2:
        raise HyperparameterError(
            f"the loss NLL needs a network that ends in softmax or log_softmax with a channel for each class; "
            f"this one ends in {activation} with {num_classes}: use BCE, Dice, Jaccard, Focal or Lovasz"
        )
    if loss.weight is not None and len(loss.weight) != num_classes:
        raise HyperparameterError(f"loss.weight has {len(loss.weight)} numbers, the network {num_classes} classes")
    if loss.weight is None:
        return partial(negative_log_likelihood, ignore_index=loss.ignore_index)
    weight = tuple(loss.weight)

    def compute(output: Tensor, targets: Tensor) -> Tensor:
        return negative_log_likelihood(output, targets, _weight_on(weight, output.device), loss.ignore_index)

    return compute


@cache
def _weight_on(weight: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept as long as the process: a copy in each batch would wait for the device, and recorded steps read this one."""
    with torch.inference_mode(False):
        return torch.tensor(weight, device=device)
