"""Layers that join several tensors into one."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from rmldnn_torch.layer_config import LayerConfig, Shape
from rmldnn_torch.layers.registry import KerasLayer, describe_shape, register


class Merge(KerasLayer):
    """The inputs folded by an element-wise operation; sizes of 1 are stretched."""

    def __init__(self, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, *inputs: Tensor) -> Tensor:
        return reduce(self.operation, inputs)

    def output_shape(self, *shapes: Shape) -> Shape:
        return _stretched(shapes)

    def extra_repr(self) -> str:
        return self.operation.__name__


class Average(KerasLayer):
    """The mean of the inputs."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return reduce(torch.add, inputs) / len(inputs)

    def output_shape(self, *shapes: Shape) -> Shape:
        return _stretched(shapes)


class Concatenate(KerasLayer):
    """The inputs one after the other along an axis."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.axis)

    def output_shape(self, *shapes: Shape) -> Shape:
        joined = self.axis - 1
        if len({shape[:joined] + shape[joined + 1 :] for shape in shapes}) > 1:
            raise ValueError(
                "they differ in more than the axis along which they are joined; a U-Net takes images whose sides are "
                "divisible by the factor by which it downsamples, often 8, 16 or 32"
            )
        return *shapes[0][:joined], sum(shape[joined] for shape in shapes), *shapes[0][joined + 1 :]

    def extra_repr(self) -> str:
        return f"axis={self.axis}"


@register("Add", merges=True)
def _add(config: LayerConfig) -> KerasLayer:
    _check_same_rank(config)
    return Merge(operator.add)


@register("Subtract", merges=True)
def _subtract(config: LayerConfig) -> KerasLayer:
    _check_same_rank(config)
    if len(config.shapes) != 2:
        raise config.error(f"takes two inputs, not {len(config.shapes)}")
    return Merge(operator.sub)


@register("Multiply", merges=True)
def _multiply(config: LayerConfig) -> KerasLayer:
    _check_same_rank(config)
    return Merge(operator.mul)


@register("Average", merges=True)
def _average(config: LayerConfig) -> KerasLayer:
    _check_same_rank(config)
    return Average()


@register("Concatenate", merges=True)
def _concatenate(config: LayerConfig) -> KerasLayer:
    _check_same_rank(config)
    return Concatenate(config.axis())


def _stretched(shapes: tuple[Shape, ...]) -> Shape:
    """The common shape of inputs that are equal but for sizes of 1."""
    sizes = [set(axis) - {1} for axis in zip(*shapes, strict=True)]
    if any(len(distinct) > 1 for distinct in sizes):
        raise ValueError("they differ in size")
    return tuple(distinct.pop() if distinct else 1 for distinct in sizes)


def _check_same_rank(config: LayerConfig) -> None:
    if len({len(shape) for shape in config.shapes}) > 1:
        raise config.error(f"its inputs differ in their axes: {', '.join(map(describe_shape, config.shapes))}")
