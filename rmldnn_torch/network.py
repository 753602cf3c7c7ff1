"""The module that runs a network graph.

Tensors are channels first, (batch, channels, spatial...), float32 or what autocast makes of them; images
are (batch, channels, height, width). Weights are named as rmldnn names them: ``<layer>.weight``,
``<layer>.bias``, and for BatchNormalization ``<layer>.running_mean`` and ``<layer>.running_var``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.keras_graph import INPUT_CLASS, LayerSpec, NetworkGraph
from rmldnn_torch.layer_config import Shape
from rmldnn_torch.layers import KerasLayer, build_layer, describe_shape
from rmldnn_torch.layers.activation import Activation, inline_activation
from rmldnn_torch.layers.convolution import Convolution
from rmldnn_torch.layers.normalization import BatchNormalization

# Stand-ins for a size that the file leaves open: a layer that depends on the image's size (a Dense behind a
# Flatten) fits one of them at most. Multiples of 32, so that five poolings and upsamplings meet again.
_OPEN_SIZES = (256, 320)
_NORMALIZED_EXPONENTIALS = frozenset({"sigmoid", "softmax", "log_softmax"})


@dataclass(frozen=True)
class ParameterCounts:
    """Weights of a network as rmldnn counts them: BatchNormalization's moving statistics left out."""

    total: int
    trainable: int


@dataclass(frozen=True)
class _Step:
    """One call: a module takes the values ``inputs`` to the value ``output``, then ``released`` are not needed.

    ``overwrites`` lets the output take the place of the input in memory.
    """

    layer: str
    class_name: str
    module_name: str
    inputs: tuple[str, ...]
    output: str
    released: tuple[str, ...] = ()
    overwrites: bool = False


class Network(nn.Module):
    """A network of one input and one output, with the initial weights that its file names.

    Initial weights come from torch's default generator (``torch.manual_seed``), layer by layer in the order of the
    graph. A layer with ``trainable: false`` has no gradients, and its BatchNormalization stays in evaluation mode, as
    does a layer that was called with ``training=False``. All calls of a shared layer use one module.

    Attributes:
        graph: what it was built from.
        input_shape: (channels, spatial...) of one sample, None where the file leaves the size open.
        input_channels, output_channels: of the first and the last tensor.

    Raises ``NetworkError`` for several inputs or outputs, a layer that the engine lacks, settings that are wrong,
    and shapes that do not fit each other.
    """

    def __init__(self, graph: NetworkGraph) -> None:
        super().__init__()
        self.graph = graph
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise self._error(f"it has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, not one of each")
        *spatial, channels = graph.inputs[0].shape
        if channels is None:
            raise self._error(f"the last size in batch_input_shape of {graph.inputs[0].name!r} must be a number")
        self.input_channels = channels
        self.input_shape: tuple[int | None, ...] = (channels, *spatial)
        # Every attribute stands before the first layer, so that a layer of the same name gives way to it.
        self.output_channels = channels
        self._module_names: dict[str, str] = {}
        self._steps: list[_Step] = []
        steps = _with_releases(self._build_steps(self._assumed_input(_OPEN_SIZES[0])), graph.outputs[0])
        self._steps = self._with_overwriting(steps)
        self.output_channels = self._trace_other_size()[0]
        self._freeze()

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network file says, its last activation included (probabilities, as a rule)."""
        return self._run(inputs, self._steps)

    def forward_logits(self, inputs: Tensor) -> tuple[Tensor, str]:
        """The tensor before the last activation, and that activation's name.

        The name is ``sigmoid``, ``softmax`` or ``log_softmax`` (over the channels). Where the network ends
        otherwise it is ``linear``, and the tensor is that of ``forward``. A loss on logits keeps the precision that
        probabilities near 0 and 1 lose.
        """
        activation = self.output_activation
        steps = self._steps if activation == "linear" else self._steps[:-1]
        return self._run(inputs, steps), activation

    @property
    def output_activation(self) -> str:
        """The activation that ``forward_logits`` leaves out, ``linear`` where there is none."""
        last = self._module(self._steps[-1].module_name) if self._steps else None
        if isinstance(last, Activation) and last.over_channels and last.function in _NORMALIZED_EXPONENTIALS:
            return last.function
        return "linear"

    def check(self, *spatial: int) -> Shape:
        """The output's (channels, spatial...) for inputs of that spatial shape (height, width), without computing it.

        Raises ``NetworkError`` naming the first layer that such an input does not fit.
        """
        if len(spatial) != len(self.input_shape) - 1:
            raise self._error(f"it takes {len(self.input_shape) - 1} spatial axes, the data have {len(spatial)}")
        return self._trace((self.input_channels, *spatial))

    def layer_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The output's (channels, spatial...) of each call of a layer; None is a size that depends on the image's."""
        first, second = (self._trace_all(self._assumed_input(size)) for size in _OPEN_SIZES)
        return {
            spec.name: tuple(
                size if size == other else None for size, other in zip(first[spec.name], second[spec.name], strict=True)
            )
            for spec in self.graph.layers
        }

    def train(self, mode: bool = True) -> Network:
        """Training mode for all but frozen BatchNormalization layers, which keep to their moving statistics.

        Layers that were called with ``training=False`` do not change either.
        """
        super().train(mode)
        for spec, layer in self.keras_layers():
            if spec.as_inference or (spec.class_name == "BatchNormalization" and not spec.trainable):
                layer.eval()
        return self

    def keras_layers(self) -> Iterator[tuple[LayerSpec, KerasLayer]]:
        """Every layer of the file but its inputs, once, with the module that was built for it."""
        for spec in self.graph.layers:
            if spec.class_name != INPUT_CLASS and spec.shares is None:
                yield spec, self._module(self._module_names[spec.name])

    def module_name(self, layer: str) -> str:
        """The prefix of a layer's weights in ``state_dict``: its name, changed only where torch forbids it."""
        return self._module_names[layer]

    def _error(self, text: str) -> NetworkError:
        return NetworkError(f"The network in {self.graph.source!r} cannot be used: {text}")

    def _assumed_input(self, open_size: int) -> Shape:
        """The input's shape with ``open_size`` for each size that the file leaves open."""
        return tuple(open_size if size is None else size for size in self.input_shape)

    def _build_steps(self, input_shape: Shape) -> list[_Step]:
        shapes: dict[str, Shape] = {self.graph.inputs[0].name: input_shape}
        steps: list[_Step] = []
        for spec in self.graph.layers:
            if spec.class_name == INPUT_CLASS:
                continue
            for step in self._build_layer(spec, [shapes[name] for name in spec.inputs]):
                shapes[step.output] = self._infer(step, [shapes[name] for name in step.inputs])
                steps.append(step)
        return steps

    def _build_layer(self, spec: LayerSpec, shapes: Sequence[Shape]) -> Iterator[_Step]:
        """The layer, and where it carries an activation that as a second step, so that it can be left out."""
        try:
            module_name = self._shared_module(spec, shapes) or self._add(spec.layer_name, build_layer(spec, shapes))
            activation = inline_activation(spec)
        except NetworkError as error:
            raise self._error(str(error)) from error
        except (RuntimeError, MemoryError) as error:  # torch says RuntimeError where memory does not suffice
            raise self._error(f"layer {spec.name!r}: its weights do not fit into memory") from error
        self._module_names[spec.layer_name] = module_name
        computed = spec.name if activation is None else f"{spec.name}/{activation.function}"
        yield _Step(spec.name, spec.class_name, module_name, spec.inputs, computed)
        if activation is not None:
            yield _Step(spec.name, spec.class_name, self._add(computed, activation), (computed,), spec.name)

    def _shared_module(self, spec: LayerSpec, shapes: Sequence[Shape]) -> str | None:
        """The name of the module that an earlier call of the layer has built, None where there was none."""
        module_name = self._module_names.get(spec.layer_name)
        if module_name is not None:
            with torch.device("meta"):  # no numbers, no draws: whether a layer for these inputs has the same weights
                fitting = build_layer(spec, shapes).state_dict()
            weights = self._module(module_name).state_dict()
            if {name: values.shape for name, values in weights.items()} != {
                name: values.shape for name, values in fitting.items()
            }:
                raise NetworkError(f"layer {spec.layer_name!r} is called with inputs that need other weights")
        return module_name

    def _add(self, name: str, module: KerasLayer) -> str:
        module_name = name.replace(".", "_")
        while hasattr(self, module_name):
            module_name += "_"
        self.add_module(module_name, module)
        return module_name

    def _module(self, module_name: str) -> KerasLayer:
        module: KerasLayer = getattr(self, module_name)
        return module

    def _freeze(self) -> None:
        for spec, layer in self.keras_layers():
            layer.requires_grad_(spec.trainable)
        self.train(self.training)

    def _with_overwriting(self, steps: Sequence[_Step]) -> list[_Step]:
        """The steps; a ReLU overwrites what a convolution or normalization has made for it alone.

        Neither needs its output for its gradient, and both make a tensor of their own. That spares a pass through
        memory, which is worth 7 % of a training step on a CPU.
        """
        makers = {
            step.output
            for step in steps
            if isinstance(self._module(step.module_name), (Convolution, BatchNormalization))
        }

        def overwrites(step: _Step) -> bool:
            module = self._module(step.module_name)
            is_relu = isinstance(module, Activation) and module.function == "relu"
            return is_relu and set(step.inputs) <= makers & set(step.released)

        return [replace(step, overwrites=overwrites(step)) for step in steps]

    def _run(self, inputs: Tensor, steps: Sequence[_Step]) -> Tensor:
        output = self.graph.inputs[0].name
        values = {output: inputs}
        for step in steps:
            output = step.output
            if step.overwrites:
                values[output] = torch.relu_(values[step.inputs[0]])
            else:
                values[output] = self._module(step.module_name)(*[values[name] for name in step.inputs])
            for name in step.released:
                del values[name]
        return values[output]

    def _trace(self, input_shape: Shape) -> Shape:
        return self._trace_all(input_shape)[self.graph.outputs[0]]

    def _trace_all(self, input_shape: Shape) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {self.graph.inputs[0].name: input_shape}
        for step in self._steps:
            shapes[step.output] = self._infer(step, [shapes[name] for name in step.inputs])
        return shapes

    def _trace_other_size(self) -> Shape:
        """The output's shape, after a second look at a network whose file leaves the size of its images open."""
        try:
            return self._trace(self._assumed_input(_OPEN_SIZES[1]))
        except NetworkError as error:
            raise NetworkError(f"{error}; put the size of the images into batch_input_shape") from error

    def _infer(self, step: _Step, shapes: Sequence[Shape]) -> Shape:
        try:
            shape = self._module(step.module_name).output_shape(*shapes)
            if min(shape) < 1:
                raise ValueError("nothing would be left of it")
        except ValueError as error:
            described = " and ".join(map(describe_shape, shapes))
            raise self._error(f"layer {step.layer!r} ({step.class_name}) cannot take {described}: {error}") from error
        return shape


def count_parameters(network: Network) -> ParameterCounts:
    """The parameter counts that rmldnn prints: weights without moving statistics, gamma and beta always counted.

    ``trainable`` counts the same over the layers that the file does not freeze.
    """
    counts = [(layer.count_weights(), spec.trainable) for spec, layer in network.keras_layers()]
    return ParameterCounts(
        total=sum(count for count, _ in counts),
        trainable=sum(count for count, trainable in counts if trainable),
    )


def _with_releases(steps: Sequence[_Step], output: str) -> list[_Step]:
    """The steps, each with the values that none after it takes: they need not stay in memory."""
    needed = {output}
    reversed_steps = []
    for step in reversed(steps):
        released = tuple(sorted(set(step.inputs) - needed))
        needed.update(step.inputs)
        reversed_steps.append(replace(step, released=released))
    return reversed_steps[::-1]
