"""Weights and images by formula, for networks too large to store: the same numbers here and in Keras.

Used by the tests and by ``make_keras_references.py``; needs numpy alone.
"""

from __future__ import annotations

import math
import zlib

import numpy as np


def formula_weight(layer: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight ``kind`` (Keras's name: kernel, gamma, ...) of a layer, in Keras's order of axes, float32.

    Kernels keep the variance of what passes through them; statistics and affine maps lie near the identity.
    """
    wave = _wave(zlib.crc32(f"{layer}/{kind}".encode()), shape)
    if kind == "kernel":
        return (wave * 2 / math.sqrt(math.prod(shape[:-1]))).astype(np.float32)
    if kind in ("gamma", "moving_variance"):
        return (1 + wave / 2).astype(np.float32)
    return (wave / 4).astype(np.float32)


def formula_input(shape: tuple[int, ...]) -> np.ndarray:
    """Images with values from 0 to 1, float32."""
    return ((_wave(0, shape) + 1) / 2).astype(np.float32)


def _wave(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers from -1 to 1 that look random, by integer arithmetic alone: the same bits on every machine.

    A quadratic sequence modulo 2**32, whose upper 16 bits fill the range evenly.
    """
    index = np.arange(math.prod(shape), dtype=np.uint32)
    mixed = index * (index * np.uint32(2654435761) + np.uint32(40503)) + np.uint32(seed)
    return ((mixed >> np.uint32(16)).astype(np.float32) / 32768 - 1).reshape(shape)
