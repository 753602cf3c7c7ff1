"""Image folders as a :class:`~rmldnn_torch.sources.Source`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rmldnn_contract.data import Data
from rmldnn_contract.exit_status import DataError, MemoryExhaustedError
from rmldnn_torch.data import DataSettings, TargetKind
from rmldnn_torch.images import read_binary_mask, read_class_mask, read_image
from rmldnn_torch.sample_files import SampleFile
from rmldnn_torch.sources import FileSource
from rmldnn_torch.transforms import AnyArray, TransformPlan, transform_array


def image_inputs(
    files: Sequence[SampleFile], data: Data, plan: TransformPlan, settings: DataSettings
) -> FileSource[SampleFile]:
    """Images as inputs: grey or in colours as ``data`` says, uint8."""
    read = partial(read_image, gray=data.reads_gray_inputs)
    recipe = f"inputs {data.reads_gray_inputs} {plan.once!r}"
    return FileSource(files, _then(read, plan, is_mask=False), settings.device if data.preload else None, recipe)


def image_targets(
    files: Sequence[SampleFile], data: Data, plan: TransformPlan, settings: DataSettings
) -> tuple[FileSource[SampleFile], TargetKind]:
    """Images as targets: masks of one class or of class numbers where ``data`` says masks, else values."""
    kind = _target_kind(data, settings.num_classes)
    read = _then(_target_reader(data, kind, settings), plan, is_mask=kind.is_mask)
    recipe = f"targets {kind} {settings.num_classes} {settings.ignore_index} {data.reads_gray_targets} {plan.once!r}"
    return FileSource(files, read, settings.device if data.preload else None, recipe), kind


def _target_kind(data: Data, num_classes: int) -> TargetKind:
    if not data.target_is_mask:
        return TargetKind.VALUES
    return TargetKind.BINARY if num_classes == 1 else TargetKind.CLASSES


def _target_reader(data: Data, kind: TargetKind, settings: DataSettings) -> Callable[[Path], AnyArray]:
    if kind is TargetKind.BINARY:
        return read_binary_mask
    if kind is TargetKind.CLASSES:
        return partial(read_class_mask, num_classes=settings.num_classes, ignore_index=settings.ignore_index)
    return partial(read_image, gray=data.reads_gray_targets)


def _then(read: Callable[[Path], AnyArray], plan: TransformPlan, *, is_mask: bool) -> Callable[[SampleFile], AnyArray]:
    def read_and_transform(file: SampleFile) -> AnyArray:
        try:
            return transform_array(read(file.path), plan.once, is_mask=is_mask)
        except (DataError, MemoryExhaustedError) as error:
            message = str(error)
            raise type(error)(message if str(file.path) in message else f"{file.path}: {message}") from error

    return read_and_transform
