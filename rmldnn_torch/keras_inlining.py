"""Models inside models dissolved into their layers, and shared layers into their calls.

A layer keeps its own name, whatever model it stands in, as rmldnn names weights ``<layer>.weight``. Where several
models have a layer of one name, those inside models are named ``<model>/<layer>``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.keras_document import INPUT_CLASS, Call, Layer, Model, Reference, unusable

_MOST_CALLS = 100_000

_Path: TypeAlias = tuple[str, ...]  # a layer: the names of the models that it stands in, then its own
_Scope: TypeAlias = tuple[tuple[str, int], ...]  # a call of a model: from outside in, the models and their calls
_Value: TypeAlias = tuple[_Scope, str, int, int]  # a tensor: scope, layer, call, output


@dataclass(frozen=True)
class LayerSpec:
    """One call of a layer of the file.

    ``name`` is the layer's own, for the second and later calls of a shared layer ``<layer>/call_2`` and so on, and
    ``shares`` is then the name of the layer. ``config`` is the layer's settings as the file has them, ``inputs`` the
    names of the layers that feed it, in the order in which it takes them (empty for an ``InputLayer`` only),
    ``trainable`` false for a frozen layer, ``as_inference`` true where the layer computes as in inference also
    while the network trains (it, or a model around it, was called with ``training=False``).
    """

    name: str
    class_name: str
    config: Mapping[str, object]
    inputs: tuple[str, ...]
    trainable: bool = True
    as_inference: bool = False
    shares: str | None = None

    @property
    def layer_name(self) -> str:
        """The name of the layer whose weights this call uses."""
        return self.shares or self.name

    @property
    def inline_activation(self) -> object:
        """The ``activation`` setting of a layer that computes something else too; None where there is none."""
        activation = None if self.class_name == "Activation" else self.config.get("activation")
        return None if activation == "linear" else activation


def inline_models(source: str, model: Model) -> tuple[list[LayerSpec], tuple[str, ...] | None]:
    """The calls of all layers in the order of the file, and the names of the outputs, None where the file names none.

    Raises ``NetworkError`` for names that occur twice or are not there, and for models whose calls do not fit them.
    """
    inlining = _Inlining(source, _layer_names(source, model))
    whole = _Frame(model, trainable=model.trainable)
    inlining.add_layers(whole)
    specs = inlining.resolved_specs()
    if model.outputs is None:
        return specs, None
    values = inlining.values(whole, model.outputs, "output_layers")
    return specs, tuple(inlining.name_of(value) for value in values)


def _layer_names(source: str, model: Model) -> dict[_Path, str]:
    """A name for each layer, its own where no other has it."""
    paths = list(_paths(model, ()))
    owners = Counter(path[-1] for path in paths)
    names = {path: path[-1] if owners[path[-1]] == 1 else "/".join(path) for path in paths}
    for name, count in Counter(names.values()).items():
        if count > 1:
            raise unusable(source, f"two layers are named {name!r}")
    return names


def _paths(model: Model, outside: _Path) -> Iterator[_Path]:
    for layer in model.layers:
        path = (*outside, layer.name)
        if layer.model is not None:
            yield from _paths(layer.model, path)
        elif layer.class_name != INPUT_CLASS or not outside:
            yield path


@dataclass(frozen=True)
class _Frame:
    """A model at one of its calls: ``path`` names the models around it and itself; both are empty for the network."""

    model: Model
    scope: _Scope = ()
    path: _Path = ()
    trainable: bool = True
    as_inference: bool = False

    @cached_property
    def first_nodes(self) -> dict[str, int]:
        return self.model.first_nodes()

    @cached_property
    def layers(self) -> dict[str, Layer]:
        return {layer.name: layer for layer in self.model.layers}

    def inside(self, layer: Layer, model: Model, number: int, call: Call) -> _Frame:
        """The model that stands in the place of ``layer``, at that call."""
        return _Frame(
            model,
            (*self.scope, (layer.name, number)),
            (*self.path, layer.name),
            self.trainable and layer.trainable and model.trainable,
            self.as_inference or call.as_inference,
        )


@dataclass
class _Inlining:
    """The calls found so far.

    Attributes:
        layer_names: of the layer at each path.
        specs: with their inputs still as values.
        names: of the plain call that gives each value.
        aliases: the inputs of an inner model and the outputs of its calls, and the values that they stand for.
    """

    source: str
    layer_names: Mapping[_Path, str]
    specs: list[tuple[LayerSpec, tuple[_Value, ...]]] = field(default_factory=list)
    names: dict[_Value, str] = field(default_factory=dict)
    aliases: dict[_Value, _Value] = field(default_factory=dict)
    num_calls: Counter[str] = field(default_factory=Counter)

    def add_layers(self, frame: _Frame) -> None:
        """All calls of all layers of a model, and of the models in it."""
        if len(self.specs) + len(self.aliases) > _MOST_CALLS:
            raise self._error(f"its models call each other more than {_MOST_CALLS} times")
        for layer in frame.model.layers:
            if layer.class_name == INPUT_CLASS and frame.scope:
                continue  # it stands for what the model is given
            for number, call in enumerate(layer.calls):
                values = self.values(frame, call.inputs, f"layer {layer.name!r}")
                if layer.model is None:
                    self._add_call(frame, layer, number, values)
                else:
                    inner = frame.inside(layer, layer.model, number, call)
                    self._connect(frame, inner, values)
                    self.add_layers(inner)

    def values(self, frame: _Frame, references: Sequence[Reference], place: str) -> tuple[_Value, ...]:
        """What the references in a model stand for."""
        return tuple(self._value(frame, reference, place) for reference in references)

    def name_of(self, value: _Value) -> str:
        """The name of the plain call that gives a value."""
        passed = {value}
        while value in self.aliases:
            value = self.aliases[value]
            if value in passed:
                raise self._error(f"model {value[1]!r} takes its input, over other layers, from itself")
            passed.add(value)
        return self.names[value]

    def resolved_specs(self) -> list[LayerSpec]:
        """All calls with the names of what feeds them.

        Raises ``NetworkError`` for two calls of one name, and a layer whose calls differ in ``training``.
        """
        specs = [replace(spec, inputs=tuple(map(self.name_of, values))) for spec, values in self.specs]
        modes: dict[str, bool] = {}
        names: set[str] = set()
        for spec in specs:
            if spec.name in names:
                raise self._error(f"two layers are named {spec.name!r}")
            names.add(spec.name)
            if modes.setdefault(spec.layer_name, spec.as_inference) != spec.as_inference:
                raise self._error(f"layer {spec.layer_name!r} is called with training=False and without")
        return specs

    def _error(self, text: str) -> NetworkError:
        return unusable(self.source, text)

    def _value(self, frame: _Frame, reference: Reference, place: str) -> _Value:
        layer = frame.layers.get(reference.layer)
        if layer is None:
            raise self._error(f"{place} names {reference.layer!r}, which is not there")
        number = reference.node - frame.first_nodes[layer.name]
        if not 0 <= number < len(layer.calls):
            raise self._error(f"{place} names call {number + 1} of {layer.name!r}, which has {len(layer.calls)}")
        num_outputs = 1 if layer.model is None else len(_outputs(layer.model))
        if not 0 <= reference.output < num_outputs:
            raise self._error(f"{place} names output {reference.output + 1} of {layer.name!r}, which has {num_outputs}")
        return frame.scope, layer.name, number, reference.output

    def _add_call(self, frame: _Frame, layer: Layer, number: int, values: tuple[_Value, ...]) -> None:
        layer_name = self.layer_names[(*frame.path, layer.name)]
        self.num_calls[layer_name] += 1
        num_calls = self.num_calls[layer_name]
        spec = LayerSpec(
            name=layer_name if num_calls == 1 else f"{layer_name}/call_{num_calls}",
            class_name=layer.class_name,
            config=layer.config,
            inputs=(),
            trainable=frame.trainable and layer.trainable,
            as_inference=frame.as_inference or layer.calls[number].as_inference,
            shares=None if num_calls == 1 else layer_name,
        )
        self.specs.append((spec, values))
        self.names[frame.scope, layer.name, number, 0] = spec.name

    def _connect(self, frame: _Frame, inner: _Frame, given: tuple[_Value, ...]) -> None:
        """Lead ``given`` to the inputs of a model at one of its calls, and its outputs to where they are named."""
        model, (name, number) = inner.model, inner.scope[-1]
        entries = [layer.name for layer in model.layers if layer.class_name == INPUT_CLASS]
        inputs = [reference.layer for reference in model.inputs] if model.inputs else entries
        if sorted(inputs) != sorted(entries) or len(inputs) != len(given):
            raise self._error(f"model {name!r} has {len(entries)} inputs and is called with {len(given)}")
        for entry, value in zip(inputs, given, strict=True):
            self.aliases[inner.scope, entry, 0, 0] = value
        for index, value in enumerate(self.values(inner, _outputs(model), f"model {name!r}")):
            self.aliases[frame.scope, name, number, index] = value


def _outputs(model: Model) -> tuple[Reference, ...]:
    """The outputs of a model inside a model: those that it names, or else the layer at its end."""
    return model.outputs or (model.last_output(),)
