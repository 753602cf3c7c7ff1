"""Image folders as a :class:`~rmldnn_torch.data.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rmldnn_contract.data import Data
from rmldnn_contract.exit_status import DataError
from rmldnn_torch.augmentation import Samples
from rmldnn_torch.data import DataSettings, TargetKind
from rmldnn_torch.devices import num_cpus
from rmldnn_torch.images import (
    ImageFile,
    Pixels,
    list_images,
    pair,
    read_binary_mask,
    read_class_mask,
    read_image,
)
from rmldnn_torch.transforms import TransformPlan, transform_pixels

Reader = Callable[[Path], Pixels]


@dataclass(frozen=True)
class ImageSet:
    """Image files, and what gives the pixels of one after its fixed transforms."""

    files: Sequence[ImageFile]
    read: Reader


class ImageDataset:
    """Images, each with its target if there are any, decoded in threads.

    Args:
        inputs: in the order of their names.
        targets: as many, in the order of their inputs; None for inference without targets.
        target_kind: what the targets say; None without targets.
        keep_on: read everything now and keep it on this device as uint8; None: read each batch when its turn comes.

    Raises:
        DataError: an image cannot be read (now, or when its batch is fetched).
    """

    kind = "images"

    def __init__(
        self,
        inputs: ImageSet,
        targets: ImageSet | None,
        target_kind: TargetKind | None,
        keep_on: torch.device | None,
    ) -> None:
        self.names = tuple(file.name for file in inputs.files)
        self.target_kind = target_kind
        self.is_in_memory = keep_on is not None
        self._inputs = _Pixels(inputs)
        self._targets = None if targets is None else _Pixels(targets)
        for pixels in (self._inputs, self._targets):
            if keep_on is not None and pixels is not None:
                pixels.keep(keep_on)

    def fetch(self, indices: Sequence[int]) -> tuple[Samples, Samples | None]:
        """Inputs and targets of these samples, uint8 with channels last."""
        return self._inputs.fetch(indices), None if self._targets is None else self._targets.fetch(indices)


class _Pixels:
    """The pixels of image files, read as they are asked for or kept in memory."""

    def __init__(self, images: ImageSet) -> None:
        self._paths = [file.path for file in images.files]
        self._read = images.read
        self._kept: Samples | None = None

    def keep(self, device: torch.device) -> None:
        with _decoders() as threads:
            kept = _gather(self._read_all(threads, self._paths), len(self._paths))
        self._kept = kept.to(device) if isinstance(kept, Tensor) else [image.to(device) for image in kept]

    def fetch(self, indices: Sequence[int]) -> Samples:
        if isinstance(self._kept, Tensor):
            return self._kept[torch.tensor(indices, device=self._kept.device)]
        if self._kept is not None:
            return _gather((self._kept[index] for index in indices), len(indices))
        return _gather(self._read_all(self._threads, [self._paths[index] for index in indices]), len(indices))

    def _read_all(self, threads: ThreadPoolExecutor, paths: Sequence[Path]) -> Iterator[Tensor]:
        for pixels in threads.map(self._read, paths):
            # Pillow's arrays are read-only, which torch does not take; those that were resized are not copied.
            yield torch.from_numpy(np.require(pixels, requirements=["C", "W"]))

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return _decoders()


def _decoders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=num_cpus(), thread_name_prefix="decoder")


def _gather(images: Iterable[Tensor], count: int) -> Samples:
    """One tensor of all images as they come, or a list where their shapes differ."""
    remaining = iter(images)
    first = next(remaining)
    together = first.new_empty((count, *first.shape))
    together[0] = first
    for index, image in enumerate(remaining, start=1):
        if image.shape != first.shape:
            return [*together[:index], image, *remaining]
        together[index] = image
    return together


def open_image_folders(
    folders: tuple[Path, Path | None],
    data: Data,
    plans: tuple[TransformPlan, TransformPlan],
    settings: DataSettings,
) -> ImageDataset:
    """The images of a folder and their targets, read as the document's ``data`` says.

    Args:
        folders: of inputs and of targets; without the second the data set has no targets.
        data: whether images are grey, targets masks, and all of it kept in memory.
        plans: the transforms of inputs and of targets.
        settings: with one class, masks are of one class; with more, of class numbers.
    """
    inputs = list_images(folders[0])
    read_input = _then(partial(read_image, gray=data.reads_gray_inputs), plans[0], is_mask=False)
    targets, kind = None, None
    if folders[1] is not None:
        kind = _target_kind(data, settings.num_classes)
        read_target = _then(_target_reader(data, kind, settings), plans[1], is_mask=kind.is_mask)
        targets = ImageSet(pair(inputs, list_images(folders[1])), read_target)
    return ImageDataset(ImageSet(inputs, read_input), targets, kind, settings.device if data.preload else None)


def _target_kind(data: Data, num_classes: int) -> TargetKind:
    if not data.target_is_mask:
        return TargetKind.VALUES
    return TargetKind.BINARY if num_classes == 1 else TargetKind.CLASSES


def _target_reader(data: Data, kind: TargetKind, settings: DataSettings) -> Reader:
    if kind is TargetKind.BINARY:
        return read_binary_mask
    if kind is TargetKind.CLASSES:
        return partial(read_class_mask, num_classes=settings.num_classes, ignore_index=settings.ignore_index)
    return partial(read_image, gray=data.reads_gray_targets)


def _then(read: Reader, plan: TransformPlan, *, is_mask: bool) -> Reader:
    def read_and_transform(path: Path) -> Pixels:
        try:
            return transform_pixels(read(path), plan.once, is_mask=is_mask)
        except DataError as error:
            raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from error

    return read_and_transform
