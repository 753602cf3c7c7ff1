"""Settings of the document reach torch; schedulers change the learning rate as documented."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn, optim
from torch.nn import functional

from rmldnn_contract import optimizer as documents
from rmldnn_contract.exit_status import HyperparameterError
from rmldnn_contract.optimizer import OPTIMIZERS, Optimizer
from rmldnn_torch.optimizers import Optimization, build_optimization


def build(**document: object) -> Optimization:
    parsed: Optimizer = TypeAdapter[Optimizer](Optimizer).validate_python(document)
    return build_optimization(parsed, nn.Linear(3, 2).parameters())


@pytest.mark.parametrize(
    ("document", "kind", "settings"),
    [
        ({"type": "SGD"}, optim.SGD, {"lr": 0.01, "momentum": 0, "weight_decay": 0, "dampening": 0, "nesterov": False}),
        (
            {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.2, "nesterov": True},
            optim.SGD,
            {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.2, "dampening": 0, "nesterov": True},
        ),
        ({"type": "SGD", "momentum": 0.5, "dampening": 0.1}, optim.SGD, {"momentum": 0.5, "dampening": 0.1}),
        ({"type": "Adagrad"}, optim.Adagrad, {"lr": 0.01, "lr_decay": 0, "weight_decay": 0}),
        (
            {"type": "Adagrad", "lr_decay": 0.3, "weight_decay": 0.1},
            optim.Adagrad,
            {"lr_decay": 0.3, "weight_decay": 0.1},
        ),
        (
            {"type": "Adam"},
            optim.Adam,
            {"lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0, "eps": 1e-8, "amsgrad": False},
        ),
        (
            {"type": "AdamW", "beta1": 0.8, "beta2": 0.9, "weight_decay": 0.2, "eps": 1e-3, "amsgrad": True},
            optim.AdamW,
            {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.2, "eps": 1e-3, "amsgrad": True},
        ),
        ({"type": "AdamW"}, optim.AdamW, {"weight_decay": 0}),
        (
            {"type": "RMSprop"},
            optim.RMSprop,
            {"lr": 0.01, "momentum": 0, "alpha": 0.99, "eps": 1e-8, "centered": False, "weight_decay": 0},
        ),
        (
            {"type": "RMSprop", "momentum": 0.9, "alpha": 0.5, "eps": 0.1, "centered": True, "weight_decay": 0.3},
            optim.RMSprop,
            {"momentum": 0.9, "alpha": 0.5, "eps": 0.1, "centered": True, "weight_decay": 0.3},
        ),
    ],
)
def test_settings_reach_torch(document: dict[str, object], kind: type, settings: dict[str, object]) -> None:
    optimizer = build(**document).optimizer
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert {key: group[key] for key in settings} == settings


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW", "RMSprop"])
def test_the_fast_form_takes_the_steps_of_the_plain_one(name: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 1, 3)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain_network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    document: Optimizer = TypeAdapter[Optimizer](Optimizer).validate_python({"type": name, "weight_decay": 0.1})
    fast = build_optimization(document, network.parameters())
    settings: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "foreach": False}
    plain = getattr(optim, name)(plain_network.parameters(), **settings)
    for _ in range(5):
        fast.clear_gradients()
        plain.zero_grad()
        for model in (network, plain_network):
            model(torch.linspace(-1, 1, 128).reshape(1, 2, 8, 8)).square().sum().backward()
        fast.step()
        plain.step()
    for parameter, expected in zip(network.parameters(), plain_network.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-6)


def test_adagrad_on_a_gpu_is_left_to_torch_which_takes_all_parameters_at_once() -> None:
    """``fused`` False would be its slowest form, one parameter after the other; meta stands for a GPU here."""
    kernel = nn.Parameter(torch.empty(2, device="meta"))
    group = build_optimization(documents.Adagrad(type="Adagrad"), [kernel]).optimizer.param_groups[0]
    assert group["fused"] is None
    assert group["foreach"] is None


def test_gradients_in_another_order_than_their_kernel_are_read_rightly() -> None:
    kernel = nn.Parameter(torch.arange(24.0).reshape(2, 3, 2, 2).to(memory_format=torch.channels_last))
    optimization = build_optimization(documents.SGD(type="SGD", learning_rate=1.0), [kernel])
    gradient = torch.arange(24.0).reshape(2, 3, 2, 2)
    kernel.grad = gradient
    optimization.step()
    torch.testing.assert_close(kernel.detach(), torch.zeros(2, 3, 2, 2))


def test_every_optimizer_of_the_contract_is_there() -> None:
    for name in OPTIMIZERS:
        assert isinstance(build(type=name).optimizer, optim.Optimizer)


WEIGHTS = np.array([[3.0, -4.0], [1.0, 2.0]])
BIASES = np.array([0.5, -1.0])
GRADIENTS = [
    (np.array([[0.1, 0.2], [-0.3, 0.4]]), np.array([0.6, -0.2])),
    (np.array([[-0.5, 0.1], [0.2, 0.3]]), np.array([-0.1, 0.7])),
]
Arrays = tuple[np.ndarray, np.ndarray]


def steps_of(**document: object) -> Arrays:
    """Weights and biases after a step with each of the gradients."""
    parsed: Optimizer = TypeAdapter[Optimizer](Optimizer).validate_python(document)
    parameters = [nn.Parameter(torch.tensor(value)) for value in (WEIGHTS, BIASES)]
    optimizer = build_optimization(parsed, parameters).optimizer
    for gradients in GRADIENTS:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
    weights, biases = (parameter.detach().numpy() for parameter in parameters)
    return weights, biases


@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_takes_the_steps_of_its_paper(nesterov: bool) -> None:
    rate, momentum, decay, eta = 0.7, 0.9, 0.05, 0.02
    weights, biases = steps_of(
        type="LARS", learning_rate=rate, momentum=momentum, weight_decay=decay, eta=eta, nesterov=nesterov
    )
    expected_weights, expected_biases = WEIGHTS.copy(), BIASES.copy()
    speed, bias_speed = np.zeros((2, 2)), np.zeros(2)
    norm = np.linalg.norm
    for gradient, bias_gradient in GRADIENTS:
        # You et al., algorithm 1; the learning rate stands outside of the momentum, as it does in torch's SGD.
        local_rate = eta * norm(expected_weights) / (norm(gradient) + decay * norm(expected_weights))
        scaled = local_rate * (gradient + decay * expected_weights)
        speed = momentum * speed + scaled
        bias_speed = momentum * bias_speed + bias_gradient
        expected_weights -= rate * (scaled + momentum * speed if nesterov else speed)
        expected_biases -= rate * (bias_gradient + momentum * bias_speed if nesterov else bias_speed)
    np.testing.assert_allclose(weights, expected_weights, rtol=1e-12)
    np.testing.assert_allclose(biases, expected_biases, rtol=1e-12)


def lamb_by_hand(
    value: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float, *, correct: bool
) -> np.ndarray:
    """You et al., algorithm 2, with or without its correction of the moments."""
    beta1, beta2, eps = 0.8, 0.95, 1e-8
    first, second = np.zeros_like(value), np.zeros_like(value)
    for step, gradient in enumerate(gradients, start=1):
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        scales = (1 - beta1**step, 1 - beta2**step) if correct else (1, 1)
        update = first / scales[0] / (np.sqrt(second / scales[1]) + eps) + decay * value
        value = value - rate * min(np.linalg.norm(value), 10) / np.linalg.norm(update) * update
    return value


@pytest.mark.parametrize(("decay", "correct"), [(0.05, False), (0.0, False), (0.0, True)])
def test_lamb_takes_the_steps_of_its_paper(decay: float, correct: bool) -> None:
    results = steps_of(type="LAMB", learning_rate=0.03, beta1=0.8, beta2=0.95, weight_decay=decay)
    for result, start, gradients in zip(results, (WEIGHTS, BIASES), zip(*GRADIENTS, strict=True), strict=True):
        expected = lamb_by_hand(start, list(gradients), 0.03, decay, correct=correct)
        np.testing.assert_allclose(result, expected, rtol=1e-6)


def least_squares(**settings: object) -> tuple[nn.Conv2d, Callable[[], Tensor], np.ndarray, list[float]]:
    """A convolution to fit, its objective, the exact solution, and the list that collects each value looked at."""
    generator = np.random.default_rng(0)
    inputs, targets = generator.normal(size=(50, 4, 1, 1)), generator.normal(size=(50, 1, 1, 1))
    solution = np.linalg.lstsq(inputs[:, :, 0, 0], targets[:, 0, 0, 0], rcond=None)[0]
    network = nn.Conv2d(4, 1, 1, bias=False).double()
    optimizer = build_optimization(
        TypeAdapter[Optimizer](Optimizer).validate_python({"type": "Hessian", **settings}), network.parameters()
    ).optimizer
    values: list[float] = []

    def objective() -> Tensor:
        optimizer.zero_grad()
        loss = functional.mse_loss(network(torch.from_numpy(inputs)), torch.from_numpy(targets))
        loss.backward()  # type: ignore[no-untyped-call]
        values.append(loss.item())
        return loss

    return network, partial(optimizer.step, objective), solution, values


def test_the_hessian_optimizer_minimizes_a_batch_in_one_step() -> None:
    network, step, solution, _ = least_squares()
    step()
    np.testing.assert_allclose(network.weight.detach().numpy().ravel(), solution, atol=1e-5)


def test_the_limits_of_the_hessian_optimizer_hold() -> None:
    *_, step, _, unlimited = least_squares()
    step()
    for settings in ({"max_iterations": 1}, {"max_func_eval": 2}, {"absolute_tolerance": 1e3}):
        *_, limited_step, _, values = least_squares(**settings)
        limited_step()
        assert len(values) < len(unlimited)
    assert len(values) == 1  # the gradient at the start is small enough already


def test_the_hessian_optimizer_carries_nothing_from_batch_to_batch() -> None:
    network, step, _, _ = least_squares(max_iterations=2)
    other_network, other_step, _, _ = least_squares(max_iterations=2)
    step()
    with torch.no_grad():
        other_network.weight.copy_(network.weight)
    step()
    other_step()  # its first
    torch.testing.assert_close(network.weight, other_network.weight, rtol=0, atol=0)


def test_settings_beyond_an_optimizers_range_are_one_line() -> None:
    with pytest.raises(HyperparameterError, match="LARS does not take this: momentum must be in the range"):
        build(type="LARS", momentum=1.5)
    with pytest.raises(HyperparameterError, match="LAMB has no amsgrad"):
        build(type="LAMB", amsgrad=True)


def test_frozen_parameters_are_left_alone() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    network[0].requires_grad_(False)
    document: Optimizer = TypeAdapter[Optimizer](Optimizer).validate_python({"type": "sgd"})
    optimizer = build_optimization(document, network.parameters()).optimizer
    assert optimizer.param_groups[0]["params"] == list(network[1].parameters())
    network.requires_grad_(False)
    with pytest.raises(HyperparameterError, match="no trainable parameters"):
        build_optimization(document, network.parameters())


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [
        ({"type": "Step", "gamma": 0.5, "step_size": 2}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ({"type": "MultiStep", "gamma": 0.1, "milestones": [1, 4]}, [1, 0.1, 0.1, 0.1, 0.01, 0.01]),
        ({"type": "Exponential", "gamma": 0.5}, [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
        ({"type": "Warmup", "num_epochs": 4, "start_factor": 0.2}, [0.2, 0.4, 0.6, 0.8, 1, 1]),
    ],
)
def test_learning_rates_by_epoch(scheduler: dict[str, object], rates: list[float]) -> None:
    optimization = build(type="SGD", learning_rate=1.0, lr_scheduler={**scheduler, "verbose": True})
    assert optimization.scheduler is not None
    assert optimization.verbose
    seen = []
    for _ in rates:
        seen.append(optimization.optimizer.param_groups[0]["lr"])
        optimization.optimizer.step()
        optimization.scheduler.step()
    assert seen == pytest.approx(rates)


def test_without_a_scheduler_the_learning_rate_stays() -> None:
    assert build(type="Adam").scheduler is None
