"""Keras network files: JSON to a frozen graph of layer specifications.

Reads what ``model.to_json()`` of Keras 2.1 to 2.9 writes (``Functional``, ``Model``, ``Sequential``, also the
old ``Sequential`` whose configuration is a bare list), and a bare list of layers as rmldnn takes it inline.
Models inside models are dissolved into their layers (``keras_inlining``). Only the structure is read here: which
layers there are, what feeds them, what goes in and out. What a layer's settings mean is the business of
``layers``. Neither torch nor h5py is imported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.keras_document import INPUT_CLASS, read_model, shown, unusable
from rmldnn_torch.keras_inlining import LayerSpec, inline_models

__all__ = [
    "INPUT_CLASS",
    "LayerSpec",
    "NetworkGraph",
    "NetworkInput",
    "count_operations",
    "read_network",
    "shown",
]


@dataclass(frozen=True)
class NetworkInput:
    """An entry of the network: its layer, and its shape without the batch, channels last; None is any size."""

    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class NetworkGraph:
    """A network file: its layers in an order in which each comes after all that feed it.

    ``source`` is the file's name for messages, or "the layers" where they were given inline. A file
    without an ``InputLayer`` gets one here, named ``<first layer>_input`` as Keras names it. A layer that is called
    several times is there once for each call, ``layer_name`` telling whose weights the call uses.
    """

    name: str
    source: str
    layers: tuple[LayerSpec, ...]
    inputs: tuple[NetworkInput, ...]
    outputs: tuple[str, ...]


def read_network(source: Path | str | list[object] | dict[str, object]) -> NetworkGraph:
    """Read a network from a file (a path) or from the JSON value itself.

    Raises ``NetworkError`` for anything that is no network: a missing file, no JSON, layers that lack a name
    or share one, that name an unknown layer as their input, that form a cycle or lead to no output.
    """
    if isinstance(source, str | Path):
        return _build_graph(str(source), _read_json(Path(source)))
    return _build_graph("the layers", source)


def count_operations(graph: NetworkGraph) -> int:
    """The "Num of operations" that rmldnn prints for a network.

    The rule that reproduces its published figures: the layers, one more where the file has no ``InputLayer``
    (the reader has added it), one more for each inline activation that is not linear. Of models inside models, and
    of layers that are called several times, no figure is published: each call counts, the models do not.
    """
    return len(graph.layers) + sum(spec.inline_activation is not None for spec in graph.layers)


def _read_json(path: Path) -> object:
    try:
        text = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise NetworkError(f"Cannot read the network file {str(path)!r}: {reason}") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NetworkError(
            f"The network file {str(path)!r} is not JSON ({error}); write it with Keras's model.to_json()"
        ) from error


def _build_graph(source: str, document: object) -> NetworkGraph:
    model = read_model(source, document)
    specs, outputs = inline_models(source, model)
    ordered = _in_topological_order(source, specs)
    # Where the file names no outputs, they are the layers that feed no other.
    fed = {name for spec in ordered for name in spec.inputs}
    outputs = outputs or tuple(spec.name for spec in ordered if spec.name not in fed)
    _check_all_used(source, ordered, outputs)
    inputs = tuple(
        NetworkInput(spec.name, _input_shape(source, spec)) for spec in ordered if spec.class_name == INPUT_CLASS
    )
    return NetworkGraph(model.name, source, tuple(ordered), inputs, outputs)


def _in_topological_order(source: str, specs: Sequence[LayerSpec]) -> list[LayerSpec]:
    """Kahn's algorithm; layers that wait for nothing keep the order of the file."""
    waiting = {spec.name: set(spec.inputs) for spec in specs}
    by_name = {spec.name: spec for spec in specs}
    consumers: dict[str, list[str]] = {spec.name: [] for spec in specs}
    for spec in specs:
        for name in set(spec.inputs):
            consumers[name].append(spec.name)
    position = {spec.name: index for index, spec in enumerate(specs)}
    ready = [spec.name for spec in specs if not spec.inputs]
    ordered: list[LayerSpec] = []
    while ready:
        name = ready.pop(min(range(len(ready)), key=lambda index: position[ready[index]]))
        ordered.append(by_name[name])
        for consumer in consumers[name]:
            waiting[consumer].discard(name)
            if not waiting[consumer]:
                ready.append(consumer)
    if len(ordered) < len(specs):
        done = {spec.name for spec in ordered}
        stuck = next(spec.name for spec in specs if spec.name not in done)
        raise unusable(source, f"layer {stuck!r} takes its input, over other layers, from itself")
    return ordered


def _check_all_used(source: str, specs: Sequence[LayerSpec], outputs: Sequence[str]) -> None:
    used = set(outputs)
    for spec in reversed(specs):
        if spec.name not in used:
            raise unusable(source, f"layer {spec.name!r} leads to no output")
        used.update(spec.inputs)


def _input_shape(source: str, spec: LayerSpec) -> tuple[int | None, ...]:
    if "batch_input_shape" not in spec.config:
        raise unusable(source, f"its first layer {spec.name.removesuffix('_input')!r} has no batch_input_shape")
    shape = spec.config["batch_input_shape"]
    if not isinstance(shape, list) or not 2 <= len(shape) <= 5:
        raise unusable(source, f"layer {spec.name!r}: batch_input_shape must have 2 to 5 sizes, not {shown(shape)}")
    for size in shape[1:]:
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 2**31):
            raise unusable(source, f"layer {spec.name!r}: {shown(size)} in batch_input_shape is no size")
    return tuple(shape[1:])
