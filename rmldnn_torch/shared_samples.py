"""Decoded samples that outlive the run that has decoded them, for the next run of the same worker.

A run of :mod:`rmldnn_torch.worker` is a process of its own. It writes the samples that it has decoded to a file that
has no name and lies in memory, and hands that file to the worker, from which the next run inherits it. In any
other process there is nowhere to hand them, and nothing is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
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

#: Inputs and targets of four data sets: what a search changes between its trials leaves others unused.
MAX_KEPT = 16


@dataclass(frozen=True)
class _File:
    """Samples in an unnamed file: its descriptor, and the shape of the uint8 array that it holds."""

    descriptor: int
    shape: tuple[int, ...]


@dataclass
class SampleStore:
    """The samples that a worker keeps, by what they were made from; ``worker`` is a run's connection to it."""

    worker: socket.socket | None = None
    _files: OrderedDict[str, _File] = field(default_factory=OrderedDict)

    def keep(self, key: str, shape: Sequence[int], descriptor: int) -> None:
        """Takes over a file from a run; the oldest goes when there are too many."""
        self._files[key] = _File(descriptor, tuple(shape))
        if len(self._files) > MAX_KEPT:
            _, oldest = self._files.popitem(last=False)
            os.close(oldest.descriptor)

    def find(self, key: str) -> Tensor | None:
        """The samples, if the worker has them: a view of its memory, of which a page is copied when it is written."""
        file = self._files.get(key)
        if file is None:
            return None
        pixels = mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_COPY)
        return torch.from_numpy(np.frombuffer(pixels, np.uint8).reshape(file.shape))

    def hand_over(self, key: str, samples: Tensor) -> None:
        """Gives the worker a copy, where there is a worker and memory enough."""
        if self.worker is None or samples.dtype != torch.uint8 or not samples.numel():
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


#: Of this process; the worker and its runs give it meaning.
store = SampleStore()


def decoded_once(
    paths: Sequence[Path], recipe: str, decode: Callable[[], Tensor | list[Tensor]]
) -> Tensor | list[Tensor]:
    """What ``decode`` gives, or what it gave an earlier run for the same, unchanged files and the same ``recipe``."""
    if store.worker is None:
        return decode()
    key = _key(paths, recipe)
    kept = store.find(key)
    if kept is not None:
        return kept
    samples = decode()
    if isinstance(samples, Tensor):
        store.hand_over(key, samples)
    return samples


def _key(paths: Sequence[Path], recipe: str) -> str:
    digest = hashlib.sha256(recipe.encode())
    for path in paths:
        about = path.stat() if path.exists() else None  # a missing file is an error that decoding tells better
        state = None if about is None else (about.st_size, about.st_mtime_ns, about.st_ino)
        digest.update(f"\n{path.absolute()} {state}".encode(errors="surrogateescape"))
    return digest.hexdigest()
