"""Network files of the published tutorials, whole or thinned out for tests that train."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rmldnn_torch.network import Network

from .formula_weights import formula_weight
from .keras_references_reader import FOLDER, Weights

Document = dict[str, Any]


def published(name: str) -> Document:
    """The file of ``xception`` (pets) or ``mnist``, as Keras wrote it."""
    with np.load(FOLDER / "published.npz") as stored:
        document: Document = json.loads(str(stored["networks"]))[name]
    return document


RESNET_50 = (3, 4, 6, 3)  #: blocks in each stage


def birds_classifier(num_classes: int = 400, blocks: Sequence[int] = RESNET_50) -> Document:
    """ResNet-50 whose whole trunk is frozen, as the tutorial on birds has it: only the head's kernel and bias learn."""
    trunk = {"use_bias": True}, {"trainable": False}
    return _ResNet(blocks, *trunk).classifier(224, units=num_classes, activation="log_softmax", use_bias=True)


def satellite_classifier(num_classes: int = 10, blocks: Sequence[int] = RESNET_50) -> Document:
    """ResNet-50 as the tutorial on satellite images has it: kernels are frozen and there is no bias, head included.

    Its BatchNormalization layers are trainable without having anything to train (neither scale nor center): so they
    use the statistics of the batch, and rmldnn counts 2C parameters of each as trainable.
    """
    trunk = {"use_bias": False}, {"trainable": True, "scale": False, "center": False}
    return _ResNet(blocks, *trunk).classifier(64, units=num_classes, activation="log_softmax_v2", use_bias=False)


@dataclass
class _ResNet:
    """Keras's ResNet (He et al., CVPR 2016) by the layers, names and order of ``keras.applications``."""

    blocks: Sequence[int]
    convolution: Document
    normalization: Document
    _layers: list[Document] = field(default_factory=list)

    def classifier(self, size: int, **head: object) -> Document:
        """The whole file, for square images in colours, with ``head`` as the settings of its Dense layer."""
        entry = {"name": "input_1", "batch_input_shape": [None, size, size, 3]}
        self._layers = [{"class_name": "InputLayer", "name": "input_1", "config": entry, "inbound_nodes": []}]
        padded = self._add("ZeroPadding2D", "conv1_pad", "input_1", padding=[[3, 3], [3, 3]])
        tensor = self._relu("conv1_relu", self._normalized("conv1", padded, 64, 7, 2))
        padded = self._add("ZeroPadding2D", "pool1_pad", tensor, padding=[[1, 1], [1, 1]])
        tensor = self._add("MaxPooling2D", "pool1_pool", padded, pool_size=[3, 3], strides=[2, 2])
        for stage, (num_blocks, filters) in enumerate(zip(self.blocks, (64, 128, 256, 512), strict=False), start=2):
            for block in range(1, num_blocks + 1):
                stride = 2 if block == 1 and stage > 2 else 1
                tensor = self._block(f"conv{stage}_block{block}", tensor, filters, stride, first=block == 1)
        pooled = self._add("GlobalAveragePooling2D", "avg_pool", tensor)
        self._add("Dense", "dense", pooled, trainable=True, **head)
        ends = {"input_layers": [["input_1", 0, 0]], "output_layers": [["dense", 0, 0]]}
        return {"class_name": "Functional", "config": {"name": "model", "layers": self._layers, **ends}}

    def _block(self, name: str, source: str, filters: int, stride: int, *, first: bool) -> str:
        shortcut = self._normalized(f"{name}_0", source, 4 * filters, 1, stride) if first else source
        tensor = self._relu(f"{name}_1_relu", self._normalized(f"{name}_1", source, filters, 1, stride))
        tensor = self._relu(f"{name}_2_relu", self._normalized(f"{name}_2", tensor, filters, 3))
        tensor = self._normalized(f"{name}_3", tensor, 4 * filters, 1)
        return self._relu(f"{name}_out", self._add("Add", f"{name}_add", shortcut, tensor))

    def _normalized(self, name: str, source: str, filters: int, kernel: int, stride: int = 1) -> str:
        shape = {"filters": filters, "kernel_size": [kernel, kernel], "strides": [stride, stride]}
        padding = "same" if kernel == 3 else "valid"
        tensor = self._add("Conv2D", f"{name}_conv", source, **shape, padding=padding, **self.convolution)
        settings = {"axis": [3], "momentum": 0.99, "epsilon": 1.001e-5, **self.normalization}
        return self._add("BatchNormalization", f"{name}_bn", tensor, **settings)

    def _relu(self, name: str, source: str) -> str:
        return self._add("Activation", name, source, activation="relu")

    def _add(self, class_name: str, name: str, *sources: str, **config: object) -> str:
        settings = {"name": name, "trainable": False, **config}
        nodes = [[[source, 0, 0, {}] for source in sources]]
        self._layers.append({"class_name": class_name, "name": name, "config": settings, "inbound_nodes": nodes})
        return name


def scaled_down(document: Document, size: int, divisor: int = 1, momentum: float = 0.5) -> Document:
    """The same layers for square images of ``size`` pixels, with so many times fewer filters (never below one).

    A test has few steps, hence the ``momentum`` of its BatchNormalization layers: statistics that follow quickly.
    """
    document = copy.deepcopy(document)
    for layer in document["config"]["layers"]:
        config = layer["config"]
        if "batch_input_shape" in config:
            config["batch_input_shape"][1:3] = [size, size]
        # What the network ends in has as many filters as there are classes.
        if config.get("filters", 0) > 3:
            config["filters"] = max(config["filters"] // divisor, 1)
        if "momentum" in config:
            config["momentum"] = momentum
    return document


def weights_by_formula(network: Network, without: tuple[str, ...]) -> Weights:
    """Weights for the layers whose names do not begin with these, under Keras's names and in its order of axes."""
    state = network.state_dict()
    weights: Weights = {}
    for spec, layer in network.keras_layers():
        for weight in layer.keras_weights if not spec.name.startswith(without) else ():
            target = state.get(f"{network.module_name(spec.name)}.{weight.name}")
            if target is not None:
                values = formula_weight(spec.name, weight.keras_name, keras_shape(target))
                weights.setdefault(spec.name, {})[f"{spec.name}/{weight.keras_name}:0"] = values
    return weights


def keras_shape(target: torch.Tensor) -> tuple[int, ...]:
    """The shape in Keras of a bias, a Dense kernel (inputs, units) or a kernel (height, width, channels, filters)."""
    if target.ndim == 1:
        return tuple(target.shape)
    outputs, inputs, *window = target.shape
    return *window, inputs, outputs
