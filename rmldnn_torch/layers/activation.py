"""Activations, as layers of their own and inside other layers."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from rmldnn_torch.keras_graph import LayerSpec, shown
from rmldnn_torch.layer_config import LayerConfig
from rmldnn_torch.layers.registry import KerasLayer, register

_POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda inputs: inputs,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "elu": functional.elu,
    "selu": functional.selu,
    "gelu": functional.gelu,
    "exponential": torch.exp,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "swish": functional.silu,
    "tanh": torch.tanh,
}
_ALONG_AXIS: dict[str, Callable[[Tensor, int], Tensor]] = {"softmax": torch.softmax, "log_softmax": torch.log_softmax}
_ALIASES = {"log_softmax_v2": "log_softmax", "silu": "swish"}
_CHANNELS = 1


class Activation(KerasLayer):
    """A named activation; ``axis`` (of a channels-first tensor) matters to softmax and log_softmax alone."""

    def __init__(self, function: str, axis: int = _CHANNELS) -> None:
        super().__init__()
        self.function = function
        self.axis = axis

    @property
    def over_channels(self) -> bool:
        """Whether each pixel is activated by itself: pointwise, or over its channels."""
        return self.function in _POINTWISE or self.axis == _CHANNELS

    def forward(self, inputs: Tensor) -> Tensor:
        if self.function in _ALONG_AXIS:
            return _ALONG_AXIS[self.function](inputs, self.axis)
        return _POINTWISE[self.function](inputs)

    def extra_repr(self) -> str:
        return self.function


class ThresholdedReLU(KerasLayer):
    """Keras's ReLU: ``x`` above ``threshold`` but at most ``max_value``, ``slope * (x - threshold)`` below."""

    def __init__(self, max_value: float | None, slope: float, threshold: float) -> None:
        super().__init__()
        self.max_value = max_value
        self.slope = slope
        self.threshold = threshold

    def forward(self, inputs: Tensor) -> Tensor:
        if self.threshold == 0:
            outputs = functional.leaky_relu(inputs, self.slope)
        else:
            outputs = torch.where(inputs > self.threshold, inputs, self.slope * (inputs - self.threshold))
        return outputs if self.max_value is None else outputs.clamp(max=self.max_value)

    def extra_repr(self) -> str:
        return f"max_value={self.max_value}, slope={self.slope:g}, threshold={self.threshold:g}"


def inline_activation(spec: LayerSpec) -> Activation | None:
    """The activation that a layer such as Conv2D carries in its own settings, None where that is linear."""
    if spec.inline_activation is None:
        return None
    return _named(LayerConfig(spec, ()), spec.inline_activation, _CHANNELS)


@register("Activation")
def _activation(config: LayerConfig) -> KerasLayer:
    return _named(config, config.value("activation"), config.axis())


@register("Softmax", "Log_Softmax")
def _softmax(config: LayerConfig) -> KerasLayer:
    return Activation(config.class_name.lower(), config.axis())


@register("Sigmoid", "Tanh", "Swish")
def _pointwise(config: LayerConfig) -> KerasLayer:
    return Activation(config.class_name.lower())


@register("ReLU")
def _relu(config: LayerConfig) -> KerasLayer:
    max_value = None if config.value("max_value") is None else config.number("max_value", 0.0, minimum=0.0)
    slope = _number_or_null(config, "negative_slope")
    threshold = _number_or_null(config, "threshold")
    if max_value is None and slope == threshold == 0:
        return Activation("relu")
    return ThresholdedReLU(max_value, slope, threshold)


@register("LeakyReLU")
def _leaky_relu(config: LayerConfig) -> KerasLayer:
    return ThresholdedReLU(None, config.number("alpha", 0.3, minimum=0.0), 0.0)


def _number_or_null(config: LayerConfig, key: str) -> float:
    """A number of at least 0 that some versions of Keras write as null for 0."""
    return 0.0 if config.value(key) is None else config.number(key, 0.0, minimum=0.0)


def _named(config: LayerConfig, name: object, axis: int) -> Activation:
    known = (*_POINTWISE, *_ALONG_AXIS, *_ALIASES)
    if not isinstance(name, str):
        raise config.error(f"activation must be a name, not {shown(name)}")
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise config.error(f"the engine has no activation {name!r}{hint}")
    return Activation(_ALIASES.get(name, name), axis)
