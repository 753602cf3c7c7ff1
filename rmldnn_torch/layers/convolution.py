"""Convolutions and Dense: the layers with kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmldnn_torch.initializers import Fans, Initializer, read_initializer
from rmldnn_torch.layer_config import LayerConfig, Shape
from rmldnn_torch.layers.registry import KerasLayer, KerasWeight, register
from rmldnn_torch.padding import Window, pad, read_window, symmetric

_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def _swap_channels(kernel: Tensor) -> Tensor:
    """Keras's (window..., a, b) to torch's (b, a, window...)."""
    return kernel.permute(-1, -2, *range(kernel.ndim - 2)) if kernel.ndim >= 2 else kernel


def _depthwise(kernel: Tensor) -> Tensor:
    """Keras's (window..., channels, multiplier) to torch's (channels * multiplier, 1, window...)."""
    if kernel.ndim < 2:
        return kernel
    return kernel.permute(-2, -1, *range(kernel.ndim - 2)).flatten(0, 1).unsqueeze(1)


_BIAS = KerasWeight("bias", "bias")


class _Kernel(KerasLayer):
    """A layer with a kernel and perhaps a bias."""

    def __init__(self, shape: tuple[int, ...], bias_size: int | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = None if bias_size is None else nn.Parameter(torch.empty(bias_size))

    def initialize(self, kernel: Initializer, bias: Initializer, fans: Fans) -> None:
        """Draw the initial weights; ``fans`` are the kernel's as Keras counts them."""
        with torch.no_grad():
            kernel(self.weight, fans)
            if self.bias is not None:
                bias(self.bias, Fans(self.bias.numel(), self.bias.numel()))

    def check_channels(self, shape: Shape, expected: int) -> None:
        """Raise ``ValueError`` for another number of channels than the kernel was made for."""
        if shape[0] != expected:
            raise ValueError(f"its kernel was made for {expected} channels")

    def extra_repr(self) -> str:
        return f"weight={tuple(self.weight.shape)}, bias={self.bias is not None}"


class Convolution(_Kernel):
    """Convolution in one, two or three dimensions, with groups; kernel (out, in / groups, window...)."""

    keras_weights: ClassVar[tuple[KerasWeight, ...]] = (KerasWeight("kernel", "weight", _swap_channels), _BIAS)

    def __init__(self, in_channels: int, filters: int, window: Window, groups: int, use_bias: bool) -> None:
        super().__init__((filters, in_channels // groups, *window.kernel), filters if use_bias else None)
        self.window = window
        self.groups = groups

    def forward(self, inputs: Tensor) -> Tensor:
        margins = self.window.margins(inputs.shape[2:])
        padding = symmetric(margins)
        if padding is None:
            inputs, padding = pad(inputs, margins), (0,) * len(margins)
        convolve = _CONVOLUTIONS[len(margins)]
        window = self.window
        return convolve(inputs, self.weight, self.bias, window.strides, padding, window.dilation, self.groups)

    def output_shape(self, *shapes: Shape) -> Shape:
        _, *spatial = shapes[0]
        self.check_channels(shapes[0], self.weight.shape[1] * self.groups)
        return self.weight.shape[0], *self.window.output_shape(spatial)


class DepthwiseConvolution(Convolution):
    """A convolution of each channel by itself, ``multiplier`` outputs for each."""

    keras_weights: ClassVar[tuple[KerasWeight, ...]] = (KerasWeight("depthwise_kernel", "weight", _depthwise), _BIAS)

    def __init__(self, channels: int, multiplier: int, window: Window, use_bias: bool) -> None:
        super().__init__(channels, channels * multiplier, window, channels, use_bias)


class SeparableConvolution(KerasLayer):
    """A depthwise convolution without bias, then a 1x1 convolution over the channels."""

    keras_weights: ClassVar[tuple[KerasWeight, ...]] = (
        KerasWeight("depthwise_kernel", "depthwise.weight", _depthwise),
        KerasWeight("pointwise_kernel", "pointwise.weight", _swap_channels),
        KerasWeight("bias", "pointwise.bias"),
    )

    def __init__(self, depthwise: DepthwiseConvolution, pointwise: Convolution) -> None:
        super().__init__()
        self.depthwise = depthwise
        self.pointwise = pointwise

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.pointwise(self.depthwise(inputs))
        return outputs

    def output_shape(self, *shapes: Shape) -> Shape:
        return self.pointwise.output_shape(self.depthwise.output_shape(*shapes))


class TransposedConvolution(_Kernel):
    """Keras's ConvTranspose, the gradient of a convolution; kernel (in, out, window...)."""

    keras_weights: ClassVar[tuple[KerasWeight, ...]] = (KerasWeight("kernel", "weight", _swap_channels), _BIAS)

    def __init__(
        self, in_channels: int, filters: int, window: Window, output_padding: tuple[int, ...] | None, use_bias: bool
    ) -> None:
        super().__init__((in_channels, filters, *window.kernel), filters if use_bias else None)
        self.window = window
        self.output_padding = output_padding

    def forward(self, inputs: Tensor) -> Tensor:
        sizes = self._output_sizes(inputs.shape[2:])
        axes = zip(inputs.shape[2:], self.window.extents, self.window.strides, sizes, strict=True)
        # What the whole transposed convolution has too much of (to be cut) or too little (to be added behind).
        surplus = [(steps - 1) * stride + extent - size for steps, extent, stride, size in axes]
        padding = [max(total, 0) // 2 for total in surplus]
        missing = [max(-total, 0) for total in surplus]
        window = self.window
        transpose = _TRANSPOSED[len(sizes)]
        outputs = transpose(inputs, self.weight, self.bias, window.strides, padding, missing, 1, window.dilation)
        # torch cuts the same at both ends; where the surplus is odd one is left at the far end.
        for axis, size in enumerate(sizes, start=2):
            outputs = outputs.narrow(axis, 0, size)
        return outputs

    def output_shape(self, *shapes: Shape) -> Shape:
        _, *spatial = shapes[0]
        self.check_channels(shapes[0], self.weight.shape[0])
        return self.weight.shape[1], *self._output_sizes(spatial)

    def _output_sizes(self, spatial_shape: Sequence[int]) -> tuple[int, ...]:
        """Keras's output size for each spatial axis, with and without ``output_padding``."""
        window = self.window
        added = self.output_padding or (None,) * len(spatial_shape)
        axes = zip(spatial_shape, window.extents, window.strides, added, strict=True)
        return tuple(self._output_size(*axis) for axis in axes)

    def _output_size(self, size: int, extent: int, stride: int, added: int | None) -> int:
        if added is not None:
            cut = 2 * (extent // 2) if self.window.same else 0
            return (size - 1) * stride + extent - cut + added
        return size * stride + (0 if self.window.same else max(extent - stride, 0))


class Dense(_Kernel):
    """A linear map of the channels, at each pixel where there are spatial axes; kernel (units, channels)."""

    keras_weights: ClassVar[tuple[KerasWeight, ...]] = (KerasWeight("kernel", "weight", _swap_channels), _BIAS)

    def __init__(self, channels: int, units: int, use_bias: bool) -> None:
        super().__init__((units, channels), units if use_bias else None)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = functional.linear(inputs.movedim(1, -1), self.weight, self.bias)
        return outputs.movedim(-1, 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        self.check_channels(shapes[0], self.weight.shape[1])
        return self.weight.shape[0], *shapes[0][1:]


@register("Conv1D", "Conv2D", "Conv3D")
def _convolution(config: LayerConfig) -> KerasLayer:
    channels = config.channels
    filters = config.integer("filters")
    groups = config.integer("groups", 1)
    if channels % groups or filters % groups:
        raise config.error(f"{groups} groups do not divide both {channels} input channels and {filters} filters")
    window = _checked_window(config)
    layer = Convolution(channels, filters, window, groups, _use_bias(config))
    return _initialized(layer, config, "kernel_initializer", _fans(channels // groups, filters, window))


@register("DepthwiseConv1D", "DepthwiseConv2D", "DepthwiseConv3D")
def _depthwise_convolution(config: LayerConfig) -> KerasLayer:
    channels = config.channels
    multiplier = config.integer("depth_multiplier", 1)
    config.ignore("groups", "kernel_initializer")
    window = _checked_window(config)
    layer = DepthwiseConvolution(channels, multiplier, window, _use_bias(config))
    return _initialized(layer, config, "depthwise_initializer", _fans(channels, multiplier, window))


@register("SeparableConv1D", "SeparableConv2D")
def _separable_convolution(config: LayerConfig) -> KerasLayer:
    channels = config.channels
    multiplier = config.integer("depth_multiplier", 1)
    filters = config.integer("filters")
    window = _checked_window(config)
    pixel = (1,) * config.rank
    config.ignore("groups", "kernel_initializer")
    depthwise = DepthwiseConvolution(channels, multiplier, window, use_bias=False)
    point = Window(pixel, pixel, pixel, same=False)
    pointwise = Convolution(channels * multiplier, filters, point, 1, _use_bias(config))
    _initialized(depthwise, config, "depthwise_initializer", _fans(channels, multiplier, window))
    _initialized(pointwise, config, "pointwise_initializer", _fans(channels * multiplier, filters, point))
    return SeparableConvolution(depthwise, pointwise)


@register("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def _transposed_convolution(config: LayerConfig) -> KerasLayer:
    channels = config.channels
    filters = config.integer("filters")
    config.require("groups", 1)
    window = _checked_window(config)
    output_padding = None
    if config.value("output_padding") is not None:
        output_padding = config.sizes("output_padding", minimum=0)
        if any(added >= stride for added, stride in zip(output_padding, window.strides, strict=True)):
            raise config.error("output_padding must be below strides")
    layer = TransposedConvolution(channels, filters, window, output_padding, _use_bias(config))
    # Keras takes the kernel's last axis but one, here the filters, for the inputs.
    return _initialized(layer, config, "kernel_initializer", _fans(filters, channels, window))


@register("Dense")
def _dense(config: LayerConfig) -> KerasLayer:
    channels = config.channels
    units = config.integer("units")
    layer = Dense(channels, units, _use_bias(config))
    return _initialized(layer, config, "kernel_initializer", _fans(channels, units, None))


def _use_bias(config: LayerConfig) -> bool:
    config.ignore("activation")  # the network makes a step of its own of it
    return config.boolean("use_bias", True)


def _checked_window(config: LayerConfig) -> Window:
    window = read_window(config)
    if max(window.strides) > 1 and max(window.dilation) > 1:
        raise config.error("strides and dilation_rate cannot both be above 1")
    return window


def _fans(inputs: int, outputs: int, window: Window | None) -> Fans:
    """Keras's fans: the kernel's last two axes, each times the window's size."""
    receptive_field = math.prod(window.kernel) if window else 1
    return Fans(inputs * receptive_field, outputs * receptive_field)


def _initialized(layer: _Kernel, config: LayerConfig, key: str, fans: Fans) -> _Kernel:
    """``layer`` with the initial weights that the setting ``key`` and ``bias_initializer`` name."""
    kernel = read_initializer(config, key, "glorot_uniform")
    bias = read_initializer(config, "bias_initializer", "zeros")
    layer.initialize(kernel, bias, fans)
    return layer
