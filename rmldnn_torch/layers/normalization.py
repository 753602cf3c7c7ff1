"""Normalization layers: over the batch, over a sample's axes, over each channel of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmldnn_torch.initializers import Fans, read_initializer
from rmldnn_torch.keras_graph import shown
from rmldnn_torch.layer_config import LayerConfig, Shape, channels_first_axis
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


class LayerNormalization(KerasLayer):
    """Each sample less its mean, by its standard deviation, both over the axes ``axes``.

    ``axes`` are those of a channels-first tensor in Keras's order, the channels last. Gamma (``weight``) and beta
    (``bias``), either of which may be absent, have their axes in that order too. Ba et al. 2016, https://arxiv.org/abs/1607.06450.
    """

    keras_weights: ClassVar[tuple[KerasWeight, ...]] = (KerasWeight("gamma", "weight"), KerasWeight("beta", "bias"))

    def __init__(self, sizes: Sequence[int], *, axes: tuple[int, ...], epsilon: float) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.axes = axes
        self.epsilon = epsilon
        self.weight: nn.Parameter | None = nn.Parameter(torch.ones(self.sizes))
        self.bias: nn.Parameter | None = nn.Parameter(torch.zeros(self.sizes))

    def forward(self, inputs: Tensor) -> Tensor:
        last = tuple(range(inputs.ndim - len(self.axes), inputs.ndim))
        # One axis at the end of channels-last memory: the numbers stay where they are.
        outputs = functional.layer_norm(
            inputs.movedim(self.axes, last), self.sizes, self.weight, self.bias, self.epsilon
        )
        return outputs.movedim(last, self.axes)

    def output_shape(self, *shapes: Shape) -> Shape:
        if tuple(shapes[0][axis - 1] for axis in self.axes) != self.sizes:
            raise ValueError(f"it was made for {'x'.join(map(str, self.sizes))} values")
        return shapes[0]

    def extra_repr(self) -> str:
        return f"{self.sizes}, epsilon={self.epsilon:g}"


class InstanceNormalization(KerasLayer):
    """Each channel of each sample less its mean, by its standard deviation; gamma is ``weight``, beta is ``bias``.

    Two packages for Keras have it. tensorflow_addons adds ``epsilon`` to the variance, keras_contrib
    (``epsilon_on_deviation``) to the standard deviation, and with ``axis`` None it takes the whole sample together.
    Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022.
    """

    keras_weights: ClassVar[tuple[KerasWeight, ...]] = (KerasWeight("gamma", "weight"), KerasWeight("beta", "bias"))

    def __init__(self, size: int, *, axis: int | None, epsilon: float, epsilon_on_deviation: bool) -> None:
        super().__init__()
        self.size = size
        self.axis = axis
        self.epsilon = epsilon
        self.epsilon_on_deviation = epsilon_on_deviation
        self.weight: nn.Parameter | None = nn.Parameter(torch.ones(size))
        self.bias: nn.Parameter | None = nn.Parameter(torch.zeros(size))

    def forward(self, inputs: Tensor) -> Tensor:
        values = inputs.float()  # a mean over an image needs more digits than bf16 has
        axes = tuple(axis for axis in range(1, inputs.ndim) if axis != self.axis)
        variance, mean = torch.var_mean(values, axes, correction=0, keepdim=True)
        outputs = (values - mean) / self._divisor(variance)
        along_axis = [-1 if axis == self.axis else 1 for axis in range(inputs.ndim)]
        if self.weight is not None:
            outputs = outputs * self.weight.view(along_axis)
        if self.bias is not None:
            outputs = outputs + self.bias.view(along_axis)
        return outputs.to(inputs.dtype)

    def output_shape(self, *shapes: Shape) -> Shape:
        if self.axis is not None and shapes[0][self.axis - 1] != self.size:
            raise ValueError(f"it was made for {self.size} channels")
        return shapes[0]

    def extra_repr(self) -> str:
        return f"{self.size}, epsilon={self.epsilon:g}"

    def _divisor(self, variance: Tensor) -> Tensor:
        if self.epsilon_on_deviation:
            # The root has no finite slope at 0, where each constant channel lies.
            return variance.clamp(min=torch.finfo(torch.float32).tiny).sqrt() + self.epsilon
        return (variance + self.epsilon).sqrt()


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
    _initialize_affine(layer, config)
    with torch.no_grad():
        read_initializer(config, "moving_mean_initializer", "zeros")(layer.running_mean, Fans(size, size))
        read_initializer(config, "moving_variance_initializer", "ones")(layer.running_var, Fans(size, size))
    return layer


@register("LayerNormalization")
def _layer_normalization(config: LayerConfig) -> KerasLayer:
    axes = _axes(config)
    sizes = [config.shapes[0][axis - 1] for axis in axes]
    layer = LayerNormalization(sizes, axes=axes, epsilon=config.number("epsilon", 1e-3, 0.0))
    return _initialize_affine(layer, config)


@register("InstanceNormalization", "Addons>InstanceNormalization")
def _instance_normalization(config: LayerConfig) -> KerasLayer:
    # Only tensorflow_addons writes groups: one for each channel.
    of_addons = config.value("groups") is not None or config.class_name.startswith("Addons>")
    axis = None if config.value("axis", -1 if of_addons else None) is None else config.axis()
    size = 1 if axis is None else config.shapes[0][axis - 1]
    if axis is not None and config.rank == 0:
        raise config.error("has nothing to take a mean of: its input has no spatial axes")
    if config.value("groups") not in (None, -1, size):
        raise config.error(f"groups must be {size}, one for each channel, not {shown(config.value('groups'))}")
    layer = InstanceNormalization(
        size, axis=axis, epsilon=config.number("epsilon", 1e-3, 0.0), epsilon_on_deviation=not of_addons
    )
    return _initialize_affine(layer, config)


def _axes(config: LayerConfig) -> tuple[int, ...]:
    """The ``axis`` setting where it may name several, as axes of a channels-first tensor in Keras's order."""
    value, rank = config.value("axis", -1), config.rank + 2
    named = value if isinstance(value, list) else [value]
    axes = [axis % rank for axis in named if isinstance(axis, int) and -rank <= axis < rank]
    if not axes or len(axes) < len(named) or 0 in axes:
        raise config.error(f"axis {shown(value)} does not name axes of its input behind the batch")
    if axes != sorted(set(axes)):
        raise config.error(f"axis {shown(value)} must name its axes in ascending order, each once")
    return tuple(channels_first_axis(axis, rank) for axis in axes)


_Affine = TypeVar("_Affine", BatchNormalization, LayerNormalization, InstanceNormalization)


def _initialize_affine(layer: _Affine, config: LayerConfig) -> _Affine:
    """``layer`` with the initial gamma and beta that its settings name, without those that they switch off."""
    if not config.boolean("scale", True):
        layer.weight = None
    if not config.boolean("center", True):
        layer.bias = None
    initial_values = (("gamma_initializer", "ones", layer.weight), ("beta_initializer", "zeros", layer.bias))
    with torch.no_grad():
        for key, default, tensor in initial_values:
            initialize = read_initializer(config, key, default)
            if tensor is not None:
                initialize(tensor, Fans(tensor.numel(), tensor.numel()))
    return layer
