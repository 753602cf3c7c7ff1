"""The tensors of a TorchScript or libtorch archive: what ``torch::save(module, FILE)`` writes, and ``torch.jit.save``.

Such a file is a zip archive with code for TorchScript's interpreter, a pickle ``data.pkl`` of the module's attributes,
and the numbers of each tensor in ``data/``. ``torch.jit.load`` compiles that code and runs its ``__setstate__``, so it
is not used: the code is not read at all, and the pickle can name nothing but the few stand-ins below.
https://github.com/pytorch/pytorch/blob/main/torch/csrc/jit/docs/serialization.md
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_archive(path: Path) -> bool:
    """Whether the file is an archive of a module, not one of Python objects (``torch.save``) or no archive at all."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The parameters and buffers of the module in the file, by names such as ``conv0.weight``.

    BatchNormalization's ``num_batches_tracked`` is left out: a counter that torch's own momentum needs.

    Raises whatever the zip file, the unpickler or torch raise where the file is damaged or has other contents.
    """
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix(".pkl")
        module = _Unpickler(archive, pickled, folder).load()
    if not isinstance(module, _Object):
        raise pickle.UnpicklingError("it holds no module")
    return {name: tensor for name, tensor in _tensors(module) if not name.endswith(".num_batches_tracked")}


class _Object:
    """A module of the archive: its attributes, whatever its class was."""

    attributes: Mapping[str, object] = MappingProxyType({})  # of one that the pickle makes and does not fill

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.attributes = dict(state)


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    return storage.as_strided(size, stride, offset)  # torch refuses what lies outside the storage


def _first(value: object, *_: object) -> object:
    return value


_FUNCTIONS = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("collections", "OrderedDict"): dict,
    ("torch.jit._pickle", "build_intlist"): _first,
    ("torch.jit._pickle", "build_doublelist"): _first,
    ("torch.jit._pickle", "build_boollist"): _first,
    ("torch.jit._pickle", "build_tensorlist"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, pickled: str, folder: str) -> None:
        super().__init__(io.BytesIO(_read_record(archive, pickled)))
        self._archive = archive
        self._folder = folder
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module_name: str, global_name: str, /) -> object:
        if module_name.partition(".")[0] == "__torch__":
            return _Object
        if module_name == "torch" and global_name in _DTYPES:
            return _DTYPES[global_name]
        if (module_name, global_name) in _FUNCTIONS:
            return _FUNCTIONS[module_name, global_name]
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is no part of a module's weights")

    def persistent_load(self, pid: tuple[str, torch.dtype, str, str, int]) -> Tensor:
        """The numbers of a storage, from ``("storage", dtype, record, device, count)``."""
        kind, dtype, record, _, _ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"it holds a {kind!r}")
        if record not in self._storages:
            data = _read_record(self._archive, f"{self._folder}/{record}")
            self._storages[record] = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0)
        return self._storages[record]


def _read_record(archive: zipfile.ZipFile, name: str) -> bytes:
    record = archive.getinfo(name)
    # torch compresses no numbers, and a small compressed record can be without end when unpacked.
    if record.compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"{name} is compressed")
    return archive.read(record)


def _tensors(module: _Object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, _Object):
            yield from _tensors(value, f"{prefix}{name}.")
