"""Where the inputs or the targets of a data set come from, and the two put together.

A source hands out samples by their number, with channels last, after the transforms that are done once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmldnn_contract.exit_status import MemoryExhaustedError
from rmldnn_torch.augmentation import Samples
from rmldnn_torch.data import TargetKind
from rmldnn_torch.devices import num_cpus
from rmldnn_torch.sample_files import F
from rmldnn_torch.shared_samples import decoded_once
from rmldnn_torch.slicing import Slices

_CPU_ALLOCATOR = "DefaultCPUAllocator"  # what torch's error names where the machine's memory does not suffice


class Source(Protocol):
    """Inputs or targets."""

    @property
    def is_in_memory(self) -> bool:
        """Whether fetching costs next to nothing."""

    def fetch(self, indices: Sequence[int], /) -> Samples:
        """These samples, (n, spatial..., channels) or n of (spatial..., channels): uint8 pixels, or other numbers."""


@dataclass(frozen=True)
class SampleDataset:
    """Inputs, each with its target if there are any.

    Attributes:
        kind: what the log calls it.
        names: of the samples, in the order of ``inputs``.
        inputs: where the inputs come from.
        targets: where the targets come from, in the order of their inputs; None for inference without targets.
        target_kind: what the targets say; None without targets.
        slices: where the samples lie in one large array; None where they are no slices of one.
    """

    kind: str
    names: tuple[str, ...]
    inputs: Source
    targets: Source | None = None
    target_kind: TargetKind | None = None
    slices: Slices | None = None

    @property
    def is_in_memory(self) -> bool:
        """Whether fetching costs next to nothing."""
        return self.inputs.is_in_memory and (self.targets is None or self.targets.is_in_memory)

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """The sets of slices have shapes of their own, so that none of their batches can be mixed."""
        return (len(self.names),) if self.slices is None else tuple(map(len, self.slices.sets))

    def fetch(self, indices: Sequence[int]) -> tuple[Samples, Samples | None]:
        """Inputs and targets of these samples, with channels last. Raises ``DataError``."""
        return self.inputs.fetch(indices), None if self.targets is None else self.targets.fetch(indices)


class FileSource(Generic[F]):
    """Samples in files of their own, read in threads.

    Args:
        files: in the order of the samples.
        read: gives the (spatial..., channels) sample of a file.
        keep_on: read everything now and keep it on this device; None: read each batch when its turn comes.
        recipe: all that the samples depend on beside the files; None: a later run must read them itself.

    Raises:
        DataError: a file cannot be read (now, or when its batch is fetched).
        MemoryExhaustedError: the samples cannot all be kept.
    """

    def __init__(
        self,
        files: Sequence[F],
        read: Callable[[F], NDArray[Any]],
        keep_on: torch.device | None,
        recipe: str | None = None,
    ) -> None:
        self.is_in_memory = keep_on is not None
        self._files = files
        self._read = read
        self._kept = None if keep_on is None else self._read_everything(keep_on, recipe)

    def fetch(self, indices: Sequence[int]) -> Samples:
        """These samples, as they are read."""
        if isinstance(self._kept, Tensor):
            # Not made on the device: that would wait for all that the device has still to do.
            return self._kept[torch.tensor(indices).to(self._kept.device, non_blocking=True)]
        if self._kept is not None:
            return gather((self._kept[index] for index in indices), len(indices))
        return gather(self._read_all(self._threads, [self._files[index] for index in indices]), len(indices))

    def _read_everything(self, device: torch.device, recipe: str | None) -> Samples:
        try:
            return decoded_once([file.path for file in self._files], recipe, self._read_now, device)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and _CPU_ALLOCATOR not in str(error):
                raise
            raise MemoryExhaustedError(
                f"the {len(self._files)} samples in and below {self._files[0].path.parent} do not fit into memory "
                "together: set preload to false"
            ) from error

    def _read_now(self) -> Samples:
        with _readers() as threads:
            return gather(self._read_all(threads, self._files), len(self._files))

    def _read_all(self, threads: ThreadPoolExecutor, files: Sequence[F]) -> Iterator[Tensor]:
        return map(to_tensor, threads.map(self._read, files))

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return _readers()


def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=num_cpus(), thread_name_prefix="reader")


def to_tensor(sample: NDArray[Any]) -> Tensor:
    """The sample as a tensor. Read-only arrays, as Pillow's are, are copied: torch does not take them."""
    return torch.from_numpy(np.require(sample, requirements=["C", "W"]))


def gather(samples: Iterable[Tensor], count: int) -> Samples:
    """One tensor of all samples as they come, or a list where their shapes differ."""
    remaining = iter(samples)
    first = next(remaining)
    together = first.new_empty((count, *first.shape))
    together[0] = first
    for index, sample in enumerate(remaining, start=1):
        if sample.shape != first.shape:
            return [*together[:index], sample, *remaining]
        together[index] = sample
    return together
