"""Arrays in files: NumPy's ``.npy`` and ``.npz``, and the datasets of HDF5 files.

A ``.npy`` file holds one sample, a ``.npz`` file one for each of its arrays, an HDF5 file one for each dataset in it,
in whatever group. Nothing that a file contains is executed (NumPy's pickled objects are refused). Every error is a
``DataError`` that names the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from rmldnn_contract.exit_status import DataError, MemoryExhaustedError
from rmldnn_torch.sample_files import SampleFile, is_folder, list_files

ArrayType: TypeAlias = Literal["numpy", "hdf5"]
SUFFIXES: dict[ArrayType, frozenset[str]] = {
    "numpy": frozenset({".npy", ".npz"}),
    "hdf5": frozenset({".h5", ".hdf5", ".hdf", ".he5"}),
}
# NumPy reads headers with ast.literal_eval, which in some releases of Python 3.11 fails now and then when two threads
# are in it ("AST constructor recursion depth mismatch"): https://github.com/python/cpython/issues/106905
_READING_HEADERS = Lock()

#: In memory, mapped from a ``.npy`` file, or an HDF5 dataset: all have a shape and give their parts.
StoredArray: TypeAlias = NDArray[Any] | h5py.Dataset


@dataclass(frozen=True)
class ArrayFile(SampleFile):
    """An array in a file; ``key`` is its name there, None in a ``.npy`` file, which has only one."""

    key: str | None = None

    @property
    def stem(self) -> str:
        """The name without the file's suffix. Keys have none."""
        return super().stem if self.key is None else self.name

    def __str__(self) -> str:
        return str(self.path) if self.key is None else f"{self.path} ({self.key})"


def list_arrays(path: Path, kind: ArrayType) -> tuple[ArrayFile, ...]:
    """The arrays in a file, or in the files of a folder and those below it, sorted by name.

    A name is the file's path from the folder, with the array's own after it where a file can hold several.
    """
    if is_folder(path):
        files = list_files(path, SUFFIXES[kind], f"{kind} files")
        return tuple(array for file in files for array in _arrays_in(file.path, f"{file.name}/"))
    if not path.is_file():
        raise DataError(f"there is neither a file nor a folder {path}: check the paths in the data section")
    if path.suffix.lower() not in SUFFIXES[kind]:
        raise DataError(f"{path} is no {kind} file ({', '.join(sorted(SUFFIXES[kind]))}): check data.type")
    return tuple(_arrays_in(path, ""))


def _arrays_in(path: Path, prefix: str) -> Iterator[ArrayFile]:
    if path.suffix.lower() == ".npy":
        yield ArrayFile(path, prefix.rstrip("/") or path.name)
        return
    keys = _keys_of_npz(path) if path.suffix.lower() == ".npz" else _keys_of_hdf5(path)
    if not keys:
        raise DataError(f"{path} holds no arrays")
    for key in sorted(keys):
        yield ArrayFile(path, prefix + key, key)


def _keys_of_npz(path: Path) -> list[str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return list(archive.files)
    except Exception as error:  # broken archives make NumPy raise nearly anything
        raise _cannot_read(path, error) from error


def _keys_of_hdf5(path: Path) -> list[str]:
    keys: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            keys.append(name)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except Exception as error:  # and h5py likewise
        raise _cannot_read(path, error) from error
    return keys


def open_array(array: ArrayFile) -> StoredArray:
    """The array, its elements left in the file where the format allows that (``.npz`` does not)."""
    try:
        if array.path.suffix.lower() == ".npy":
            with _READING_HEADERS:
                stored = np.load(array.path, mmap_mode="r", allow_pickle=False)
        elif array.path.suffix.lower() == ".npz":
            with _READING_HEADERS, np.load(array.path, allow_pickle=False) as archive:
                stored = archive[array.key]
        else:
            stored = h5py.File(array.path, "r")[array.key]
    except MemoryError as error:
        raise MemoryExhaustedError(f"{array} does not fit into memory: save it as .npy or HDF5") from error
    except Exception as error:
        raise _cannot_read(array.path, error) from error
    if stored.dtype.kind not in "buif":
        raise DataError(f"{array} holds {stored.dtype}, not numbers")
    return stored


def read_array(array: ArrayFile) -> NDArray[Any]:
    """The array in memory."""
    stored = open_array(array)
    try:
        return np.array(stored)
    except MemoryError as error:
        raise MemoryExhaustedError(f"{array} does not fit into memory: set preload to false, or use slicers") from error
    except OSError as error:
        raise _cannot_read(array.path, error) from error


def read_region(stored: StoredArray, region: tuple[slice, ...], array: ArrayFile) -> NDArray[Any]:
    """A part of ``stored``, which :func:`open_array` gave for ``array``."""
    try:
        return np.asarray(stored[region])
    except OSError as error:
        raise _cannot_read(array.path, error) from error


def _cannot_read(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return DataError(f"cannot read {path}: {' '.join(reason.split()) or type(error).__name__}; replace or remove it")
