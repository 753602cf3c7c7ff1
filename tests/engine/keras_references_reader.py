"""Reads what ``make_keras_references.py`` stored, and writes weights the way Keras 2 lays them out in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parent / "keras_references"
FAMILIES = (
    "activations",
    "convolutions",
    "merges",
    "nested_models",
    "normalizations",
    "poolings",
    "reshapings",
    "sample_normalizations",
    "transposed_convolutions",
)

FloatArray = npt.NDArray[np.float32]
Weights = dict[str, dict[str, FloatArray]]  # layer -> name of the weight in a file -> values


@dataclass(frozen=True)
class Reference:
    """One case: a network file, weights, an input (channels last), and what Keras makes of it."""

    name: str
    network: dict[str, object]
    weights: Weights
    inputs: FloatArray
    outputs: FloatArray


def read_references() -> Iterator[Reference]:
    for family in FAMILIES:
        with np.load(FOLDER / f"{family}.npz") as stored:
            arrays = dict(stored)
        for case, network in json.loads(str(arrays.pop("networks"))).items():
            weights: Weights = {}
            for key, values in arrays.items():
                match key.split(":", maxsplit=2):
                    case [owner, layer, weight] if owner == case:
                        weights.setdefault(layer, {})[weight] = values
            yield Reference(case, network, weights, arrays[f"{case}:input"], arrays[f"{case}:output"])


def write_keras_file(path: Path, weights: Weights) -> None:
    """A weights-only ``.h5`` with the groups and attributes that Keras 2 writes."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in weights]
        for layer, values_by_name in weights.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in values_by_name]
            for name, values in values_by_name.items():
                group[name] = values
