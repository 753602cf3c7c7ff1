"""From samples to the batches that the network sees.

A :class:`Dataset` hands out decoded samples; the :class:`Loader` chooses which ones make a batch, moves them to the
device and carries out there what differs from epoch to epoch. Another kind of data is another ``Dataset``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from itertools import islice
from math import ceil
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmldnn_contract.data import MeanAndDeviation
from rmldnn_contract.exit_status import ConfigurationError, DataError
from rmldnn_torch.augmentation import Samples, draw, patch_masks, warp
from rmldnn_torch.slicing import Slices
from rmldnn_torch.transforms import TransformPlan

T = TypeVar("T")

# What random numbers are drawn for.
_ORDER, _GEOMETRY, _PATCHES = 1, 2, 3


class TargetKind(Enum):
    """What a target says, and the tensor in which a batch holds it."""

    BINARY = "mask of one class"  #: float32 (n, 1, spatial...), 0 or 1
    CLASSES = "mask of class numbers"  #: int64 (n, spatial...)
    VALUES = "values"  #: float32 (n, channels, spatial...), of images 0 to 1 before ``normalize``
    LABELS = "labels"  #: one class number for each sample, int64 (n,); float32 (n, 1) where the network has one output

    @property
    def is_mask(self) -> bool:
        """Whether the target must not be interpolated."""
        return self is not TargetKind.VALUES


class Dataset(Protocol):
    """Samples that can be had by their number, after the transforms that are done once."""

    @property
    def kind(self) -> str:
        """What the log calls it."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each sample, under which its prediction is written; slashes lead into groups."""

    @property
    def target_kind(self) -> TargetKind | None:
        """What its targets say; None without targets."""

    @property
    def slices(self) -> Slices | None:
        """Where the samples lie in one large array; None where they are no slices of one."""

    @property
    def group_sizes(self) -> Sequence[int]:
        """How many samples, one group after the other, may share batches; their sum is the number of samples."""

    @property
    def is_in_memory(self) -> bool:
        """Whether fetching costs next to nothing."""

    def fetch(self, indices: Sequence[int]) -> tuple[Samples, Samples | None]:
        """Inputs and targets of these samples, channels last: uint8 pixels, or other numbers as they are."""


@dataclass(frozen=True)
class Batch:
    """Samples on the device.

    ``inputs`` are float32 (n, channels, spatial...), ``targets`` as their kind says, ``indices`` the numbers of the
    samples in the data set. A process that has no share in the last batch gets an empty one.
    """

    names: tuple[str, ...]
    inputs: Tensor
    targets: Tensor | None
    indices: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Share:
    """Which of several processes this one is: the ``rank``-th of ``num_processes``."""

    rank: int = 0
    num_processes: int = 1


@dataclass(frozen=True)
class DataSettings:
    """What the data depend on beside the document's ``data``.

    Attributes:
        num_classes: the channels of the network's output.
        ignore_index: a class number that masks may have beside those of the network.
        device: where batches are made, and preloaded samples kept.
        seed: of the order and of random transforms.
        share: this process.
        num_input_axes, num_target_axes: the spatial axes of the network's input and output, 2 for images.
    """

    num_classes: int
    ignore_index: int | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    seed: int = 0
    share: Share = field(default_factory=Share)
    num_input_axes: int = 2
    num_target_axes: int = 2


@dataclass(frozen=True)
class _Selection:
    """The samples that this process takes of one batch, and the random numbers for them."""

    indices: tuple[int, ...]
    numbers: Tensor
    generator: torch.Generator


@dataclass(frozen=True)
class Loader:
    """The batches of an epoch.

    Attributes:
        dataset: where samples come from.
        inputs, targets: their transforms; those done once have been done by the dataset.
        batch_size: over all processes, as the document asks for it. Each takes ceil(batch_size / processes) samples
            of a batch, of the last one its part of what is left.
        settings: the device, the seed, and which process this is.
        shuffle: a new order in each epoch, from the seed and the epoch's number alone; else the order of the names.

    Raises ``ConfigurationError`` where inputs and targets would be transformed at random in different ways.
    """

    dataset: Dataset
    inputs: TransformPlan
    targets: TransformPlan
    batch_size: int
    settings: DataSettings
    shuffle: bool = False

    def __post_init__(self) -> None:
        has_geometry = self.dataset.target_kind not in {None, TargetKind.LABELS}
        if has_geometry and self.inputs.random != self.targets.random:
            raise ConfigurationError(
                "input_transforms and target_transforms have different random geometry, which would part images "
                "from their targets: list the same jitter_crop, flips, random_zoom and random_rotate in both"
            )

    @property
    def batch_size_per_process(self) -> int:
        """How many samples this process takes of each full batch."""
        return ceil(self.batch_size / self.settings.share.num_processes)

    def __len__(self) -> int:
        return sum(ceil(size / self._global_batch_size) for size in self.dataset.group_sizes)

    @property
    def _global_batch_size(self) -> int:
        return self.batch_size_per_process * self.settings.share.num_processes

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch; samples that must be read are read while the batch before is computed."""
        selections = self._selections(epoch)
        if self.dataset.is_in_memory:
            return map(self._load, selections)
        return _one_ahead(map(self._load, selections))

    def _selections(self, epoch: int) -> Iterator[_Selection]:
        seed, share = self.settings.seed, self.settings.share
        for number, batch in enumerate(self._batches_of_indices(epoch)):
            # The numbers are drawn for the whole batch, so that they do not depend on how many processes share it.
            numbers = draw(self.inputs.random, len(batch), _generator(_GEOMETRY, seed, epoch, number))
            yield _Selection(
                indices=tuple(np.array_split(batch, share.num_processes)[share.rank].tolist()),
                numbers=numbers.tensor_split(share.num_processes)[share.rank],
                generator=_generator(_PATCHES, seed, epoch, number, share.rank),
            )

    def _batches_of_indices(self, epoch: int) -> list[NDArray[np.intp]]:
        """The samples of each batch, over all processes. No batch has samples of two groups."""
        order = np.arange(len(self.dataset.names))
        if self.shuffle:
            order = torch.randperm(len(order), generator=_generator(_ORDER, self.settings.seed, epoch)).numpy()
        batches, start, batch_size = [], 0, self._global_batch_size
        for size in self.dataset.group_sizes:
            group = order[(order >= start) & (order < start + size)]
            batches += [group[first : first + batch_size] for first in range(0, size, batch_size)]
            start += size
        # Batches follow each other as their first samples do, so that shuffled groups alternate.
        position = np.argsort(order)
        return sorted(batches, key=lambda batch: int(position[batch[0]]))

    def _load(self, selection: _Selection) -> Batch:
        if not selection.indices:
            return Batch((), torch.empty(0, device=self.settings.device), None)
        names = tuple(self.dataset.names[index] for index in selection.indices)
        raw_inputs, raw_targets = self.dataset.fetch(selection.indices)
        inputs = self._make(raw_inputs, self.inputs, selection, nearest=False)
        covered = self._patches(inputs, selection.generator)
        if covered is not None:
            inputs = inputs.masked_fill(covered, 0.0)
        inputs = _normalize(inputs, self.inputs.scaling)
        if raw_targets is None or self.dataset.target_kind is None:
            return Batch(names, inputs, None, selection.indices)
        targets = self._make_targets(raw_targets, self.dataset.target_kind, selection, covered)
        return Batch(names, inputs, targets, selection.indices)

    def _patches(self, inputs: Tensor, generator: torch.Generator) -> Tensor | None:
        """Which pixels the patches of this batch cover, bool (n, 1, height, width); None without patches."""
        masks = [patch_masks(inputs, patches, generator) for patches in self.inputs.patches]
        return torch.stack(masks).any(dim=0) if masks else None

    def _make_targets(
        self, samples: Samples, kind: TargetKind, selection: _Selection, covered: Tensor | None
    ) -> Tensor:
        if kind is TargetKind.LABELS:
            labels = samples if isinstance(samples, Tensor) else torch.stack(samples)
            labels = labels.to(self.settings.device, non_blocking=True)
            return labels if self.settings.num_classes > 1 else labels[:, None].float()
        if kind is TargetKind.VALUES:
            values = self._make(samples, self.targets, selection, nearest=False)
            if covered is not None and self.targets.patches:
                values = _keep_patches(values, covered)
            return _normalize(values, self.targets.scaling)
        values = self._make(samples, self.targets, selection, nearest=True, scale=1.0)
        return values if kind is TargetKind.BINARY else values[:, 0].long()

    def _make(
        self, samples: Samples, plan: TransformPlan, selection: _Selection, *, nearest: bool, scale: float = 255.0
    ) -> Tensor:
        """Float32 (n, channels, spatial...) of the samples; pixels are divided by ``scale``."""
        if isinstance(samples, Tensor):
            samples = samples.to(self.settings.device, non_blocking=True)
            are_pixels = samples.dtype == torch.uint8
        else:
            samples = [sample.to(self.settings.device, non_blocking=True) for sample in samples]
            are_pixels = samples[0].dtype == torch.uint8
        if plan.each_time:
            values = warp(samples, plan.each_time, selection.numbers, nearest=nearest)
        elif isinstance(samples, Tensor):
            # Channels stay the fastest axis: this is torch's channels_last format, in which convolutions are faster.
            values = samples.movedim(-1, 1).float()
        else:
            raise DataError(_different_sizes(samples))
        return values / scale if are_pixels and scale != 1.0 else values


def _different_sizes(samples: Sequence[Tensor]) -> str:
    first, other = samples[0], next(sample for sample in samples if sample.shape != samples[0].shape)
    sizes = ["x".join(str(size) for size in reversed(sample.shape[:-1])) for sample in (first, other)]
    return (
        f"the samples of one batch have different shapes ({sizes[0]} and {sizes[1]} pixels): "
        'add {"resize": [width, height]} to the transforms'
    )


def _keep_patches(targets: Tensor, covered: Tensor) -> Tensor:
    if targets.shape[2:] != covered.shape[2:]:
        raise ConfigurationError("random_patches make targets of what they cover: inputs and targets need one size")
    return targets.masked_fill(~covered, 0.0)


def _normalize(values: Tensor, scaling: Sequence[MeanAndDeviation]) -> Tensor:
    for step in scaling:
        for name, setting in (("mean", step.mean), ("std", step.std)):
            if isinstance(setting, tuple) and len(setting) not in {1, values.shape[1]}:
                raise ConfigurationError(
                    f"normalize has {len(setting)} numbers in {name}, the images have {values.shape[1]} channels"
                )
        axes = (1,) * (values.ndim - 2)
        mean, deviation = (_constant(setting, axes, values.device) for setting in (step.mean, step.std))
        values = (values - mean) / deviation
    return values


@cache
def _constant(setting: float | tuple[float, ...], axes: tuple[int, ...], device: torch.device) -> Tensor:
    """Float32 (channels, *axes), kept: making it anew in each batch would wait for the device each time."""
    return torch.tensor(setting, dtype=torch.float32, device=device).reshape(-1, *axes)


def _generator(purpose: int, *key: int) -> torch.Generator:
    """A generator of its own for each purpose and key (seed, epoch, ...): nothing depends on what was drawn before."""
    # The purpose comes first: numpy takes keys that differ in zeros at their end for the same.
    state = np.random.SeedSequence((purpose, *key)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in another thread while the one before is in use."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as executor:
        coming = executor.submit(list, islice(items, 1))
        while item := coming.result():
            coming = executor.submit(list, islice(items, 1))
            yield item[0]
