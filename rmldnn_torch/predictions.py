"""Predictions as HDF5: one dataset for each sample, as rmldnn's viewers expect them.

A dataset is called after its input file, suffix included, and lies in a group for each folder that the file
lies in below the input folder. It is float32, channels first, and holds what the network gives: ``f[name][0, :, :]``
is the probability of the first class at each pixel. Of a slice the dataset is called after its region, such as
``0:64,0:576``, and holds the prediction for that region alone: without padding, and transposed back.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
from torch import Tensor
from typing_extensions import Buffer

from rmldnn_torch.files import replacing, writing


class PredictionFile:
    """An HDF5 file that takes predictions batch by batch."""

    def __init__(self, path: Path, file: h5py.File, raw: ForgivingFile) -> None:
        self._path = path
        self._file = file
        self._raw = raw

    def write(self, names: Sequence[str], predictions: Tensor) -> None:
        """Writes (n, channels, spatial...) ``predictions`` under these names. Raises ``OutputError``."""
        for name, prediction in zip(names, predictions.float().cpu().numpy(), strict=True):
            self._file.create_dataset(name, data=prediction)
        with writing(self._path):
            self._raw.raise_error()


def prediction_path(folder: str, rank: int) -> Path:
    """The file of a process (counted from 0): ``<folder>/output_1.h5`` for the first."""
    return Path(folder, f"output_{rank + 1}.h5")


@contextlib.contextmanager
def prediction_file(path: Path) -> Iterator[PredictionFile]:
    """A prediction file that appears at ``path`` when the block ends without an error. Raises ``OutputError``."""
    with new_hdf5_file(path) as (file, raw):
        yield PredictionFile(path, file, raw)


@contextlib.contextmanager
def new_hdf5_file(path: Path) -> Iterator[tuple[h5py.File, ForgivingFile]]:
    """An HDF5 file that appears at ``path`` when the block ends without an error, and what it writes through.

    Raises ``OutputError``, at the end at the latest; ``raise_error`` of the second tells earlier.
    """
    with replacing(path) as temporary, ForgivingFile(temporary, "w+b") as raw:
        with h5py.File(raw, "w") as file:
            yield file, raw
        raw.raise_error()


class ForgivingFile(io.FileIO):
    """A file that keeps its first error of writing instead of raising it.

    The HDF5 library does not survive a failed write: closing the file afterwards ends the process with a
    segmentation fault. It is told that all went well, and the error is raised once HDF5 is out of the way.
    """

    _error: OSError | None = None

    def raise_error(self) -> None:
        """Raises the error of an earlier write, if there was one."""
        if self._error is not None:
            raise self._error

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data).cast("B")
        written = 0
        try:
            while written < len(view):  # a raw file may take less than it is given
                written += super().write(view[written:])
        except OSError as error:
            self._error = self._error or error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0
