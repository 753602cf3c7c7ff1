"""Keras network files as they are written: JSON to models, their layers, and the calls of each layer.

A layer is called once as a rule; a shared one has several calls (Keras's inbound nodes). A model may stand in
the place of a layer. ``keras_graph`` makes one flat graph of all this.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rmldnn_contract.exit_status import NetworkError

INPUT_CLASS = "InputLayer"
_MODEL_CLASSES = frozenset({"Functional", "Model", "Sequential"})
_DEEPEST = 16  # models inside models


@dataclass(frozen=True)
class Reference:
    """An output of a call of a layer; ``node`` is Keras's number of the call (``Model.call_number``)."""

    layer: str
    node: int = 0
    output: int = 0


@dataclass(frozen=True)
class Call:
    """What one call of a layer takes; ``as_inference`` where it was called with ``training=False``."""

    inputs: tuple[Reference, ...]
    as_inference: bool = False


@dataclass(frozen=True)
class Layer:
    """A layer of the file, or a model in its place (``model``); ``config`` is as the file has it.

    An ``InputLayer`` has one call without inputs.
    """

    name: str
    class_name: str
    config: Mapping[str, object]
    calls: tuple[Call, ...]
    trainable: bool
    model: Model | None


@dataclass(frozen=True)
class Model:
    """A model of the file; ``inputs`` and ``outputs`` are None where it does not name them.

    A model whose first layer is no ``InputLayer`` got one, named ``<first layer>_input`` as Keras names it.
    """

    name: str
    layers: tuple[Layer, ...]
    trainable: bool
    inputs: tuple[Reference, ...] | None
    outputs: tuple[Reference, ...] | None

    def references(self) -> tuple[Reference, ...]:
        """All outputs of calls that are named anywhere in the model."""
        inputs = (reference for layer in self.layers for call in layer.calls for reference in call.inputs)
        return *inputs, *(self.outputs or ())

    def last_output(self) -> Reference:
        """The output of the last layer, which ends a ``Sequential``."""
        last = self.layers[-1].name
        return Reference(last, self.first_nodes()[last])

    def first_nodes(self) -> dict[str, int]:
        """Keras's number of each layer's first call.

        It is 0, but for a model in the place of a layer, whose node 0 is the building of the model itself. Files
        hold no call that nothing refers to, so the lowest number that occurs is that of the first.
        """
        models = {layer.name for layer in self.layers if layer.model is not None}
        nodes: dict[str, int] = {}
        for reference in self.references():
            nodes[reference.layer] = min(reference.node, nodes.get(reference.layer, reference.node))
        return {layer.name: nodes.get(layer.name, 0) if layer.name in models else 0 for layer in self.layers}


def read_model(source: str, document: object) -> Model:
    """The model in a JSON value: Keras's own form, or a list of layers.

    Raises ``NetworkError``, which names ``source``, for what is no network.
    """
    return _Reader(source).model(document, depth=0)


def unusable(source: str, text: str) -> NetworkError:
    """The error for a network in ``source`` that cannot be used, ``text`` saying why."""
    return NetworkError(f"The network in {source!r} cannot be used: {text}")


def shown(value: object) -> str:
    """A value from a file for a message: on one line, and cut where it is long."""
    return reprlib.repr(value)


class _Reader:
    """Reads one document; holds the name of its source for the messages."""

    def __init__(self, source: str) -> None:
        self.source = source

    def model(self, document: object, depth: int) -> Model:
        if depth > _DEEPEST:
            raise self._error(f"it has models inside models more than {_DEEPEST} deep")
        name, entries, config = self._unwrap(document)
        if not entries:
            raise self._error("there are no layers")
        layers: list[Layer] = []
        for index, entry in enumerate(entries):
            layer = self._layer(entry, index, previous=layers[-1].name if layers else None, depth=depth)
            if not layers and layer.class_name != INPUT_CLASS and not layer.calls[0].inputs:
                layers.append(_implied_input(layer))
                calls = (Call((Reference(layers[0].name),)),)
                layer = Layer(layer.name, layer.class_name, layer.config, calls, layer.trainable, layer.model)
            layers.append(layer)
        for layer_name, count in Counter(layer.name for layer in layers).items():
            if count > 1:
                raise self._error(f"two layers are named {layer_name!r}")
        trainable = self._trainable(config, f"model {name!r}")
        inputs, outputs = (self._ends(config, key) for key in ("input_layers", "output_layers"))
        return Model(name, tuple(layers), trainable, inputs, outputs)

    def _error(self, text: str) -> NetworkError:
        return unusable(self.source, text)

    def _unwrap(self, document: object) -> tuple[str, list[object], Mapping[str, object]]:
        """The model's name, its layers, and the configuration that may name its inputs and outputs."""
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

    def _layer(self, entry: object, index: int, previous: str | None, depth: int) -> Layer:
        if not isinstance(entry, dict):
            raise self._error(f"layer {index + 1} is {_kind(entry)}, not an object")
        class_name, config = entry.get("class_name"), entry.get("config")
        # The oldest Sequential, in the place of a layer, has a bare list for its settings.
        if isinstance(config, list) and class_name == "Sequential":
            config = {"layers": config}
        if not isinstance(class_name, str) or not isinstance(config, dict):
            raise self._error(f"layer {index + 1} lacks class_name or config")
        name = entry.get("name", config.get("name"))
        if not isinstance(name, str) or not name:
            raise self._error(f"layer {index + 1} ({class_name}) has no name")
        place = f"layer {name!r}"
        is_model = class_name in _MODEL_CLASSES
        model = self.model({"class_name": class_name, "config": config}, depth + 1) if is_model else None
        calls = self._calls(entry, place, class_name, previous)
        return Layer(name, class_name, config, calls, self._trainable(config, place), model)

    def _trainable(self, config: Mapping[str, object], place: str) -> bool:
        trainable = config.get("trainable", True)
        if not isinstance(trainable, bool):
            raise self._error(f"{place}: trainable must be true or false, not {shown(trainable)}")
        return trainable

    def _calls(
        self, entry: Mapping[str, object], place: str, class_name: str, previous: str | None
    ) -> tuple[Call, ...]:
        """The calls that a layer names; without ``inbound_nodes`` one, of the layer before it in the file."""
        nodes = entry.get("inbound_nodes")
        if class_name == INPUT_CLASS:
            if nodes:
                raise self._error(f"{place} is an InputLayer and has inputs of its own")
            return (Call(()),)
        if nodes is None:
            return (Call(() if previous is None else (Reference(previous),)),)
        if not isinstance(nodes, list) or not nodes:
            raise self._error(f"{place} has no inputs in its inbound_nodes")
        return tuple(self._call(node, place) for node in nodes)

    def _call(self, node: object, place: str) -> Call:
        if not isinstance(node, list) or not node:
            raise self._error(f"{place} has no inputs in its inbound_nodes")
        # Keras writes [["a", 0, 0, {}], ["b", 0, 0, {}]]; a single tensor may stand without its list.
        references = [node] if isinstance(node[0], str) else node
        inputs = tuple(self._reference(reference, place) for reference in references)
        as_inference = [self._is_called_as_inference(reference, place) for reference in references]
        return Call(inputs, any(as_inference))

    def _reference(self, reference: object, place: str) -> Reference:
        """The output that Keras's ``[name, node, output, call arguments]`` names; the last ones may lack."""
        match reference:
            case [str(name)]:
                return Reference(name)
            case [str(name), int(node), int(output)] | [str(name), int(node), int(output), dict()]:
                return Reference(name, node, output)
        raise self._error(f"{place} names an input in a form other than [name, 0, 0, {{}}]")

    def _is_called_as_inference(self, reference: object, place: str) -> bool:
        """Whether the call has ``training=False``; an argument that asks for anything else is refused."""
        arguments = reference[3] if isinstance(reference, list) and len(reference) > 3 else {}
        known = {key: value for key, value in arguments.items() if value is not None}
        as_inference = known.pop("training", None)
        if known or as_inference not in (None, False):
            given = {**known, "training": as_inference} if as_inference else known
            raise self._error(f"{place} is called with {shown(given)}, which the engine does not know")
        return as_inference is False

    def _ends(self, config: Mapping[str, object], key: str) -> tuple[Reference, ...] | None:
        named = config.get(key)
        if named is None:
            return None
        if not isinstance(named, list) or not named:
            raise self._error(f"{key} names no layer")
        references = [named] if isinstance(named[0], str) else named
        return tuple(self._reference(reference, key) for reference in references)


def _implied_input(first: Layer) -> Layer:
    """The ``InputLayer`` that the file lacks, with the shape that its first layer may have."""
    holder = first
    while holder.model is not None:
        holder = holder.model.layers[0]
    config = {key: value for key, value in holder.config.items() if key == "batch_input_shape"}
    return Layer(f"{first.name}_input", INPUT_CLASS, config, (Call(()),), trainable=True, model=None)


def _kind(value: object) -> str:
    """What a JSON value is, in the words of JSON."""
    words = {bool: "a truth value", int: "a number", float: "a number", str: "a text", list: "a list"}
    return words.get(type(value), "null" if value is None else "an object")
