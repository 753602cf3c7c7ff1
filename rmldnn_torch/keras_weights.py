"""Reading Keras's ``.h5`` files, weights only or whole models, in the layout of Keras 2.

The root (or its group ``model_weights``) has an attribute ``layer_names``; the group of each layer has
``weight_names``, paths of data sets such as ``conv0/kernel:0``. Weights of a model inside a model lie in one group,
the model's, and only their paths name their layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rmldnn_contract.exit_status import CheckpointError
from rmldnn_torch.layers import KerasLayer, KerasWeight
from rmldnn_torch.network import Network

if TYPE_CHECKING:
    import h5py

# What a weight is called here whose layer the network does not have.
_USUAL_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
    "depthwise_kernel": "weight",
}


@dataclass(frozen=True)
class FileWeight:
    """A weight of a file: its name in a network's ``state_dict``, its name in the file, and its value.

    The value is in torch's order of axes, None where the network has no such layer, or none of that kind (it is not
    read then).
    """

    name: str
    file_name: str
    value: Tensor | None


def read_keras_weights(path: Path, network: Network) -> list[FileWeight]:
    """All weights of a Keras file, those of the network's layers with their values.

    Raises ``CheckpointError`` for a file that is damaged or of another layout.
    """
    import h5py

    layers = {spec.name: layer for spec, layer in network.keras_layers()}
    try:
        with h5py.File(path, "r") as file:
            return [
                _read_weight(dataset, weight_name, layer_name, layers.get(layer_name), network)
                for layer_name, weight_name, dataset in _datasets(file, layers)
            ]
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        # What h5py raises for a truncated file, a link to nowhere, a group in the place of numbers.
        reason = " ".join(str(error).split())
        raise CheckpointError(f"The Keras file {str(path)!r} is damaged or no file of weights: {reason}") from error


def expected_file_names(network: Network) -> dict[str, str]:
    """For each weight that a Keras file of this network may have: its name here, and its name in the file."""
    return {
        f"{network.module_name(spec.name)}.{weight.name}": f"{spec.name}/{weight.keras_name}:0"
        for spec, layer in network.keras_layers()
        for weight in layer.expected_weights()
    }


def _datasets(file: h5py.File, layers: dict[str, KerasLayer]) -> Iterator[tuple[str, str, h5py.Dataset]]:
    """(layer, weight's path, data set) of each weight."""
    root = file.get("model_weights", file)
    if "layer_names" not in root.attrs and "layer_names0" not in root.attrs:
        raise ValueError("it has no layer_names; save it as .h5 with Keras 2, or with model.save('FILE.h5') in Keras 3")
    for group_name in _names(root, "layer_names"):
        group = root[group_name]
        for weight_name in _names(group, "weight_names"):
            *_, owner, _ = (group_name, *weight_name.split("/"))
            yield _layer_of(group_name, owner, layers), weight_name, group[weight_name]


def _layer_of(group_name: str, owner: str, layers: Collection[str]) -> str:
    """The layer that a group stands for, or where that is a model the layer in it that the weight's path names."""
    if group_name in layers:
        return group_name
    # Where other models have a layer of that name too, ours is named after its model.
    in_model = [name for name in layers if name.startswith(f"{group_name}/") and name.endswith(f"/{owner}")]
    return in_model[0] if in_model else owner


def _names(group: h5py.Group, key: str) -> Iterator[str]:
    """A list of names in an attribute, or where it was too long for one, in ``key0``, ``key1``, ..."""
    chunks = [key] if key in group.attrs else []
    while f"{key}{len(chunks)}" in group.attrs:
        chunks.append(f"{key}{len(chunks)}")
    for chunk in chunks:
        for name in np.asarray(group.attrs[chunk]).ravel():
            yield name.decode() if isinstance(name, bytes) else str(name)


def _read_weight(
    dataset: h5py.Dataset, weight_name: str, layer_name: str, layer: KerasLayer | None, network: Network
) -> FileWeight:
    keras_name = weight_name.rpartition("/")[2].partition(":")[0]
    weight = None if layer is None else _weight_named(layer, keras_name)
    if weight is None:
        return FileWeight(f"{layer_name}.{_USUAL_NAMES.get(keras_name, keras_name)}", weight_name, None)
    value = torch.from_numpy(_as_float32(dataset))
    name = f"{network.module_name(layer_name)}.{weight.name}"
    return FileWeight(name, weight_name, weight.to_torch(value))


def _weight_named(layer: KerasLayer, keras_name: str) -> KerasWeight | None:
    return next((weight for weight in layer.keras_weights if weight.keras_name == keras_name), None)


def _as_float32(dataset: h5py.Dataset) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(dataset[()], dtype=np.float32)
