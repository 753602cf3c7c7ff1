"""Typed access to the settings of one Keras layer, and the shapes that it meets.

Every getter checks what it reads and raises ``NetworkError`` naming the layer. What has been read is remembered, so
that ``refuse_unread`` finds a setting that says something and that nobody heard (a misspelt key, an option
that the engine lacks) instead of building another layer than the file describes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeVar

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.keras_graph import LayerSpec, shown

Shape: TypeAlias = tuple[int, ...]  #: (channels, spatial...) of one sample

_LARGEST_INTEGER = 2**31 - 1
_T = TypeVar("_T")

# Keys of every Keras layer that say nothing about what it computes here: the reader has used the first
# three, the engine computes in the precision of the run, and draws from one seeded generator.
_NOT_FOR_LAYERS = frozenset({"name", "trainable", "batch_input_shape", "dtype", "seed"})


class LayerConfig:
    """The settings of the layer ``spec``, each read by a getter of its type.

    Attributes:
        class_name: the layer's Keras class.
        shapes: the shapes of its inputs.
    """

    def __init__(self, spec: LayerSpec, shapes: Sequence[Shape]) -> None:
        self.shapes = tuple(shapes)
        self.class_name = spec.class_name
        self.layer = f"layer {spec.name!r} ({spec.class_name})"
        self._values: Mapping[str, object] = spec.config
        self._read: set[str] = set()

    @property
    def channels(self) -> int:
        """Channels of the (first) input."""
        return self.shapes[0][0]

    @property
    def rank(self) -> int:
        """Spatial axes of the (first) input."""
        return len(self.shapes[0]) - 1

    def error(self, text: str) -> NetworkError:
        """An error that names this layer."""
        return NetworkError(f"{self.layer}: {text}")

    def value(self, key: str, default: object = None) -> object:
        """The raw setting ``key``; the getters below are to be preferred."""
        self._read.add(key)
        return self._values.get(key, default)

    def integer(self, key: str, default: int | None = None, minimum: int = 1) -> int:
        """An integer of at least ``minimum``; required where ``default`` is None."""
        value = self.value(key, default)
        if value is None:
            raise self.error(f"lacks {key!r}")
        return self._as_integer(value, key, minimum)

    def number(self, key: str, default: float, minimum: float = -math.inf, maximum: float = math.inf) -> float:
        """A finite number between ``minimum`` and ``maximum``, both included."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.error(f"{key} must be a number, not {shown(value)}")
        if not minimum <= value <= maximum:
            raise self.error(f"{key} must lie between {minimum:g} and {maximum:g}, not {shown(value)}")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.value(key, default)
        if not isinstance(value, bool):
            raise self.error(f"{key} must be true or false, not {shown(value)}")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        """One of ``choices``."""
        value = self.value(key, default)
        if not isinstance(value, str) or value not in choices:
            raise self.error(f"{key} must be one of {', '.join(choices)}, not {shown(value)}")
        return value

    def sizes(self, key: str, default: int | None = None, minimum: int = 1) -> tuple[int, ...]:
        """One integer for each spatial axis; a single integer stands for all of them."""
        value = self.value(key, default)
        if value is None:
            raise self.error(f"lacks {key!r}")
        values = value if isinstance(value, list | tuple) else [value] * self.rank
        if len(values) != self.rank:
            raise self.error(f"{key} must have {self.rank} sizes, not {shown(value)}")
        return tuple(self._as_integer(size, key, minimum) for size in values)

    def margins(self, key: str) -> tuple[tuple[int, int], ...]:
        """(before, after) for each spatial axis, as ``ZeroPadding`` and ``Cropping`` have them, at least 0.

        Keras takes one integer for all sides, one for each axis, or a pair for each axis; in one dimension
        the pair itself. The default is 1, Keras's own.
        """
        value = self.value(key, 1)
        if self.rank == 1 and isinstance(value, list | tuple) and len(value) == 2:
            value = [value]
        values = value if isinstance(value, list | tuple) else [value] * self.rank
        if len(values) != self.rank:
            raise self.error(f"{key} must name {self.rank} axes, not {shown(value)}")
        return tuple(self._as_margin(margin, key) for margin in values)

    def shape(self, key: str) -> tuple[int, ...]:
        """A list of sizes of which one may be -1 ("what is left")."""
        value = self.value(key)
        if not isinstance(value, list) or not value:
            raise self.error(f"{key} must be a list of sizes, not {shown(value)}")
        sizes = tuple(self._as_integer(size, key, -1) for size in value)
        if sizes.count(-1) > 1 or 0 in sizes:
            raise self.error(f"{key} must have sizes above 0 and at most one -1, not {shown(value)}")
        return sizes

    def axis(self) -> int:
        """The ``axis`` setting as an axis of a channels-first tensor, the batch being axis 0.

        Keras counts channels last, negative axes from the end; some versions write ``[3]`` for ``3``.
        """
        rank = self.rank + 2
        value = self.value("axis", -1)
        if isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
        axis = self._as_integer(value, "axis", -rank)
        if axis >= rank or axis % rank == 0:
            raise self.error(f"axis {axis} is not one of the {rank - 1} axes of its input behind the batch")
        return channels_first_axis(axis, rank)

    def require(self, key: str, expected: _T) -> None:
        """Refuse any value of ``key`` but ``expected``: the engine does that and nothing else."""
        value = self.value(key, expected)
        if value != expected:
            raise self.error(f"{key} {shown(value)} is not supported, only {expected!r}")

    def ignore(self, *keys: str) -> None:
        """Settings that Keras writes for this class and does not use itself."""
        self._read.update(keys)

    def refuse_unread(self) -> None:
        """Raise for a setting that no getter has read, unless it is empty (null, false, or nothing in it)."""
        if self.value("data_format") is not None:
            self.require("data_format", "channels_last")
        for key, value in self._values.items():
            if key in self._read or key in _NOT_FOR_LAYERS or not value:
                continue
            if key.endswith(("_regularizer", "_constraint")):
                raise self.error(f"{key} is not supported; set it to null and use the optimizer's weight_decay")
            nearest = difflib.get_close_matches(key, self._read, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise self.error(f"the engine does not know its setting {key!r} = {shown(value)}{hint}")

    def _as_integer(self, value: object, key: str, minimum: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(f"{key} must be an integer, not {shown(value)}")
        if not minimum <= value <= _LARGEST_INTEGER:
            raise self.error(f"{key} must be at least {minimum}, not {shown(value)}")
        return value

    def _as_margin(self, value: object, key: str) -> tuple[int, int]:
        before, after = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
        return self._as_integer(before, key, 0), self._as_integer(after, key, 0)


def channels_first_axis(axis: int, rank: int) -> int:
    """Keras's axis (batch, spatial..., channels) as that of (batch, channels, spatial...)."""
    axis %= rank
    if axis == 0:
        return 0
    return 1 if axis == rank - 1 else axis + 1
