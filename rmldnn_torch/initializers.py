"""Keras's initial values by the names that network files give them.

They draw from torch's default generator, so ``torch.manual_seed`` decides; the ``seed`` inside a file is not used.
Formulas: https://www.tensorflow.org/versions/r2.8/api_docs/python/tf/keras/initializers.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

from rmldnn_torch.keras_graph import shown
from rmldnn_torch.layer_config import LayerConfig

# Standard deviation of a standard normal cut at two standard deviations, by which Keras divides.
_TRUNCATED_STDDEV = 0.87962566103423978


@dataclass(frozen=True)
class Fans:
    """How many inputs reach an output (``fan_in``) and outputs an input (``fan_out``), as Keras counts them."""

    fan_in: float
    fan_out: float


Initializer: TypeAlias = Callable[[Tensor, Fans], None]  #: fills a tensor in place
_Settings: TypeAlias = Mapping[str, object]


def read_initializer(config: LayerConfig, key: str, default: str) -> Initializer:
    """The initializer that the setting ``key`` of a layer names, as a text or as class_name with config."""
    given = config.value(key, default)
    value, settings = (given.get("class_name"), given.get("config") or {}) if isinstance(given, dict) else (given, {})
    if not isinstance(value, str) or not isinstance(settings, dict):
        raise config.error(f"{key} must be the name of an initializer, not {shown(given)}")
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", value).lower()
    if name not in _INITIALIZERS:
        nearest = difflib.get_close_matches(name, _INITIALIZERS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise config.error(f"{key} {value!r} is not known{hint}")
    try:
        return _INITIALIZERS[name](settings)
    except ValueError as error:
        raise config.error(f"{key} {value!r}: {error}") from error


def _number(settings: _Settings, key: str, default: float) -> float:
    value = settings.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} must be a number, not {shown(value)}")
    return float(value)


def _stddev(settings: _Settings) -> float:
    value = _number(settings, "stddev", 0.05)
    if value < 0:
        raise ValueError(f"stddev must not be below 0, not {value:g}")
    return value


def _constant(settings: _Settings) -> Initializer:
    value = _number(settings, "value", 0.0)

    def fill(tensor: Tensor, _: Fans) -> None:
        nn.init.constant_(tensor, value)

    return fill


def _zeros(_: _Settings) -> Initializer:
    return _constant({"value": 0.0})


def _ones(_: _Settings) -> Initializer:
    return _constant({"value": 1.0})


def _random_normal(settings: _Settings) -> Initializer:
    mean, stddev = _number(settings, "mean", 0.0), _stddev(settings)

    def fill(tensor: Tensor, _: Fans) -> None:
        nn.init.normal_(tensor, mean, stddev)

    return fill


def _random_uniform(settings: _Settings) -> Initializer:
    low, high = _number(settings, "minval", -0.05), _number(settings, "maxval", 0.05)
    if low > high:
        raise ValueError(f"minval {low:g} lies above maxval {high:g}")

    def fill(tensor: Tensor, _: Fans) -> None:
        nn.init.uniform_(tensor, low, high)

    return fill


def _truncated_normal(settings: _Settings) -> Initializer:
    mean, stddev = _number(settings, "mean", 0.0), _stddev(settings)

    def fill(tensor: Tensor, _: Fans) -> None:
        _fill_truncated_normal(tensor, mean, stddev)

    return fill


def _orthogonal(settings: _Settings) -> Initializer:
    gain = _number(settings, "gain", 1.0)

    def fill(tensor: Tensor, _: Fans) -> None:
        nn.init.orthogonal_(tensor, gain)

    return fill


def _variance_scaling(settings: _Settings) -> Initializer:
    scale = _number(settings, "scale", 1.0)
    if scale <= 0:
        raise ValueError(f"scale must be above 0, not {scale:g}")
    mode = settings.get("mode", "fan_in")
    distribution = settings.get("distribution", "truncated_normal")
    denominators: dict[object, Callable[[Fans], float]] = {
        "fan_in": lambda fans: fans.fan_in,
        "fan_out": lambda fans: fans.fan_out,
        "fan_avg": lambda fans: (fans.fan_in + fans.fan_out) / 2,
    }
    draws: dict[object, Callable[[Tensor, float], object]] = {
        "uniform": lambda tensor, stddev: nn.init.uniform_(tensor, -math.sqrt(3) * stddev, math.sqrt(3) * stddev),
        "untruncated_normal": lambda tensor, stddev: nn.init.normal_(tensor, 0.0, stddev),
        "truncated_normal": lambda tensor, stddev: _fill_truncated_normal(tensor, 0.0, stddev / _TRUNCATED_STDDEV),
    }
    draws["normal"] = draws["truncated_normal"]  # its name up to Keras 2.2
    if not isinstance(mode, str) or mode not in denominators:
        raise ValueError(f"mode must be one of {', '.join(map(str, denominators))}, not {shown(mode)}")
    if not isinstance(distribution, str) or distribution not in draws:
        raise ValueError(f"distribution must be one of {', '.join(map(str, draws))}, not {shown(distribution)}")
    denominator, draw = denominators[mode], draws[distribution]

    def fill(tensor: Tensor, fans: Fans) -> None:
        draw(tensor, math.sqrt(scale / max(denominator(fans), 1.0)))

    return fill


def _scaled(scale: float, mode: str, distribution: str) -> Callable[[_Settings], Initializer]:
    return lambda _: _variance_scaling({"scale": scale, "mode": mode, "distribution": distribution})


def _fill_truncated_normal(tensor: Tensor, mean: float, stddev: float) -> None:
    if stddev == 0:
        nn.init.constant_(tensor, mean)
    else:
        nn.init.trunc_normal_(tensor, mean, stddev, mean - 2 * stddev, mean + 2 * stddev)


_INITIALIZERS: dict[str, Callable[[_Settings], Initializer]] = {
    "zeros": _zeros,
    "ones": _ones,
    "constant": _constant,
    "random_normal": _random_normal,
    "random_uniform": _random_uniform,
    "truncated_normal": _truncated_normal,
    "orthogonal": _orthogonal,
    "variance_scaling": _variance_scaling,
    "glorot_uniform": _scaled(1.0, "fan_avg", "uniform"),
    "glorot_normal": _scaled(1.0, "fan_avg", "truncated_normal"),
    "he_uniform": _scaled(2.0, "fan_in", "uniform"),
    "he_normal": _scaled(2.0, "fan_in", "truncated_normal"),
    "lecun_uniform": _scaled(1.0, "fan_in", "uniform"),
    "lecun_normal": _scaled(1.0, "fan_in", "truncated_normal"),
}
