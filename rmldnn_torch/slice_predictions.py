"""Predictions for slices: each by itself, or put together again to an array as large as the one that was cut.

Put together, there is one dataset for each slice set, called after it, of shape (channels, *shape of the input).
Where slices overlap, it holds the mean of their predictions; where none lies (discarded remainders, strides larger than
sizes) it holds NaN. RocketML's documentation says neither.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from rmldnn_contract.data import PrecisionName
from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.distributed import Processes
from rmldnn_torch.files import writing
from rmldnn_torch.predictions import new_hdf5_file
from rmldnn_torch.slicing import Slices, SliceSet

_TYPES: dict[PrecisionName, DTypeLike] = {"single": np.float32, "half": np.float16}
_BYTES_AT_A_TIME = 2**26


def restore_slice(slices: Slices, index: int, prediction: Tensor) -> tuple[SliceSet, NDArray[np.float32]]:
    """The set of a slice, and the (channels, spatial...) prediction for it as (channels, *extents of its region).

    Raises ``NetworkError`` where the prediction has another shape than the slice.
    """
    which, number = slices.place(index)
    cut = slices.sets[which]
    if tuple(prediction.shape[1:]) != cut.shape:
        given, taken = ("x".join(map(str, shape)) or "no array" for shape in (prediction.shape[1:], cut.shape))
        raise NetworkError(
            f"the network gives {given} for slices of {taken}: their predictions have a place in the array that was "
            "cut only where both are equal; choose padded_sizes that the network keeps, and no transforms of size"
        )
    return cut, cut.restore(prediction.float().cpu().numpy(), number)


class Assembly:
    """Sums of the predictions for slices, as large as the array that was cut.

    It takes channels * elements * 4 bytes of memory for each slice set.
    """

    def __init__(self, slices: Slices, num_channels: int) -> None:
        self._slices = slices
        self._sums = {cut.name: np.zeros((num_channels, *cut.array_shape), np.float32) for cut in slices.sets}

    def add(self, index: int, prediction: Tensor) -> None:
        """Adds the (channels, spatial...) prediction for a slice, counted through all sets. Raises ``NetworkError``."""
        cut, block = restore_slice(self._slices, index, prediction)
        _, number = self._slices.place(index)
        self._sums[cut.name][(slice(None), *cut.region(number))] += block

    def save(self, path: Path, precision: PrecisionName, processes: Processes) -> None:
        """Writes the means over all processes, which all must call this; the first one writes. Raises ``OutputError``.

        They are summed and written in parts, so that this takes little memory of its own.
        """
        if processes.share.rank != 0:
            for cut in self._slices.sets:
                for _ in self._means(cut, processes):
                    pass
            return
        with new_hdf5_file(path) as (file, raw):
            for cut in self._slices.sets:
                shape = self._sums[cut.name].shape
                dataset: h5py.Dataset = file.create_dataset(cut.name, shape, _TYPES[precision])
                for part, means in self._means(cut, processes):
                    dataset[:, part] = means
                    with writing(path):
                        raw.raise_error()

    def _means(self, cut: SliceSet, processes: Processes) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        sums = self._sums[cut.name]
        first, *others = cut.coverage()
        count_of_others = np.ones((), np.int64)
        for counts in others:
            count_of_others = np.multiply.outer(count_of_others, counts)
        rows = max(1, _BYTES_AT_A_TIME * sums.shape[1] // max(sums.nbytes, 1))
        for start in range(0, sums.shape[1], rows):
            part = slice(start, start + rows)
            total = processes.sum(torch.from_numpy(np.ascontiguousarray(sums[:, part]))).numpy()
            counts = np.multiply.outer(first[part], count_of_others)
            yield part, np.where(counts > 0, total / np.maximum(counts, 1), np.nan).astype(np.float32)


@contextlib.contextmanager
def assembled_predictions(
    path: Path, precision: PrecisionName, assembly: Assembly, processes: Processes
) -> Iterator[Assembly]:
    """The ``assembly``, written when the block ends without an error. Raises ``OutputError``."""
    yield assembly
    assembly.save(path, precision, processes)
