"""What a layer is, and which builder makes which Keras class.

Inside the engine a tensor is (batch, channels, spatial...); Keras's last axis is always torch's axis 1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from torch import Tensor, nn

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.keras_graph import LayerSpec
from rmldnn_torch.layer_config import LayerConfig, Shape


@dataclass(frozen=True)
class KerasWeight:
    """Where a weight of a Keras layer goes: its name there, ours, and how its axes are turned.

    ``to_torch`` takes a tensor of any shape: a wrong one is found by its shape afterwards.
    """

    keras_name: str
    name: str
    to_torch: Callable[[Tensor], Tensor] = lambda tensor: tensor


class KerasLayer(nn.Module):
    """A layer of a Keras network: maps its input tensors to one output tensor."""

    #: All weights that the class can have; an instance may lack some (no bias, no scale).
    keras_weights: ClassVar[tuple[KerasWeight, ...]] = ()

    def output_shape(self, *shapes: Shape) -> Shape:
        """The shape that the layer makes of inputs of these shapes; by default that of its only input.

        Raises ``ValueError`` saying why where such inputs do not fit.
        """
        return shapes[0]

    def count_weights(self) -> int:
        """The weights as rmldnn counts them, moving statistics left out."""
        return sum(parameter.numel() for parameter in self.parameters())

    def expected_weights(self) -> tuple[KerasWeight, ...]:
        """The weights that rmldnn looks for in a Keras file: those that the layer has."""
        present = self.state_dict()
        return tuple(weight for weight in self.keras_weights if weight.name in present)


Builder: TypeAlias = Callable[[LayerConfig], KerasLayer]


@dataclass(frozen=True)
class _Entry:
    build: Builder
    merges: bool


_ENTRIES: dict[str, _Entry] = {}
_SPATIAL_AXES = re.compile(r"[123](?=D)")


def register(*class_names: str, merges: bool = False) -> Callable[[Builder], Builder]:
    """Make the decorated function the builder of these Keras classes.

    A builder takes the layer's settings with the shapes of its inputs: one, or with ``merges`` at least two, with
    as many spatial axes as the class's name says. It need not look for settings that it does not know.
    """

    def enter(build: Builder) -> Builder:
        for class_name in class_names:
            if class_name in _ENTRIES:
                raise ValueError(f"the layer class {class_name!r} has a builder already")
            _ENTRIES[class_name] = _Entry(build, merges)
        return build

    return enter


def known_classes() -> tuple[str, ...]:
    """The Keras classes that the engine can build."""
    return tuple(sorted(_ENTRIES))


def build_layer(spec: LayerSpec, shapes: Sequence[Shape]) -> KerasLayer:
    """The module of a layer whose inputs have these shapes, with its initial weights.

    Raises ``NetworkError`` for a class that the engine lacks (naming the nearest that it has) and for settings that
    are wrong, unknown, or do not fit the inputs.
    """
    config = LayerConfig(spec, shapes)
    entry = _ENTRIES.get(spec.class_name)
    if entry is None:
        nearest = difflib.get_close_matches(spec.class_name, _ENTRIES, n=1)
        hint = f"; the nearest that it has is {nearest[0]}" if nearest else ""
        raise NetworkError(f"layer {spec.name!r}: the engine has no layer class {spec.class_name!r}{hint}")
    _check_inputs(config, entry)
    layer = entry.build(config)
    config.refuse_unread()
    return layer


def describe_shape(shape: Sequence[int]) -> str:
    """A shape for a message, in the order of the file: channels last."""
    return "x".join(str(size) for size in (*shape[1:], shape[0]))


def _check_inputs(config: LayerConfig, entry: _Entry) -> None:
    if entry.merges and len(config.shapes) < 2:
        raise config.error("needs at least two inputs")
    if not entry.merges and len(config.shapes) != 1:
        raise config.error(f"takes one input, not {len(config.shapes)}")
    axes = _SPATIAL_AXES.search(config.class_name)
    if axes and config.rank != int(axes[0]):
        shape = describe_shape(config.shapes[0])
        raise config.error(f"takes inputs with {axes[0]} spatial axes and channels, its input is {shape}")
