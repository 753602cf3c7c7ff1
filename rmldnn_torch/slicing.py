"""Slices of one large array: where they lie, how they are cut out, and what of a prediction belongs to them.

Along each dimension slices begin every ``strides`` elements. One that would reach over the end is a remainder: it is
filled up, or left out with ``discard_remainders``. RocketML's documentation does not say what padding and remainders
are filled with; here they are 0 in inputs and in targets, and where the loss has an ``ignore_index`` that one in
targets.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rmldnn_contract.data import Slicer
from rmldnn_contract.exit_status import DataError, MemoryExhaustedError

Region: TypeAlias = tuple[slice, ...]

_MAX_ELEMENTS = 2**48  #: of a slice: beyond the memory of any machine, and below what NumPy can count


@dataclass(frozen=True)
class SliceSet:
    """The slices of one slicer.

    Attributes:
        name: of the set.
        slicer: sizes and padding.
        starts: where slices begin along each dimension; there is a slice for each combination, the last dimension
            changing fastest.
        array_shape: of the array that is cut.
    """

    name: str
    slicer: Slicer
    starts: tuple[tuple[int, ...], ...]
    array_shape: tuple[int, ...]

    def __len__(self) -> int:
        return math.prod(map(len, self.starts))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a slice as the network sees it: padded, without dropped dimensions, transposed."""
        padded = self._padded_sizes
        shape = tuple(padded[axis] for axis in self._kept_axes)
        return shape[::-1] if self.slicer.transpose else shape

    def region(self, number: int) -> Region:
        """The part of the array that a slice holds, without what is filled up."""
        places = np.unravel_index(number, [len(starts) for starts in self.starts])
        starts = (axis[place] for axis, place in zip(self.starts, places, strict=True))
        sizes = zip(starts, self.slicer.sizes, self.array_shape, strict=True)
        return tuple(slice(start, min(start + size, end)) for start, size, end in sizes)

    def to_slice(self, block: NDArray[Any], fill: int = 0) -> NDArray[Any]:
        """The elements of a :meth:`region` as a slice of :attr:`shape`, with ``fill`` around them."""
        spare = zip(self._before, self._padded_sizes, block.shape, strict=True)
        block = np.pad(block, [(before, total - before - size) for before, total, size in spare], constant_values=fill)
        block = block.reshape([block.shape[axis] for axis in self._kept_axes])
        return block.T if self.slicer.transpose else block

    def restore(self, prediction: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        """The (channels, spatial...) ``prediction`` for a slice as (channels, *extents of its region).

        The reverse of :meth:`to_slice`: what was filled up is taken away, dimensions that were dropped have size 1.
        """
        if self.slicer.transpose:
            prediction = prediction.swapaxes(1, 2)
        block = prediction.reshape(len(prediction), *self._padded_sizes)
        extents = (part.stop - part.start for part in self.region(number))
        inner = tuple(slice(before, before + extent) for before, extent in zip(self._before, extents, strict=True))
        return block[(slice(None), *inner)]

    def without_dropped_axes(self, prediction: NDArray[np.float32]) -> NDArray[np.float32]:
        """What :meth:`restore` gives, without the dimensions that the slicer drops."""
        return prediction.reshape(len(prediction), *(prediction.shape[1 + axis] for axis in self._kept_axes))

    def coverage(self) -> tuple[NDArray[np.int64], ...]:
        """For each dimension, how many slices hold each place of it.

        The product over dimensions is how often the slices of the set hold an element.
        """
        counts = [np.zeros(size, dtype=np.int64) for size in self.array_shape]
        for count, starts, size in zip(counts, self.starts, self.slicer.sizes, strict=True):
            for start in starts:
                count[start : start + size] += 1
        return tuple(counts)

    @property
    def _kept_axes(self) -> tuple[int, ...]:
        return tuple(axis for axis, size in enumerate(self.slicer.sizes) if size > 1)

    @property
    def _padded_sizes(self) -> tuple[int, ...]:
        sizes = self.slicer.sizes
        if self.slicer.padding is not None:
            return tuple(size + 2 * padding for size, padding in zip(sizes, self.slicer.padding, strict=True))
        return self.slicer.padded_sizes or sizes

    @property
    def _before(self) -> tuple[int, ...]:
        """The padding in front; an odd one of ``padded_sizes`` has the smaller half there."""
        return tuple((total - size) // 2 for total, size in zip(self._padded_sizes, self.slicer.sizes, strict=True))


def slice_sets(slicers: Sequence[Slicer], array_shape: tuple[int, ...]) -> tuple[SliceSet, ...]:
    """The sets of slices of an array of this shape.

    Raises:
        DataError: a slicer does not fit the array, or finds no slice in it.
        MemoryExhaustedError: its slices are larger than any array.
    """
    sets = []
    for number, slicer in enumerate(slicers, start=1):
        name = slicer.name or f"slice_set_{number}"
        described = "x".join(map(str, array_shape))
        if len(slicer.sizes) != len(array_shape):
            raise DataError(f"the slicer {name!r} has {len(slicer.sizes)} sizes, the array to be cut is {described}")
        strides = slicer.strides or slicer.sizes
        starts = tuple(map(_starts, array_shape, slicer.sizes, strides, [slicer.discard_remainders] * len(array_shape)))
        if not all(starts):
            raise DataError(
                f"the slicer {name!r} finds no slice of {'x'.join(map(str, slicer.sizes))} in an array of {described}: "
                "choose smaller sizes, or set discard_remainders to false"
            )
        cut = SliceSet(name, slicer, starts, array_shape)
        if math.prod(cut.shape) > _MAX_ELEMENTS:
            shape = "x".join(map(str, cut.shape))
            raise MemoryExhaustedError(f"a slice of {shape} ({name!r}) does not fit into memory: choose smaller sizes")
        sets.append(cut)
    return tuple(sets)


def _starts(length: int, size: int, stride: int, discard_remainders: bool) -> tuple[int, ...]:
    whole = range(0, length - size + 1, stride)
    following = whole[-1] + stride if whole else 0
    end_of_whole = whole[-1] + size if whole else 0
    has_remainder = not discard_remainders and end_of_whole < length and following < length
    return (*whole, following) if has_remainder else tuple(whole)


class Slices:
    """The slices of all sets, counted through."""

    def __init__(self, sets: Sequence[SliceSet]) -> None:
        self.sets = tuple(sets)
        self._ends = list(accumulate(map(len, sets)))

    def __len__(self) -> int:
        return self._ends[-1]

    def place(self, index: int) -> tuple[int, int]:
        """The set of a slice, and its number in that."""
        which = bisect_right(self._ends, index)
        return which, index - (self._ends[which] - len(self.sets[which]))

    @property
    def names(self) -> tuple[str, ...]:
        """Each slice's region, such as ``0:64,64:128``; of several sets, in a group of the set's name."""
        return tuple(
            _prefix(slices, self.sets) + ",".join(f"{part.start}:{part.stop}" for part in slices.region(number))
            for slices in self.sets
            for number in range(len(slices))
        )


def _prefix(slices: SliceSet, sets: Sequence[SliceSet]) -> str:
    return f"{slices.name}/" if len(sets) > 1 else ""
