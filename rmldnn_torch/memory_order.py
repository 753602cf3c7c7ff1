"""Parameters as the optimizer sees them: as one line of memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class MemoryOrder:
    """Views of parameters whose axes come in the order in which they lie in memory.

    Kernels of images lie in torch's channels_last order, in which convolutions are faster. An optimizer treats all
    numbers alike and need not know, but torch's fused ones copy every such kernel and gradient into the plain order
    first, which takes longer than the step itself. Through these views they find the plain order everywhere.

    Attributes:
        views: one for each parameter, which shares its memory.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = tuple(parameters)
        self.views = tuple(
            nn.Parameter(_in_order(parameter.detach())) if _is_channels_last(parameter) else parameter
            for parameter in self._parameters
        )

    def clear_gradients(self) -> None:
        """Forgets the gradients of the parameters and of their views."""
        for parameter, view in zip(self._parameters, self.views, strict=True):
            parameter.grad = view.grad = None

    def show_gradients(self) -> None:
        """Gives the views the gradients of their parameters."""
        for parameter, view in zip(self._parameters, self.views, strict=True):
            if view is not parameter and parameter.grad is not None:
                # Autograd lays gradients as their parameters lie; another order would be read wrongly, so it is copied.
                view.grad = _in_order(parameter.grad).contiguous()


def _is_channels_last(parameter: Tensor) -> bool:
    return (
        parameter.ndim == 4
        and not parameter.is_contiguous()
        and parameter.is_contiguous(memory_format=torch.channels_last)
    )


def _in_order(kernel: Tensor) -> Tensor:
    return kernel.permute(0, 2, 3, 1)
