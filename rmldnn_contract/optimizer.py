"""Optimizers and learning rate schedulers of the document (section 4 of the contract)."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, Union

from pydantic import Field, Tag, model_validator
from typing_extensions import Self

from rmldnn_contract._section import (
    BelowOne,
    Count,
    Fraction,
    NonNegative,
    Positive,
    TypedSection,
    any_case,
    by_type,
    has_known_type,
)


class _Scheduler(TypedSection):
    verbose: bool = False


class StepScheduler(_Scheduler):
    """Multiplies the learning rate by ``gamma`` every ``step_size`` epochs."""

    type: Annotated[Literal["Step"], any_case("scheduler", ["Step"])]
    gamma: Positive
    step_size: Count


class MultiStepScheduler(_Scheduler):
    """Multiplies the learning rate by ``gamma`` after each epoch named in ``milestones``."""

    type: Annotated[Literal["MultiStep"], any_case("scheduler", ["MultiStep"])]
    gamma: Positive
    milestones: tuple[Count, ...]


class ExponentialScheduler(_Scheduler):
    """Multiplies the learning rate by ``gamma`` at the end of every epoch."""

    type: Annotated[Literal["Exponential"], any_case("scheduler", ["Exponential"])]
    gamma: Positive


class WarmupScheduler(_Scheduler):
    """Raises the learning rate linearly from ``start_factor`` of it over the first ``num_epochs``."""

    type: Annotated[Literal["Warmup"], any_case("scheduler", ["Warmup"])]
    num_epochs: Count
    start_factor: Annotated[float, Field(gt=0, le=1)]


SCHEDULERS: dict[str, type[TypedSection]] = {
    "Step": StepScheduler,
    "MultiStep": MultiStepScheduler,
    "Exponential": ExponentialScheduler,
    "Warmup": WarmupScheduler,
}
Scheduler: TypeAlias = Annotated[
    Union[  # noqa: UP007 - tagged members stand clearer in a list
        Annotated[StepScheduler, Tag("Step")],
        Annotated[MultiStepScheduler, Tag("MultiStep")],
        Annotated[ExponentialScheduler, Tag("Exponential")],
        Annotated[WarmupScheduler, Tag("Warmup")],
    ],
    by_type(SCHEDULERS),
    has_known_type("lr_scheduler", SCHEDULERS),
]


class _FirstOrder(TypedSection):
    learning_rate: Positive = 0.01
    weight_decay: NonNegative = 0.0
    lr_scheduler: Scheduler | None = None


class _SGDSettings(_FirstOrder):
    momentum: NonNegative = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov needs a momentum above 0 and a dampening of 0")
        return self


class SGD(_SGDSettings):
    """Stochastic gradient descent, with momentum."""

    type: Annotated[Literal["SGD"], any_case("optimizer", ["SGD"])]


class LARS(_SGDSettings):
    """Layer-wise adaptive rate scaling (You et al., arXiv:1708.03888)."""

    type: Annotated[Literal["LARS"], any_case("optimizer", ["LARS"])]
    eta: Positive = 1e-3


class Adagrad(_FirstOrder):
    """Adagrad (Duchi et al., JMLR 2011)."""

    type: Annotated[Literal["Adagrad"], any_case("optimizer", ["Adagrad"])]
    lr_decay: NonNegative = 0.0


class _AdamSettings(_FirstOrder):
    beta1: BelowOne = 0.9
    beta2: BelowOne = 0.999
    eps: NonNegative = 1e-8
    amsgrad: bool = False


class Adam(_AdamSettings):
    """Adam (Kingma and Ba, ICLR 2015)."""

    type: Annotated[Literal["Adam"], any_case("optimizer", ["Adam"])]


class AdamW(_AdamSettings):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    type: Annotated[Literal["AdamW"], any_case("optimizer", ["AdamW"])]


class LAMB(_AdamSettings):
    """Layer-wise adaptive moments (You et al., arXiv:1904.00962)."""

    type: Annotated[Literal["LAMB"], any_case("optimizer", ["LAMB"])]


class RMSprop(_FirstOrder):
    """RMSprop (Hinton's lecture 6e), centered on request (Graves, arXiv:1308.0850)."""

    type: Annotated[Literal["RMSprop"], any_case("optimizer", ["RMSprop"])]
    momentum: NonNegative = 0.0
    alpha: Fraction = 0.99
    eps: NonNegative = 1e-8
    centered: bool = False


class Hessian(TypedSection):
    """rmldnn's second-order optimizer. It documents no learning rate; a search gives one to every optimizer."""

    type: Annotated[Literal["Hessian"], any_case("optimizer", ["Hessian"])]
    learning_rate: Positive | None = None
    max_iterations: Count = 2000
    max_func_eval: Count = 4000
    absolute_tolerance: NonNegative = 1e-8
    relative_tolerance: NonNegative = 1e-8
    lr_scheduler: Scheduler | None = None


OPTIMIZERS: dict[str, type[TypedSection]] = {
    "SGD": SGD,
    "RMSprop": RMSprop,
    "Adagrad": Adagrad,
    "Adam": Adam,
    "AdamW": AdamW,
    "LARS": LARS,
    "LAMB": LAMB,
    "Hessian": Hessian,
}
Optimizer: TypeAlias = Annotated[
    Union[  # noqa: UP007
        Annotated[SGD, Tag("SGD")],
        Annotated[RMSprop, Tag("RMSprop")],
        Annotated[Adagrad, Tag("Adagrad")],
        Annotated[Adam, Tag("Adam")],
        Annotated[AdamW, Tag("AdamW")],
        Annotated[LARS, Tag("LARS")],
        Annotated[LAMB, Tag("LAMB")],
        Annotated[Hessian, Tag("Hessian")],
    ],
    by_type(OPTIMIZERS),
    has_known_type("optimizer", OPTIMIZERS),
]
