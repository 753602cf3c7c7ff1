"""Layers that move pixels about: padding, cropping, upsampling, reshaping; and dropout."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmldnn_torch.layer_config import LayerConfig, Shape
from rmldnn_torch.layers.registry import KerasLayer, register
from rmldnn_torch.padding import Margins, pad

_CHANNEL_DROPOUT = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}


class ZeroPadding(KerasLayer):
    """Zeros around the image."""

    def __init__(self, margins: Margins) -> None:
        super().__init__()
        self.margins = margins

    def forward(self, inputs: Tensor) -> Tensor:
        return pad(inputs, self.margins)

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, *spatial = shapes[0]
        return channels, *(size + sum(margin) for size, margin in zip(spatial, self.margins, strict=True))

    def extra_repr(self) -> str:
        return str(self.margins)


class Cropping(KerasLayer):
    """The image without its margins."""

    def __init__(self, margins: Margins) -> None:
        super().__init__()
        self.margins = margins

    def forward(self, inputs: Tensor) -> Tensor:
        for axis, (before, after) in enumerate(self.margins, start=2):
            inputs = inputs.narrow(axis, before, inputs.shape[axis] - before - after)
        return inputs

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, *spatial = shapes[0]
        return channels, *(size - sum(margin) for size, margin in zip(spatial, self.margins, strict=True))


class _RepeatPixels(torch.autograd.Function):
    """Each pixel of (n, channels, height, width) repeated; the gradient is the sum over the pixels of its copies.

    That is what ``interpolate`` computes with ``nearest``, whose gradient takes five times as long on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, factors: tuple[int, int]) -> Tensor:
        ctx.factors = factors
        size = [length * factor for length, factor in zip(inputs.shape[2:], factors, strict=True)]
        return functional.interpolate(inputs, size, mode="nearest")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return functional.avg_pool2d(gradients[0], ctx.factors, divisor_override=1), None


class UpSampling(KerasLayer):
    """Pixels repeated, or interpolated bilinearly with their centres half a pixel from the edge."""

    def __init__(self, factors: tuple[int, ...], bilinear: bool) -> None:
        super().__init__()
        self.factors = factors
        self.bilinear = bilinear

    def forward(self, inputs: Tensor) -> Tensor:
        size = [length * factor for length, factor in zip(inputs.shape[2:], self.factors, strict=True)]
        if self.bilinear:
            return functional.interpolate(inputs, size, mode="bilinear", align_corners=False)
        if inputs.ndim == 4:
            repeated: Tensor = _RepeatPixels.apply(inputs, self.factors)  # type: ignore[no-untyped-call]
            return repeated
        return functional.interpolate(inputs, size, mode="nearest")

    def output_shape(self, *shapes: Shape) -> Shape:
        channels, *spatial = shapes[0]
        return channels, *(size * factor for size, factor in zip(spatial, self.factors, strict=True))

    def extra_repr(self) -> str:
        return f"{self.factors}, {'bilinear' if self.bilinear else 'nearest'}"


class Reshape(KerasLayer):
    """The sample in another shape, its numbers in the order in which Keras holds them: channels last."""

    def __init__(self, target_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.target_shape = target_shape

    def forward(self, inputs: Tensor) -> Tensor:
        channels_last = inputs.movedim(1, -1)
        return channels_last.reshape(inputs.shape[0], *self.target_shape).movedim(-1, 1)

    def output_shape(self, *shapes: Shape) -> Shape:
        given = math.prod(shapes[0])
        wanted = math.prod(size for size in self.target_shape if size != -1)
        if given % wanted or (given != wanted and -1 not in self.target_shape):
            raise ValueError(f"{given} values do not make the shape {list(self.target_shape)}")
        *spatial, channels = (given // wanted if size == -1 else size for size in self.target_shape)
        return channels, *spatial

    def extra_repr(self) -> str:
        return str(self.target_shape)


class Dropout(KerasLayer):
    """Values, or whole channels, set to zero while training."""

    def __init__(self, dropout: nn.Module) -> None:
        super().__init__()
        self.dropout = dropout

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.dropout(inputs)
        return outputs


@register("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def _zero_padding(config: LayerConfig) -> KerasLayer:
    return ZeroPadding(config.margins("padding"))


@register("Cropping1D", "Cropping2D", "Cropping3D")
def _cropping(config: LayerConfig) -> KerasLayer:
    return Cropping(config.margins("cropping"))


@register("UpSampling1D", "UpSampling2D", "UpSampling3D")
def _up_sampling(config: LayerConfig) -> KerasLayer:
    modes = ("nearest", "bilinear") if config.rank == 2 else ("nearest",)
    mode = config.choice("interpolation", modes, "nearest")
    return UpSampling(config.sizes("size", default=2), bilinear=mode == "bilinear")


@register("Flatten")
def _flatten(_: LayerConfig) -> KerasLayer:
    return Reshape((-1,))


@register("Reshape")
def _reshape(config: LayerConfig) -> KerasLayer:
    return Reshape(config.shape("target_shape"))


@register("Dropout")
def _dropout(config: LayerConfig) -> KerasLayer:
    return Dropout(nn.Dropout(config.number("rate", 0.5, 0.0, 1.0)))


@register("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
def _spatial_dropout(config: LayerConfig) -> KerasLayer:
    return Dropout(_CHANNEL_DROPOUT[config.rank](config.number("rate", 0.5, 0.0, 1.0)))
