"""Keras's ``same`` padding, which depends on the input's size and is asymmetric where the total is odd.

TensorFlow's rule, https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from rmldnn_torch.layer_config import LayerConfig

Margins = tuple[tuple[int, int], ...]  #: (before, after) for each spatial axis


@dataclass(frozen=True)
class Window:
    """The sliding window of a convolution or pooling; one entry for each spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    same: bool

    @property
    def extents(self) -> tuple[int, ...]:
        """How many input pixels the window spans, dilation counted."""
        return tuple((size - 1) * step + 1 for size, step in zip(self.kernel, self.dilation, strict=True))

    def margins(self, spatial_shape: Sequence[int]) -> Margins:
        """What this window adds around an input of that spatial shape."""
        if not self.same:
            return ((0, 0),) * len(self.kernel)
        axes = zip(spatial_shape, self.extents, self.strides, strict=True)
        return tuple(_same_margin(size, extent, stride) for size, extent, stride in axes)

    def output_shape(self, spatial_shape: Sequence[int]) -> tuple[int, ...]:
        """How many places the window takes on an input of that spatial shape, along each axis.

        Raises ``ValueError`` where it finds none.
        """
        axes = zip(spatial_shape, self.extents, self.strides, strict=True)
        if self.same:
            return tuple(-(-size // stride) for size, _, stride in axes)
        sizes = tuple((size - extent) // stride + 1 for size, extent, stride in axes)
        if min(sizes) < 1:
            raise ValueError(f"its window spans {'x'.join(map(str, self.extents))}")
        return sizes


def read_window(config: LayerConfig) -> Window:
    """The window of a convolution layer from its Keras settings."""
    return Window(
        kernel=config.sizes("kernel_size"),
        strides=config.sizes("strides", default=1),
        dilation=config.sizes("dilation_rate", default=1),
        same=config.choice("padding", ("valid", "same"), "valid") == "same",
    )


def pad(inputs: Tensor, margins: Margins, value: float = 0.0) -> Tensor:
    """``inputs`` (N, C, spatial...) with ``value`` around it."""
    # torch counts the axes from the last one.
    flat = [size for margin in reversed(margins) for size in margin]
    return functional.pad(inputs, flat, value=value)


def symmetric(margins: Margins) -> tuple[int, ...] | None:
    """The margins as torch's own padding argument takes them, None where before and after differ."""
    if any(before != after for before, after in margins):
        return None
    return tuple(before for before, _ in margins)


def _same_margin(size: int, extent: int, stride: int) -> tuple[int, int]:
    steps = -(-size // stride)
    total = max((steps - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2
