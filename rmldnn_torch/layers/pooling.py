"""Pooling, over windows and over the whole image."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from rmldnn_torch.layer_config import LayerConfig, Shape
from rmldnn_torch.layers.registry import KerasLayer, register
from rmldnn_torch.padding import Margins, Window, pad, symmetric

_MAXIMUM = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}


class MaxPooling(KerasLayer):
    """The largest value of each window; padding never wins."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def forward(self, inputs: Tensor) -> Tensor:
        margins = self.window.margins(inputs.shape[2:])
        padding = symmetric(margins)
        if padding is None:
            inputs, padding = pad(inputs, margins, -math.inf), (0,) * len(margins)
        outputs: Tensor = _MAXIMUM[len(margins)](inputs, self.window.kernel, self.window.strides, padding)
        return outputs

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, *spatial = shapes[0]
        return channels, *self.window.output_shape(spatial)


class AveragePooling(KerasLayer):
    """The mean of each window over the pixels that the image has; padding is not counted."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self.window = window

    def forward(self, inputs: Tensor) -> Tensor:
        margins = self.window.margins(inputs.shape[2:])
        padding = symmetric(margins)
        if padding is None:
            return self._mean(pad(inputs, margins)) / self._share(inputs, margins)
        return self._mean(inputs, padding)

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, *spatial = shapes[0]
        return channels, *self.window.output_shape(spatial)

    def _mean(self, inputs: Tensor, padding: tuple[int, ...] | None = None) -> Tensor:
        kernel, strides = self.window.kernel, self.window.strides
        padding = padding or (0,) * len(kernel)
        match len(kernel):
            case 1:
                return functional.avg_pool1d(inputs, kernel, strides, padding, count_include_pad=False)
            case 2:
                return functional.avg_pool2d(inputs, kernel, strides, padding, count_include_pad=False)
            case _:
                return functional.avg_pool3d(inputs, kernel, strides, padding, count_include_pad=False)

    def _share(self, inputs: Tensor, margins: Margins) -> Tensor:
        """The share of each window that lies on the image."""
        return self._mean(pad(torch.ones_like(inputs[:1, :1]), margins))


class GlobalPooling(KerasLayer):
    """The mean or the largest value of each channel: (N, C), or (N, C, 1...) with ``keepdims``."""

    def __init__(self, average: bool, keepdims: bool) -> None:
        super().__init__()
        self.average = average
        self.keepdims = keepdims

    def forward(self, inputs: Tensor) -> Tensor:
        axes = tuple(range(2, inputs.ndim))
        if self.average:
            return inputs.mean(axes, keepdim=self.keepdims)
        return inputs.amax(axes, keepdim=self.keepdims)

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, *spatial = shapes[0]
        return (channels, *(1 for _ in spatial)) if self.keepdims else (channels,)


@register("MaxPooling1D", "MaxPooling2D", "MaxPooling3D")
def _max_pooling(config: LayerConfig) -> KerasLayer:
    return MaxPooling(_read_window(config))


@register("AveragePooling1D", "AveragePooling2D", "AveragePooling3D")
def _average_pooling(config: LayerConfig) -> KerasLayer:
    return AveragePooling(_read_window(config))


@register("GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D")
def _global_max_pooling(config: LayerConfig) -> KerasLayer:
    return GlobalPooling(average=False, keepdims=config.boolean("keepdims", False))


@register("GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D")
def _global_average_pooling(config: LayerConfig) -> KerasLayer:
    return GlobalPooling(average=True, keepdims=config.boolean("keepdims", False))


def _read_window(config: LayerConfig) -> Window:
    kernel = config.sizes("pool_size", default=2)
    strides = kernel if config.value("strides") is None else config.sizes("strides")
    same = config.choice("padding", ("valid", "same"), "valid") == "same"
    return Window(kernel, strides, (1,) * config.rank, same)
