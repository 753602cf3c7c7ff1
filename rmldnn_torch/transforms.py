"""The transforms of the document, split into what is done once and what is done anew for each batch.

What is fixed (resize, crop, rotation, colours) happens to an image or array right after it is read and is kept with
it. From the first random transform on, geometry belongs to ``augmentation``, which works on batches. Scaling
by ``normalize`` and the blanking of ``random_patches`` come last, whatever their place in the list: pixels
that a rotation brings in are black, not the mean colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from rmldnn_contract.data import (
    CenterCrop,
    ConvertColor,
    JitterCrop,
    MeanAndDeviation,
    Normalize,
    Patches,
    RandomHorizontalFlip,
    RandomPatches,
    RandomRotate,
    RandomVerticalFlip,
    RandomZoom,
    Resize,
    Rotate,
    Transform,
)
from rmldnn_contract.exit_status import ConfigurationError, DataError, EngineError, MemoryExhaustedError
from rmldnn_contract.names import unknown_name

RandomGeometry: TypeAlias = JitterCrop | RandomHorizontalFlip | RandomVerticalFlip | RandomZoom | RandomRotate
FixedGeometry: TypeAlias = Resize | CenterCrop | Rotate
Geometry: TypeAlias = RandomGeometry | FixedGeometry

AnyArray: TypeAlias = NDArray[Any]

_RANDOM = (JitterCrop, RandomHorizontalFlip, RandomVerticalFlip, RandomZoom, RandomRotate)
_FIXED = (Resize, CenterCrop, Rotate)


@dataclass(frozen=True)
class TransformPlan:
    """The transforms of inputs or of targets, in the order in which they are carried out.

    Attributes:
        once: on the decoded image.
        each_time: geometry for each batch; begins with a random transform, if there is any.
        patches: squares that are blanked out of inputs, and all that is left of targets.
        scaling: means and standard deviations.
    """

    once: tuple[FixedGeometry | ConvertColor, ...] = ()
    each_time: tuple[Geometry, ...] = ()
    patches: tuple[Patches, ...] = ()
    scaling: tuple[MeanAndDeviation, ...] = ()

    @property
    def random(self) -> tuple[RandomGeometry, ...]:
        """The random transforms, which inputs and targets must share."""
        return tuple(step for step in self.each_time if isinstance(step, _RANDOM))


def plan_transforms(transforms: Sequence[Transform], *, training: bool) -> TransformPlan:
    """Splits a list of transforms; where there is no training, random geometry is left out.

    ``random_patches`` stay in an evaluation: an inpainting network is tested on them.
    """
    once: list[FixedGeometry | ConvertColor] = []
    each_time: list[Geometry] = []
    for step in transforms:
        if isinstance(step, ConvertColor) or (isinstance(step, _FIXED) and not each_time):
            once.append(step)
        elif isinstance(step, _FIXED) or (isinstance(step, _RANDOM) and training):
            each_time.append(step)
    return TransformPlan(
        once=tuple(once),
        each_time=tuple(each_time),
        patches=tuple(step.random_patches for step in transforms if isinstance(step, RandomPatches)),
        scaling=tuple(step.normalize for step in transforms if isinstance(step, Normalize)),
    )


def class_number_type(num_classes: int, ignore_index: int | None) -> type[np.integer[Any]]:
    """The smallest type for the class numbers of masks, the ignored one among them, that OpenCV turns and resizes."""
    numbers = (0, num_classes - 1, ignore_index or 0)
    types: tuple[type[np.integer[Any]], ...] = (np.uint8, np.int16)
    holding = (kind for kind in types if np.iinfo(kind).min <= min(numbers) and max(numbers) <= np.iinfo(kind).max)
    return next(holding, np.int32)


def transform_array(array: AnyArray, steps: Sequence[FixedGeometry | ConvertColor], *, is_mask: bool) -> AnyArray:
    """Carries out fixed transforms on one (height, width, channels) image or array of numbers, and keeps its type.

    Images are interpolated bilinearly without antialiasing (OpenCV's ``INTER_LINEAR``, which rmldnn's
    documentation suggests), masks take the nearest pixel, with the same pixel centres
    (``INTER_NEAREST_EXACT``). Colours of masks are left as they are. Without steps, an array may have any axes.

    Raises:
        DataError: a transform does not take such an array.
        MemoryExhaustedError: what it makes of the array does not fit into memory.
    """
    for step in steps:
        try:
            array = _transform(step, array, is_mask)
        except cv2.error as error:
            raise _refusal(step, array, error) from error
        if array.ndim == 2:  # OpenCV drops a single channel
            array = array[..., np.newaxis]
    return array


def _refusal(step: FixedGeometry | ConvertColor, array: AnyArray, error: cv2.error) -> EngineError:
    """What OpenCV's error says of a transform, in one line."""
    key, setting = next(iter(step.model_dump(mode="json").items()))
    if getattr(error, "code", None) == cv2.Error.StsNoMem:  # errors of its own argument parser have no code
        return MemoryExhaustedError(f"{key} {setting} makes an image that does not fit into memory: choose less")
    return DataError(f"{key} {setting} does not take {array.shape[2]} channels of {array.dtype}")


@singledispatch
def _transform(step: object, _image: AnyArray, _is_mask: bool) -> AnyArray:
    raise TypeError(f"{type(step).__name__} is not carried out once")


@_transform.register
def _(step: Resize, image: AnyArray, is_mask: bool) -> AnyArray:
    width, height = step.resize
    if image.shape[:2] == (height, width):
        return image
    interpolation = cv2.INTER_NEAREST_EXACT if is_mask else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=interpolation))


@_transform.register
def _(step: CenterCrop, image: AnyArray, _is_mask: bool) -> AnyArray:
    width, height = step.center_crop
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise DataError(f"center_crop [{width}, {height}] does not fit into {image.shape[1]}x{image.shape[0]} pixels")
    return image[top : top + height, left : left + width]


@_transform.register
def _(step: Rotate, image: AnyArray, is_mask: bool) -> AnyArray:
    height, width = image.shape[:2]
    # OpenCV turns counter-clockwise about a point given in coordinates whose pixel centres are whole numbers.
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -step.rotate, 1.0)
    interpolation = cv2.INTER_NEAREST if is_mask else cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=interpolation))


@_transform.register
def _(step: ConvertColor, image: AnyArray, is_mask: bool) -> AnyArray:
    if is_mask:
        return image
    return np.asarray(cv2.cvtColor(image, color_code(step.convert_color)))


def color_code(name: str) -> int:
    """OpenCV's number of a colour conversion such as ``BGR2RGB`` (with or without ``COLOR_`` in front)."""
    known = {key.removeprefix("COLOR_"): value for key, value in vars(cv2).items() if key.startswith("COLOR_")}
    code = known.get(name.upper().removeprefix("COLOR_"), known.get(name.removeprefix("COLOR_")))
    if code is None:
        raise ConfigurationError(unknown_name("color conversion", name, known))
    return int(code)
