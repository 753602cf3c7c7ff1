"""Optimizers and learning rate schedulers of the document, from ``torch.optim`` and ``pytorch_optimizer``.

``fused`` updates all parameters in one pass over memory: three times as fast as the plain form on a CPU, and the
same formulas, equal within rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import singledispatch

from torch import Tensor, nn, optim
from torch.optim.lr_scheduler import ExponentialLR, LinearLR, LRScheduler, MultiStepLR, StepLR

from rmldnn_contract import optimizer as documents
from rmldnn_contract.exit_status import HyperparameterError
from rmldnn_torch.memory_order import MemoryOrder


@dataclass(frozen=True)
class Optimization:
    """An optimizer with the scheduler of its learning rate, which steps at the end of every epoch.

    Attributes:
        verbose: asks for a line whenever the learning rate has changed.
        memory: the parameters as the optimizer sees them.
    """

    optimizer: optim.Optimizer
    memory: MemoryOrder
    scheduler: LRScheduler | None = None
    verbose: bool = False

    @property
    def searches(self) -> bool:
        """Whether the optimizer looks at the loss of a batch at several places before it settles on one."""
        return isinstance(self.optimizer, LBFGSOfEachBatch)

    def clear_gradients(self) -> None:
        """Forgets the gradients of the last batch."""
        self.memory.clear_gradients()

    def step(self, objective: Callable[[], float] | None = None) -> None:
        """Changes the weights once.

        Args:
            objective: for an optimizer that searches, a function that computes loss and gradients anew.
        """
        if objective is None:
            self.memory.show_gradients()
            self.optimizer.step()
        else:
            self.optimizer.step(objective)


def build_optimization(document: documents.Optimizer, parameters: Iterable[nn.Parameter]) -> Optimization:
    """The optimizer of the document over those of the ``parameters`` that are trainable.

    Raises:
        HyperparameterError: the optimizer does not take these settings, or there is nothing to train.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if not trainable:
        raise HyperparameterError('the network has no trainable parameters: every layer has "trainable": false')
    if isinstance(document, documents.Hessian):
        for parameter in trainable:  # L-BFGS itself writes all gradients one after the other, in the plain order
            parameter.data = parameter.data.contiguous()
    memory = MemoryOrder(trainable)
    try:
        optimizer = _optimizer(document, list(memory.views))
    except ValueError as error:  # a range that is narrower than the document's
        raise HyperparameterError(f"the optimizer {type(document).__name__} does not take this: {error}") from error
    if document.lr_scheduler is None:
        return Optimization(optimizer, memory)
    return Optimization(optimizer, memory, _scheduler(document.lr_scheduler, optimizer), document.lr_scheduler.verbose)


@singledispatch
def _optimizer(document: object, _parameters: list[nn.Parameter]) -> optim.Optimizer:
    raise TypeError(f"{type(document).__name__} is no optimizer")


@_optimizer.register
def _(document: documents.SGD, parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.SGD(
        parameters,
        lr=document.learning_rate,
        momentum=document.momentum,
        dampening=document.dampening,
        weight_decay=document.weight_decay,
        nesterov=document.nesterov,
        fused=True,
    )


@_optimizer.register
def _(document: documents.RMSprop, parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.RMSprop(
        parameters,
        lr=document.learning_rate,
        alpha=document.alpha,
        eps=document.eps,
        weight_decay=document.weight_decay,
        momentum=document.momentum,
        centered=document.centered,
    )


@_optimizer.register
def _(document: documents.Adagrad, parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.Adagrad(
        parameters,
        lr=document.learning_rate,
        lr_decay=document.lr_decay,
        weight_decay=document.weight_decay,
        # For CUDA it is younger than torch 2.6. None lets torch choose its kernels of many parameters there.
        fused=True if all(parameter.device.type == "cpu" for parameter in parameters) else None,
    )


@_optimizer.register
def _(document: documents.Adam, parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.Adam(
        parameters,
        lr=document.learning_rate,
        betas=(document.beta1, document.beta2),
        eps=document.eps,
        weight_decay=document.weight_decay,
        amsgrad=document.amsgrad,
        fused=True,
    )


@_optimizer.register
def _(document: documents.AdamW, parameters: list[nn.Parameter]) -> optim.Optimizer:
    return optim.AdamW(
        parameters,
        lr=document.learning_rate,
        betas=(document.beta1, document.beta2),
        eps=document.eps,
        weight_decay=document.weight_decay,
        amsgrad=document.amsgrad,
        fused=True,
    )


@_optimizer.register
def _(document: documents.LARS, parameters: list[nn.Parameter]) -> optim.Optimizer:
    """Algorithm 1 of arXiv:1708.03888, where biases and normalizations take plain steps without weight decay."""
    from pytorch_optimizer.optimizer.lars import LARS  # its package takes a tenth of a second, and few ask for it

    return LARS(
        parameters,
        lr=document.learning_rate,
        momentum=document.momentum,
        dampening=document.dampening,
        weight_decay=document.weight_decay,
        nesterov=document.nesterov,
        trust_coefficient=document.eta,
    )


@_optimizer.register
def _(document: documents.LAMB, parameters: list[nn.Parameter]) -> optim.Optimizer:
    """Algorithm 2 of arXiv:1904.00962 with phi(x) = min(x, 10).

    The moments are not corrected for their start at zero: the correction scales a layer's whole step, and the norm
    that the step is divided by takes that out again (all of it without weight decay).
    """
    from pytorch_optimizer.optimizer.lamb import Lamb

    if document.amsgrad:
        raise HyperparameterError("the optimizer LAMB has no amsgrad in this engine: set it to false")
    return Lamb(
        parameters,
        lr=document.learning_rate,
        betas=(document.beta1, document.beta2),
        eps=document.eps,
        weight_decay=document.weight_decay,
        weight_decouple=False,  # the paper's decay is part of the step whose norm is taken
        adam_debias=True,  # else the library lengthens the first steps, after the norm: ten times with beta1 0.9
    )


class LBFGSOfEachBatch(optim.LBFGS):
    """L-BFGS that starts anew with each step.

    What it has learnt of the curvature belongs to the batch it was learnt on: the difference of two gradients
    of different batches is mostly noise.
    """

    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override] # as torch's own
        """Minimizes the loss that ``closure`` computes, gradients included, and gives the loss at the start."""
        self.state.clear()
        loss: Tensor = super().step(closure)  # type: ignore[no-untyped-call]
        return loss


@_optimizer.register
def _(document: documents.Hessian, parameters: list[nn.Parameter]) -> optim.Optimizer:
    """rmldnn documents the limits of its second-order optimizer, not its method: this is L-BFGS.

    Liu and Nocedal, Mathematical Programming 45 (1989), with a line search for the strong Wolfe conditions. Each batch
    is minimized by itself, with the gradient as first direction, until

    - the largest component of the gradient is at most ``absolute_tolerance``,
    - a step changes the loss, or every weight, by less than ``relative_tolerance`` (absolutely: torch knows no other),
    - or ``max_iterations`` or ``max_func_eval`` are reached (a line search that has begun goes on to its end).

    ``learning_rate``, 1 where the document has none, is the first length that a line search tries; of the first one in
    a batch, whose direction is the gradient itself, it is that times min(1, 1 / |g|_1).
    """
    return LBFGSOfEachBatch(
        parameters,
        lr=1.0 if document.learning_rate is None else document.learning_rate,
        max_iter=document.max_iterations,
        max_eval=document.max_func_eval,
        tolerance_grad=document.absolute_tolerance,
        tolerance_change=document.relative_tolerance,
        line_search_fn="strong_wolfe",
    )


@singledispatch
def _scheduler(document: object, _optimizer: optim.Optimizer) -> LRScheduler:
    raise TypeError(f"{type(document).__name__} is no learning rate scheduler")


@_scheduler.register
def _(document: documents.StepScheduler, optimizer: optim.Optimizer) -> LRScheduler:
    return StepLR(optimizer, step_size=document.step_size, gamma=document.gamma)


@_scheduler.register
def _(document: documents.MultiStepScheduler, optimizer: optim.Optimizer) -> LRScheduler:
    return MultiStepLR(optimizer, milestones=document.milestones, gamma=document.gamma)


@_scheduler.register
def _(document: documents.ExponentialScheduler, optimizer: optim.Optimizer) -> LRScheduler:
    return ExponentialLR(optimizer, gamma=document.gamma)


@_scheduler.register
def _(document: documents.WarmupScheduler, optimizer: optim.Optimizer) -> LRScheduler:
    return LinearLR(optimizer, start_factor=document.start_factor, total_iters=document.num_epochs)
