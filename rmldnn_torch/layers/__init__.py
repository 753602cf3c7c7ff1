"""Keras layers as torch modules: a registry, and a module for each family of layers.

Importing the families fills the registry; ``build_layer`` is all that the network needs.
"""

from rmldnn_torch.layers import activation, convolution, merge, normalization, pooling, shape
from rmldnn_torch.layers.registry import (
    KerasLayer,
    KerasWeight,
    build_layer,
    describe_shape,
    known_classes,
    register,
)

__all__ = [
    "KerasLayer",
    "KerasWeight",
    "activation",
    "build_layer",
    "convolution",
    "describe_shape",
    "known_classes",
    "merge",
    "normalization",
    "pooling",
    "register",
    "shape",
]
