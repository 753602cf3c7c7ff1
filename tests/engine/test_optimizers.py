"""Settings of the document reach torch; schedulers change the learning rate as documented."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn, optim

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
    fast = build_optimization(document, network.parameters()).optimizer
    settings: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1, "foreach": False}
    plain = getattr(optim, name)(plain_network.parameters(), **settings)
    for _ in range(5):
        for model, optimizer in ((network, fast), (plain_network, plain)):
            optimizer.zero_grad()
            model(torch.linspace(-1, 1, 128).reshape(1, 2, 8, 8)).square().sum().backward()
            optimizer.step()
    for parameter, expected in zip(network.parameters(), plain_network.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"SGD", "Adagrad", "Adam", "AdamW", "RMSprop"}))
def test_an_optimizer_that_the_engine_lacks_says_so(name: str) -> None:
    with pytest.raises(
        HyperparameterError, match=f"the optimizer {name} is not in this engine yet: use one of SGD, RMSprop"
    ):
        build(type=name)


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
