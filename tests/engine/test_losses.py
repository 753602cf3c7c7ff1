"""Losses against hand computation, the definitions in their papers, and numbers that MONAI 1.6.1 gave."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rmldnn_contract.config import Loss
from rmldnn_contract.exit_status import HyperparameterError
from rmldnn_torch.losses import LossFunction, activate, build_loss, probabilities


def waves(*shape: int) -> Tensor:
    """Logits that anybody can make again."""
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float32) * 1.7).reshape(shape) * 3


ONE_CLASS = waves(2, 1, 4, 4), (torch.arange(32).reshape(2, 1, 4, 4) % 3 == 0).float()
THREE_CLASSES = waves(2, 3, 4, 4), torch.arange(32).reshape(2, 4, 4) % 3


def loss_of(function: str, activation: str = "sigmoid", num_classes: int = 1, **settings: object) -> LossFunction:
    return build_loss(Loss.model_validate({"function": function, **settings}), activation, num_classes)


def logit(*probabilities: float) -> Tensor:
    """Logits of one image of one class, a pixel each."""
    return torch.logit(torch.tensor(probabilities)).reshape(1, 1, 1, -1)


def mask(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)


# --- by hand, on the probabilities 0.8 and 0.4 of pixels that are inside and outside


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("BCE", -(math.log(0.8) + math.log(0.6)) / 2),
        ("MSE", (0.2**2 + 0.4**2) / 2),
        ("Dice", 1 - 2 * 0.8 / (1.2 + 1)),
        ("Jaccard", 1 - 0.8 / (1.2 + 1 - 0.8)),
        ("Focal", -(0.2**2 * math.log(0.8) + 0.4**2 * math.log(0.6)) / 2),
        # The hinge errors are relu(1 - log 4) = 0 for the inner pixel and 1 + log(0.4 / 0.6) for the outer one. The
        # larger one comes first: alone it makes the Jaccard index 1/2, and the other one adds the second half.
        ("Lovasz", (1 + math.log(0.4 / 0.6)) / 2),
    ],
)
def test_by_hand(function: str, expected: float) -> None:
    assert float(loss_of(function)(logit(0.8, 0.4), mask(1, 0))) == pytest.approx(expected, abs=1e-6)


def test_negative_log_likelihood_by_hand() -> None:
    output = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1]]).log()
    targets = torch.tensor([0, 2])
    expected = -(math.log(0.5) + math.log(0.1)) / 2
    assert float(loss_of("NLL", "softmax", 3)(output, targets)) == pytest.approx(expected)
    assert float(loss_of("NLL", "log_softmax", 3)(output, targets)) == pytest.approx(expected)
    weighted = -(1 * math.log(0.5) + 3 * math.log(0.1)) / (1 + 3)
    assert float(loss_of("NLL", "softmax", 3, weight=[1, 2, 3])(output, targets)) == pytest.approx(weighted)
    ignoring = loss_of("NLL", "softmax", 3, ignore_index=2)(output, targets)
    assert float(ignoring) == pytest.approx(-math.log(0.5))


def test_negative_log_likelihood_of_weights_and_ignored_pixels_is_torchs() -> None:
    output, targets = THREE_CLASSES
    given = loss_of("NLL", "softmax", 3, weight=[0.5, 3, 2], ignore_index=1)(output, targets)
    expected = functional.cross_entropy(output, targets, torch.tensor([0.5, 3, 2]), ignore_index=1)
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(loss_of("NLL", "softmax", 3)(output, targets), functional.cross_entropy(output, targets))


@pytest.mark.parametrize(
    "settings", [{"ignore_index": 2}, {"ignore_index": 2, "weight": [1, 2, 3]}, {"weight": [1, 1, 0]}]
)
def test_a_batch_in_which_nothing_counts_costs_nothing(settings: dict[str, object]) -> None:
    output = THREE_CLASSES[0].clone().requires_grad_()
    loss = loss_of("NLL", "softmax", 3, **settings)(output, torch.full((2, 4, 4), 2))
    (gradient,) = torch.autograd.grad(loss, output)
    assert loss == 0
    assert not gradient.any()


def test_ignored_numbers_beyond_the_classes() -> None:
    output, targets = THREE_CLASSES
    targets = torch.cat([targets, torch.full_like(targets, 255)])
    given = loss_of("NLL", "softmax", 3, ignore_index=255)(output.repeat(2, 1, 1, 1), targets)
    torch.testing.assert_close(given, functional.cross_entropy(*THREE_CLASSES))


def test_negative_log_likelihood_of_values() -> None:
    output, targets = THREE_CLASSES[0], torch.softmax(waves(2, 3, 4, 4).flip(0), dim=1)
    expected = -(targets * torch.log_softmax(output, dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(loss_of("NLL", "softmax", 3)(output, targets), expected)
    with pytest.raises(HyperparameterError, match=r"the targets are values: set data\.target_is_mask to true"):
        loss_of("NLL", "softmax", 3, ignore_index=1)(output, targets)


# --- against MONAI 1.6.1: DiceLoss and FocalLoss with batch=True, smooth_nr=smooth_dr=1e-7, gamma=2


@pytest.mark.parametrize(
    ("function", "one_class", "three_classes"),
    [
        ("Dice", 0.5897822976112366, 0.6564587950706482),
        ("Jaccard", 0.7419661283493042, 0.7924441695213318),
        ("Focal", 0.8680195212364197, 2.362802028656006),
    ],
)
def test_against_monai(function: str, one_class: float, three_classes: float) -> None:
    assert float(loss_of(function)(*ONE_CLASS)) == pytest.approx(one_class, rel=1e-5)
    assert float(loss_of(function, "softmax", 3)(*THREE_CLASSES)) == pytest.approx(three_classes, rel=1e-5)
    assert float(loss_of(function, "log_softmax", 3)(*THREE_CLASSES)) == pytest.approx(three_classes, rel=1e-5)


# --- the Lovasz extension, from its definition as an integral over thresholds (Berman et al., section 2)


def jaccard_loss(wrong: Tensor, truth: Tensor) -> float:
    """1 - intersection / union of the truth and the prediction that is wrong in those pixels."""
    predicted = truth ^ wrong
    union = int((truth | predicted).sum())
    return 1 - int((truth & predicted).sum()) / union if union else 0.0


def lovasz_extension(errors: Tensor, truth: Tensor) -> float:
    """Integral over t from 0 of the Jaccard loss of the pixels whose error is above t."""
    levels: list[float] = [0.0, *sorted(set(errors.tolist()))]
    return sum((upper - lower) * jaccard_loss(errors > lower, truth) for lower, upper in pairwise(levels))


def test_lovasz_hinge_is_the_extension_of_the_jaccard_loss() -> None:
    output, targets = ONE_CLASS
    hinges = (1 - output * (2 * targets - 1)).clamp(min=0).double()
    expected = [lovasz_extension(hinges[i].flatten(), targets[i].flatten() > 0.5) for i in range(2)]
    assert float(loss_of("Lovasz")(output, targets)) == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_lovasz_softmax_is_the_extension_of_the_jaccard_loss_of_each_class() -> None:
    output, targets = THREE_CLASSES
    targets = targets.where(targets != 2, 1)
    targets[0, 0, 0] = 2  # the third class occurs in the first image only
    given = torch.softmax(output, dim=1).double()
    expected = []
    for image in range(2):
        present = [kind for kind in range(3) if (targets[image] == kind).any()]
        truths = [(targets[image] == kind).flatten() for kind in present]
        errors = [
            (truth.double() - given[image, kind].flatten()).abs() for kind, truth in zip(present, truths, strict=True)
        ]
        losses = [lovasz_extension(error, truth) for error, truth in zip(errors, truths, strict=True)]
        expected.append(sum(losses) / len(losses))
    assert float(loss_of("Lovasz", "softmax", 3)(output, targets)) == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_lovasz_softmax_of_an_image_without_any_class_costs_nothing() -> None:
    output, targets = THREE_CLASSES
    values = functional.one_hot(targets, 3).movedim(-1, 1).float()
    values[1] = 0
    first = loss_of("Lovasz", "softmax", 3)(output[:1], targets[:1])
    torch.testing.assert_close(loss_of("Lovasz", "softmax", 3)(output, values), first / 2)


# --- what all losses share


@pytest.mark.parametrize("function", ["BCE", "MSE", "Dice", "Jaccard", "Focal", "Lovasz"])
def test_a_perfect_prediction_costs_nothing_and_a_wrong_one_much(function: str) -> None:
    loss = loss_of(function)
    targets = mask(1, 0, 1, 0)
    right, wrong = (2 * targets - 1) * 30, (1 - 2 * targets) * 30
    assert float(loss(right, targets)) == pytest.approx(0, abs=1e-5)
    assert float(loss(wrong, targets)) > 0.5


@pytest.mark.parametrize("function", ["BCE", "Dice", "Jaccard", "Focal", "Lovasz"])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_gradients_are_finite_for_certain_predictions_and_empty_masks(function: str, scale: float) -> None:
    output = (waves(2, 1, 4, 4) * scale).requires_grad_()
    for targets in (torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)):
        loss = loss_of(function)(output, targets)
        (gradient,) = torch.autograd.grad(loss, output)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("function", ["BCE", "MSE", "Dice", "Jaccard", "Focal", "Lovasz", "NLL"])
def test_a_step_against_the_gradient_lowers_the_loss(function: str) -> None:
    activation, num_classes, (output, targets) = ("softmax", 3, THREE_CLASSES)
    loss = loss_of(function, activation, num_classes)
    output = output.clone().requires_grad_()
    before = loss(output, targets)
    (gradient,) = torch.autograd.grad(before, output)
    assert float(loss(output.detach() - 0.01 * gradient, targets)) < float(before.detach())


def test_bce_with_a_softmax_takes_its_probabilities() -> None:
    output, targets = THREE_CLASSES
    given = torch.softmax(output.double(), dim=1)
    truth = torch.stack([targets == kind for kind in range(3)], dim=1).double()
    expected = -(truth * given.log() + (1 - truth) * (1 - given).log()).mean()
    assert float(loss_of("BCE", "softmax", 3)(output, targets)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("logit", [1.0, 8.0, 40.0, 1e4])
def test_bce_with_a_softmax_of_certain_predictions(logit: float) -> None:
    output = torch.tensor([[logit, 0.0, -logit]]).reshape(1, 3, 1).requires_grad_()
    loss = loss_of("BCE", "softmax", 3)
    (gradient,) = torch.autograd.grad(loss(output, torch.tensor([[2]])), output)
    # The wrong class goes down and the right one up, however certain the network is.
    assert torch.isfinite(gradient).all()
    assert gradient[0, 0] > 0.3 > 0 > gradient[0, 2]


@pytest.mark.parametrize("function", ["BCE", "MSE", "Dice", "Jaccard", "Focal", "Lovasz", "NLL"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "log_softmax"])
def test_no_number_in_the_output_is_no_number_in_the_loss(function: str, activation: str) -> None:
    if function == "NLL" and activation == "sigmoid":
        return
    output, targets = THREE_CLASSES[0].clone(), THREE_CLASSES[1]
    output[0, 0, 0, 0] = math.nan
    assert loss_of(function, activation, 3)(output, targets).isnan()


def test_what_the_network_gives() -> None:
    output = waves(1, 3, 2)
    torch.testing.assert_close(activate(output, "softmax").sum(1), torch.ones(1, 2))
    torch.testing.assert_close(activate(output, "log_softmax").exp(), activate(output, "softmax"))
    torch.testing.assert_close(probabilities(output, "log_softmax"), activate(output, "softmax"))
    torch.testing.assert_close(activate(output, "sigmoid"), 1 / (1 + (-output).exp()))
    assert torch.equal(activate(output, "linear"), output)


# --- what does not fit


@pytest.mark.parametrize(
    ("function", "settings", "activation", "num_classes", "message"),
    [
        ("BCE", {"source": "softmax"}, "sigmoid", 1, "loss.source is 'softmax', but the network ends in 'sigmoid'"),
        ("Dice", {}, "linear", 1, "the loss Dice needs a network that ends in a sigmoid"),
        ("NLL", {}, "sigmoid", 1, "the loss NLL needs a network that ends in softmax .* use BCE, Dice"),
        ("NLL", {}, "softmax", 1, "with a channel for each class"),
        ("NLL", {"weight": [1.0]}, "softmax", 3, "loss.weight has 1 numbers, the network 3 classes"),
        ("Dice", {"weight": [1.0]}, "sigmoid", 1, "weight and ignore_index belong to the loss NLL"),
    ],
)
def test_a_loss_that_does_not_fit_says_so(
    function: str, settings: dict[str, object], activation: str, num_classes: int, message: str
) -> None:
    with pytest.raises(HyperparameterError, match=message):
        loss_of(function, activation, num_classes, **settings)


def test_without_a_source_the_network_decides() -> None:
    assert float(loss_of("MSE", "linear")(mask(3.0), mask(1.0))) == 4.0
