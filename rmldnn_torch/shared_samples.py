"""Decoded samples that outlive the run that has decoded them, for the next run of the same worker.

Where each run is a process of its own, it writes the samples that it has decoded to a file that has no name and lies
in memory, and hands that file to the worker, from which the next run inherits it. Where runs follow one another in the
worker itself, the samples stay, those of the last run on its device too. In any other process nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rmldnn_torch.augmentation import Samples
from rmldnn_torch.memory import available_memory

#: Inputs and targets of four data sets: what a search changes between its trials leaves others unused.
MAX_KEPT = 16


@dataclass(frozen=True)
class _File:
    """Samples in an unnamed file: its descriptor, and the shape of the uint8 array that it holds."""

    descriptor: int
    shape: tuple[int, ...]


@dataclass
class SampleStore:
    """The samples that a worker keeps, by what they were made from.

    Attributes:
        worker: a run's connection to it.
        is_of_the_worker: this process is the worker.
    """

    worker: socket.socket | None = None
    is_of_the_worker: bool = False
    _samples: OrderedDict[str, Samples] = field(default_factory=OrderedDict)
    _files: OrderedDict[str, _File] = field(default_factory=OrderedDict)
    _on_device: dict[tuple[str, torch.device], Samples] = field(default_factory=dict)
    _in_use: set[tuple[str, torch.device]] = field(default_factory=set)

    def keep(self, key: str, shape: Sequence[int], descriptor: int) -> None:
        """Takes over a file from a run; the oldest goes when there are too many."""
        if key in self._files:  # two parts of one run have the same samples
            os.close(descriptor)
            return
        self._files[key] = _File(descriptor, tuple(shape))
        if len(self._files) > MAX_KEPT:
            _, oldest = self._files.popitem(last=False)
            os.close(oldest.descriptor)

    def find(self, key: str) -> Samples | None:
        """The samples, if the worker has them; of a file a view, of which a page is copied when it is written."""
        if key in self._samples:
            return self._samples[key]
        file = self._files.get(key)
        if file is None:
            return None
        pixels = mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_COPY)
        return torch.from_numpy(np.frombuffer(pixels, np.uint8).reshape(file.shape))

    def hand_over(self, key: str, samples: Samples) -> None:
        """Gives the worker the samples, those of one size at least, where there is memory enough for them twice."""
        if self.is_of_the_worker:
            self._samples[key] = samples
            while len(self._samples) > MAX_KEPT or (self._samples and not self._has_room_for(0)):
                self._samples.popitem(last=False)
        if (
            self.worker is None
            or not isinstance(samples, Tensor)
            or samples.dtype != torch.uint8
            or not samples.numel()
            or not self._has_room_for(samples.nbytes)
        ):
            return
        with contextlib.suppress(OSError):
            descriptor = os.memfd_create("samples")
            try:
                with os.fdopen(os.dup(descriptor), "wb") as file:
                    file.write(samples.contiguous().numpy().data)
                message = json.dumps({"key": key, "shape": list(samples.shape)})
                socket.send_fds(self.worker, [message.encode()], [descriptor])
            finally:
                os.close(descriptor)

    def begin_run(self) -> None:
        """Nothing on the device is in use."""
        self._in_use.clear()

    def place(self, key: str, device: torch.device, get: Callable[[], Samples]) -> Samples:
        """What ``get`` gives, on the device, where the worker keeps it unless that is the processor."""
        if device.type == "cpu" or not self.is_of_the_worker:
            return _placed(get(), device)
        self._in_use.add((key, device))
        if (key, device) not in self._on_device:
            samples = get()
            self.free_the_device()  # first, so that both are never there together
            self._on_device[key, device] = _placed(samples, device)
        return self._on_device[key, device]

    def free_the_device(self) -> None:
        """Lets go of what earlier runs have left on the device and this one has not asked for."""
        self._on_device = {place: samples for place, samples in self._on_device.items() if place in self._in_use}

    def _has_room_for(self, num_bytes: int) -> bool:
        """Whether the worker would keep no more than half of what is free without all that it keeps."""
        kept = sum(math.prod(file.shape) for file in self._files.values())
        kept += sum(map(_num_bytes, self._samples.values()))
        return kept + num_bytes <= (available_memory() + kept) // 2


def _num_bytes(samples: Samples) -> int:
    return sum(sample.nbytes for sample in ([samples] if isinstance(samples, Tensor) else samples))


def _placed(samples: Samples, device: torch.device) -> Samples:
    if device.type == "cpu":
        return samples
    return samples.to(device) if isinstance(samples, Tensor) else [sample.to(device) for sample in samples]


#: Of this process; the worker and its runs give it meaning.
store = SampleStore()


def decoded_once(
    paths: Sequence[Path], recipe: str | None, decode: Callable[[], Samples], device: torch.device
) -> Samples:
    """What ``decode`` gives, or what it gave an earlier run for the same, unchanged files and the same ``recipe``.

    It is on the device. Nobody may write into it. Without a recipe nothing is kept.
    """
    if recipe is None or (store.worker is None and not store.is_of_the_worker):
        return _placed(decode(), device)
    key = key_of(paths, recipe)

    def get() -> Samples:
        kept = store.find(key)
        if kept is not None:
            return kept
        samples = decode()
        store.hand_over(key, samples)
        return samples

    return store.place(key, device, get)


def key_of(paths: Sequence[Path], recipe: str) -> str:
    """Another one when a file or the recipe is."""
    digest = hashlib.sha256(recipe.encode())
    for path in paths:
        try:
            about = path.stat()
            state = (about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)
        except (OSError, ValueError):  # which whoever reads the file tells better
            state = None
        digest.update(f"\n{path.absolute()} {state}".encode(errors="surrogateescape"))
    return digest.hexdigest()
