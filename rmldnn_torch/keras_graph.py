"""Keras network files: JSON to a frozen graph of layer specifications.

Reads what ``model.to_json()`` of Keras 2.1 to 2.9 writes (``Functional``, ``Model``, ``Sequential``, also the
old ``Sequential`` whose configuration is a bare list), and a bare list of layers as rmldnn takes it inline.
Only the structure is read here: which layers there are, what feeds them, what goes in and out. What a layer's
settings mean is the business of ``layers``. Neither torch nor h5py is imported.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rmldnn_contract.exit_status import NetworkError

INPUT_CLASS = "InputLayer"
_MODEL_CLASSES = frozenset({"Functional", "Model", "Sequential"})


@dataclass(frozen=True)
class LayerSpec:
    """One layer of the file.

    ``config`` is the layer's settings as the file has them, ``inputs`` the names of the layers that feed it, in
    the order in which it takes them (empty for an ``InputLayer`` only), ``trainable`` false for a frozen layer.
    """

    name: str
    class_name: str
    config: Mapping[str, object]
    inputs: tuple[str, ...]
    trainable: bool = True

    @property
    def inline_activation(self) -> object:
        """The ``activation`` setting of a layer that computes something else too; None where there is none."""
        activation = None if self.class_name == "Activation" else self.config.get("activation")
        return None if activation == "linear" else activation


@dataclass(frozen=True)
class NetworkInput:
    """An entry of the network: its layer, and its shape without the batch, channels last; None is any size."""

    name: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class NetworkGraph:
    """A network file: its layers in an order in which each comes after all that feed it.

    ``source`` is the file's name for messages, or "the layers" where they were given inline. A file
    without an ``InputLayer`` gets one here, named ``<first layer>_input`` as Keras names it.
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
        return _Reader(str(source)).read(_read_json(Path(source)))
    return _Reader("the layers").read(source)


def count_operations(graph: NetworkGraph) -> int:
    """The "Num of operations" that rmldnn prints for a network.

    The rule that reproduces its published figures: the layers, one more where the file has no ``InputLayer``
    (the reader has added it), one more for each inline activation that is not linear.
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


class _Reader:
    """Reads one document; holds the name of its source for the messages."""

    def __init__(self, source: str) -> None:
        self.source = source

    def read(self, document: object) -> NetworkGraph:
        name, entries, model_config = self._unwrap(document)
        if not entries:
            raise self._error("there are no layers")
        specs: list[LayerSpec] = []
        for index, entry in enumerate(entries):
            spec = self._read_layer(entry, index, previous=specs[-1].name if specs else None)
            if not spec.inputs and spec.class_name != INPUT_CLASS:
                specs.append(self._implied_input(spec))
                spec = LayerSpec(spec.name, spec.class_name, spec.config, (specs[-1].name,), spec.trainable)
            specs.append(spec)
        self._check_references(specs)
        ordered = self._in_topological_order(specs)
        outputs = self._outputs(model_config, ordered)
        self._check_all_used(ordered, outputs)
        inputs = tuple(
            NetworkInput(spec.name, self._input_shape(spec)) for spec in ordered if spec.class_name == INPUT_CLASS
        )
        return NetworkGraph(name, self.source, tuple(ordered), inputs, outputs)

    def _error(self, text: str) -> NetworkError:
        return NetworkError(f"The network in {self.source!r} cannot be used: {text}")

    def _unwrap(self, document: object) -> tuple[str, list[object], dict[str, object]]:
        """The model's name, its layers, and the configuration that may name its outputs."""
        if isinstance(document, list):
            return "model", document, {}
        if not isinstance(document, dict):
            raise self._error(f"expected a Keras model or a list of layers, found {_kind(document)}")
        class_name = document.get("class_name")
        if not isinstance(class_name, str) or class_name not in _MODEL_CLASSES:
            raise self._error(f"expected class_name Functional, Model or Sequential, found {shown(class_name)}")
        config = document.get("config")
        if isinstance(config, list):
            return class_name.lower(), config, {}
        if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
            raise self._error("its config has no list 'layers'")
        name = config.get("name")
        return name if isinstance(name, str) else class_name.lower(), config["layers"], config

    def _read_layer(self, entry: object, index: int, previous: str | None) -> LayerSpec:
        if not isinstance(entry, dict):
            raise self._error(f"layer {index + 1} is {_kind(entry)}, not an object")
        class_name, config = entry.get("class_name"), entry.get("config")
        if not isinstance(class_name, str) or not isinstance(config, dict):
            raise self._error(f"layer {index + 1} lacks class_name or config")
        name = entry.get("name", config.get("name"))
        if not isinstance(name, str) or not name:
            raise self._error(f"layer {index + 1} ({class_name}) has no name")
        if class_name in _MODEL_CLASSES:
            raise self._error(f"layer {name!r} is a model inside the model; write its layers one by one")
        trainable = config.get("trainable", True)
        if not isinstance(trainable, bool):
            raise self._error(f"layer {name!r}: trainable must be true or false, not {shown(trainable)}")
        return LayerSpec(name, class_name, config, self._layer_inputs(entry, name, class_name, previous), trainable)

    def _layer_inputs(
        self, entry: dict[str, object], name: str, class_name: str, previous: str | None
    ) -> tuple[str, ...]:
        """The inputs that a layer names; without ``inbound_nodes`` the layer before it in the file."""
        nodes = entry.get("inbound_nodes")
        if class_name == INPUT_CLASS:
            if nodes:
                raise self._error(f"layer {name!r} is an InputLayer and has inputs of its own")
            return ()
        if nodes is None:
            return () if previous is None else (previous,)
        if not isinstance(nodes, list) or not nodes:
            raise self._error(f"layer {name!r} has no inputs in its inbound_nodes")
        if len(nodes) > 1:
            raise self._error(f"layer {name!r} is used {len(nodes)} times; the engine has no shared layers")
        node = nodes[0]
        if not isinstance(node, list) or not node:
            raise self._error(f"layer {name!r} has no inputs in its inbound_nodes")
        # Keras writes [["a", 0, 0, {}], ["b", 0, 0, {}]]; a single tensor may stand without its list.
        references = [node] if isinstance(node[0], str) else node
        return tuple(self._referenced_layer(reference, f"layer {name!r}") for reference in references)

    def _referenced_layer(self, reference: object, place: str) -> str:
        """The layer in Keras's ``[name, node index, tensor index, call arguments]`` (the last may lack)."""
        match reference:
            case [str(name)] | [str(name), 0, 0]:
                return name
            case [str(name), 0, 0, dict(arguments)]:
                set_arguments = [str(key) for key, value in arguments.items() if value is not None]
                if set_arguments:
                    raise self._error(f"{place} is called with {set_arguments}, which the engine does not know")
                return name
            case [str(name), int(), int(), *_]:
                raise self._error(f"{place} takes a second output of {name!r}; the engine has no shared layers")
        raise self._error(f"{place} names an input in a form other than [name, 0, 0, {{}}]")

    def _implied_input(self, first: LayerSpec) -> LayerSpec:
        if "batch_input_shape" not in first.config:
            raise self._error(f"its first layer {first.name!r} is no InputLayer and has no batch_input_shape")
        shape = {"batch_input_shape": first.config["batch_input_shape"]}
        return LayerSpec(f"{first.name}_input", INPUT_CLASS, shape, ())

    def _input_shape(self, spec: LayerSpec) -> tuple[int | None, ...]:
        shape = spec.config.get("batch_input_shape")
        if not isinstance(shape, list) or not 2 <= len(shape) <= 5:
            raise self._error(f"layer {spec.name!r}: batch_input_shape must have 2 to 5 sizes, not {shown(shape)}")
        return tuple(self._size(spec, size) for size in shape[1:])

    def _size(self, spec: LayerSpec, size: object) -> int | None:
        if size is None:
            return None
        if isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 2**31:
            raise self._error(f"layer {spec.name!r}: {shown(size)} in batch_input_shape is no size")
        return size

    def _check_references(self, specs: Sequence[LayerSpec]) -> None:
        seen: set[str] = set()
        for spec in specs:
            if spec.name in seen:
                raise self._error(f"two layers are named {spec.name!r}")
            seen.add(spec.name)
        for spec in specs:
            for name in spec.inputs:
                if name not in seen:
                    raise self._error(f"layer {spec.name!r} takes its input from {name!r}, which is not there")

    def _in_topological_order(self, specs: Sequence[LayerSpec]) -> list[LayerSpec]:
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
            raise self._error(f"layer {stuck!r} takes its input, over other layers, from itself")
        return ordered

    def _outputs(self, model_config: dict[str, object], specs: Sequence[LayerSpec]) -> tuple[str, ...]:
        """What the file names as outputs, or else the layers that feed no other."""
        named = model_config.get("output_layers")
        if named is None:
            fed = {name for spec in specs for name in spec.inputs}
            return tuple(spec.name for spec in specs if spec.name not in fed)
        if not isinstance(named, list) or not named:
            raise self._error("output_layers names no layer")
        references = [named] if isinstance(named[0], str) else named
        outputs = tuple(self._referenced_layer(reference, "output_layers") for reference in references)
        names = {spec.name for spec in specs}
        for output in outputs:
            if output not in names:
                raise self._error(f"output_layers names {output!r}, which is not there")
        return outputs

    def _check_all_used(self, specs: Sequence[LayerSpec], outputs: Sequence[str]) -> None:
        used = set(outputs)
        for spec in reversed(specs):
            if spec.name not in used:
                raise self._error(f"layer {spec.name!r} leads to no output")
            used.update(spec.inputs)


def shown(value: object) -> str:
    """A value from a file for a message: on one line, and cut where it is long."""
    return reprlib.repr(value)


def _kind(value: object) -> str:
    """What a JSON value is, in the words of JSON."""
    words = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list"}
    return words.get(type(value), "null" if value is None else "an object")
