"""Arrays in files as a :class:`~rmldnn_torch.sources.Source`: whole ones as samples, or slices of a large one.

The network tells which axes an array has: as many as the network's spatial ones, or one more for channels, in front.
Values are taken as they are; only images are divided by 255.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rmldnn_contract.data import Data
from rmldnn_contract.exit_status import ConfigurationError, DataError, MemoryExhaustedError
from rmldnn_torch.arrays import ArrayFile, open_array, read_array, read_region
from rmldnn_torch.augmentation import Samples
from rmldnn_torch.data import DataSettings, TargetKind
from rmldnn_torch.slicing import Slices
from rmldnn_torch.sources import FileSource, gather, to_tensor
from rmldnn_torch.transforms import TransformPlan, class_number_type, transform_array

_Convert: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class _Reading:
    """How the numbers of a file become those of a sample: converted, then transformed."""

    convert: _Convert
    num_axes: int
    plan: TransformPlan
    is_mask: bool = False

    def finish(self, sample: NDArray[Any]) -> NDArray[Any]:
        """The (spatial..., channels) sample of an array that has been converted, after the fixed transforms."""
        return transform_array(_channels_last(sample, self.num_axes), self.plan.once, is_mask=self.is_mask)

    def read(self, file: ArrayFile) -> NDArray[Any]:
        """The sample in a file."""
        try:
            return self.finish(self.convert(read_array(file)))
        except (DataError, MemoryExhaustedError) as error:
            message = str(error)
            raise type(error)(message if str(file.path) in message else f"{file}: {message}") from error


def _channels_last(array: NDArray[Any], num_axes: int) -> NDArray[Any]:
    if array.ndim == num_axes:
        return array[..., np.newaxis]
    if array.ndim == num_axes + 1:
        return np.moveaxis(array, 0, -1)
    shape = "x".join(map(str, array.shape)) or "a single number"
    raise DataError(
        f"its shape is {shape}, and the network works on {num_axes} axes: an array has those, "
        "or one more in front of them for channels"
    )


def array_inputs(
    files: Sequence[ArrayFile], data: Data, plan: TransformPlan, settings: DataSettings
) -> FileSource[ArrayFile]:
    """Whole arrays as inputs."""
    read = _Reading(_as_values, settings.num_input_axes, plan).read
    return FileSource(files, read, settings.device if data.preload else None)


def array_targets(
    files: Sequence[ArrayFile], data: Data, plan: TransformPlan, settings: DataSettings
) -> tuple[FileSource[ArrayFile], TargetKind]:
    """Whole arrays as targets; what they say is told by the first one's axes, see :func:`_target_reading`."""
    reading, kind = _target_reading(open_array(files[0]).ndim, data, plan, settings)
    return FileSource(files, reading.read, settings.device if data.preload else None), kind


class SliceSource:
    """Slices of an array, cut out when they are asked for.

    Args:
        file: the array; it has no channels.
        slices: where they lie in it.
        reading: what becomes of their numbers.
        fill: the number that stands in padding and behind the end of the array.
        preload: read the whole array now, into the memory of the machine; else only what a batch needs.

    Raises:
        DataError: the file cannot be read, now or later.
    """

    #: Cutting costs time, so that it is done while the batch before is computed.
    is_in_memory = False

    def __init__(self, file: ArrayFile, slices: Slices, reading: _Reading, *, fill: int = 0, preload: bool) -> None:
        self._file = file
        self._array = read_array(file) if preload else open_array(file)
        self._slices = slices
        self._reading = reading
        self._fill = fill

    def fetch(self, indices: Sequence[int]) -> Samples:
        """These slices, counted through all sets."""
        return gather((to_tensor(self._cut(index)) for index in indices), len(indices))

    def _cut(self, index: int) -> NDArray[Any]:
        which, number = self._slices.place(index)
        slices = self._slices.sets[which]
        try:
            block = self._reading.convert(read_region(self._array, slices.region(number), self._file))
            return self._reading.finish(slices.to_slice(block, self._fill))
        except DataError as error:
            message = str(error)
            raise DataError(message if str(self._file.path) in message else f"{self._file}: {message}") from error


def slice_inputs(
    file: ArrayFile, slices: Slices, data: Data, plan: TransformPlan, settings: DataSettings
) -> SliceSource:
    """The slices of an array as inputs."""
    return SliceSource(file, slices, _Reading(_as_values, settings.num_input_axes, plan), preload=data.preload)


def slice_targets(
    file: ArrayFile, slices: Slices, data: Data, plan: TransformPlan, settings: DataSettings
) -> tuple[SliceSource, TargetKind]:
    """The slices of an array as targets. What fills them up does not count where the loss has an ``ignore_index``."""
    reading, kind = _target_reading(slices.sets[0].slicer.num_dimensions, data, plan, settings)
    fill = settings.ignore_index or 0 if kind is TargetKind.CLASSES else 0
    return SliceSource(file, slices, reading, fill=fill, preload=data.preload), kind


def _target_reading(
    num_dimensions: int, data: Data, plan: TransformPlan, settings: DataSettings
) -> tuple[_Reading, TargetKind]:
    """What targets of so many dimensions say.

    Where the network gives several channels, arrays without channels hold class numbers, whether or not
    ``target_is_mask`` says so: nothing else fits. With one channel they are values, or a mask, inside which is
    everything above 0.
    """
    has_channels = num_dimensions > settings.num_target_axes
    if settings.num_classes > 1 and not has_channels:
        convert = partial(_as_classes, num_classes=settings.num_classes, ignore_index=settings.ignore_index)
        return _Reading(convert, settings.num_target_axes, plan, is_mask=True), TargetKind.CLASSES
    if not data.target_is_mask:
        return _Reading(_as_values, settings.num_target_axes, plan), TargetKind.VALUES
    if settings.num_classes > 1:
        raise ConfigurationError(
            "data.target_is_mask is true, and the targets have channels: masks of class numbers have none"
        )
    return _Reading(_as_mask, settings.num_target_axes, plan, is_mask=True), TargetKind.BINARY


def _as_values(array: NDArray[Any]) -> NDArray[np.float32]:
    return array.astype(np.float32)


def _as_mask(array: NDArray[Any]) -> NDArray[np.uint8]:
    return (array > 0).astype(np.uint8)


def _as_classes(array: NDArray[Any], num_classes: int, ignore_index: int | None) -> NDArray[np.integer]:
    with np.errstate(invalid="ignore"):  # what does not fit the type is found by the comparison
        classes = array.astype(class_number_type(num_classes, ignore_index))
    is_known = (classes == array) & (classes >= 0) & (classes < num_classes)
    if ignore_index is not None:
        is_known |= array == ignore_index
    if not is_known.all():
        raise DataError(
            f"the value {array[~is_known][0]} is none of the classes 0 to {num_classes - 1} of the network: "
            "give class numbers, or values with their channels in front"
        )
    return classes
