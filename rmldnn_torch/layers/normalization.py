"""Normalization layers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmldnn_torch.initializers import Fans, read_initializer
from rmldnn_torch.layer_config import LayerConfig, Shape
from rmldnn_torch.layers.registry import KerasLayer, KerasWeight, register


class BatchNormalization(KerasLayer):
    """Keras's BatchNormalization along one axis; gamma is ``weight``, beta is ``bias``, either may be absent.

    ``momentum`` is torch's, the share of the new batch (Keras's is the share that stays). The moving variance
    takes up the unbiased variance of the batch, as Keras's fused kernel for images does.
    """

    keras_weights: ClassVar[tuple[KerasWeight, ...]] = (
        KerasWeight("gamma", "weight"),
        KerasWeight("beta", "bias"),
        KerasWeight("moving_mean", "running_mean"),
        KerasWeight("moving_variance", "running_var"),
    )
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, size: int, *, axis: int, momentum: float, epsilon: float) -> None:
        super().__init__()
        self.axis = axis
        self.momentum = momentum
        self.epsilon = epsilon
        self.weight: nn.Parameter | None = nn.Parameter(torch.ones(size))
        self.bias: nn.Parameter | None = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))

    def count_weights(self) -> int:
        # rmldnn counts gamma and beta even where the file switches them off.
        return 2 * self.running_mean.numel()

    def expected_weights(self) -> tuple[KerasWeight, ...]:
        # Likewise it looks for both, and prints a line for the one that the file has not.
        return self.keras_weights

    def forward(self, inputs: Tensor) -> Tensor:
        channels_first = inputs if self.axis == 1 else inputs.movedim(self.axis, 1)
        outputs = functional.batch_norm(
            channels_first,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.epsilon,
        )
        return outputs if self.axis == 1 else outputs.movedim(1, self.axis)

    def output_shape(self, *shapes: Shape) -> Shape:
        if shapes[0][self.axis - 1] != self.running_mean.numel():
            raise ValueError(f"it was made for {self.running_mean.numel()} channels")
        return shapes[0]

    def extra_repr(self) -> str:
        return f"{self.running_mean.numel()}, epsilon={self.epsilon:g}, momentum={self.momentum:g}"


@register("BatchNormalization")
def _batch_normalization(config: LayerConfig) -> KerasLayer:
    axis = config.axis()
    size = config.shapes[0][axis - 1]
    layer = BatchNormalization(
        size,
        axis=axis,
        momentum=1.0 - config.number("momentum", 0.99, 0.0, 1.0),
        epsilon=config.number("epsilon", 1e-3, 0.0),
    )
    if not config.boolean("scale", True):
        layer.weight = None
    if not config.boolean("center", True):
        layer.bias = None
    initial_values = (
        ("gamma_initializer", "ones", layer.weight),
        ("beta_initializer", "zeros", layer.bias),
        ("moving_mean_initializer", "zeros", layer.running_mean),
        ("moving_variance_initializer", "ones", layer.running_var),
    )
    with torch.no_grad():
        for key, default, tensor in initial_values:
            initialize = read_initializer(config, key, default)
            if tensor is not None:
                initialize(tensor, Fans(size, size))
    return layer
