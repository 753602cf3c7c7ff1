"""Random geometry, for whole batches on the device: every transform of the list in one interpolation.

Each transform says where a point of its result lies in its source, as a 3x3 matrix on pixel coordinates (x, y, 1)
in which pixel i covers the range from i to i + 1. The product of all of them leads from the last result
straight to the decoded image, which is then read once. Inputs and targets share the random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rmldnn_contract.data import (
    CenterCrop,
    JitterCrop,
    Patches,
    RandomHorizontalFlip,
    RandomRotate,
    RandomVerticalFlip,
    RandomZoom,
    Resize,
    Rotate,
)
from rmldnn_contract.exit_status import DataError
from rmldnn_torch.transforms import Geometry, RandomGeometry

_NUMBERS_FOR_A_TRANSFORM = 4

Matrix: TypeAlias = NDArray[np.float64]
Samples: TypeAlias = Tensor | list[Tensor]  #: (n, height, width, channels) uint8, or n of (height, width, channels)
_Numbers: TypeAlias = Sequence[float]  #: uniform in [0, 1)


@dataclass(frozen=True)
class _View:
    """A (height, width) result and the matrix from its pixels to those of the source."""

    matrix: Matrix
    height: int
    width: int


def draw(steps: Sequence[RandomGeometry], num_samples: int, generator: torch.Generator) -> Tensor:
    """The random numbers for a batch: (samples, random transforms, 4), uniform in [0, 1)."""
    return torch.rand(num_samples, len(steps), _NUMBERS_FOR_A_TRANSFORM, generator=generator)


def warp(images: Samples, steps: Sequence[Geometry], numbers: Tensor, *, nearest: bool) -> Tensor:
    """Carries out ``steps`` with the ``numbers`` of :func:`draw`.

    Args:
        images: pixels of one size, or of several where the steps bring them to one.
        steps: geometry in its order; the k-th random one takes ``numbers[:, k]``.
        numbers: as drawn.
        nearest: for masks; else bilinear. Points outside the image are 0.

    Returns:
        float32 (samples, channels, height, width), in the range of the pixels (0 to 255).

    Raises:
        DataError: the results differ in size.
    """
    views = [
        _compose(steps, values, height=image.shape[0], width=image.shape[1])
        for image, values in zip(images, numbers.tolist(), strict=True)
    ]
    sizes = {(view.height, view.width) for view in views}
    if len(sizes) != 1:
        raise DataError('the images of a batch differ in size after their transforms: end these with "resize"')
    thetas = np.stack([_theta(view, *image.shape[:2]) for view, image in zip(views, images, strict=True)])
    size = sizes.pop()
    if isinstance(images, Tensor):
        return _sample(images, thetas, size, nearest)
    alone = [_sample(image[None], theta[None], size, nearest) for image, theta in zip(images, thetas, strict=True)]
    return torch.cat(alone)


def _compose(steps: Sequence[Geometry], numbers: Sequence[_Numbers], *, height: int, width: int) -> _View:
    view = _View(np.eye(3), height, width)
    remaining = iter(numbers)
    for step in steps:
        values: _Numbers = () if isinstance(step, Resize | CenterCrop | Rotate) else next(remaining)
        made = _view(step, values, view.height, view.width)
        view = _View(view.matrix @ made.matrix, made.height, made.width)
    return view


def _theta(view: _View, height: int, width: int) -> Matrix:
    """The (2, 3) matrix of ``affine_grid``, whose coordinates run from -1 to 1 between the outer edges."""
    to_pixels = _scale(view.width / 2, view.height / 2) @ _shift(1, 1)
    from_pixels = _shift(-1, -1) @ _scale(2 / width, 2 / height)
    theta: Matrix = (from_pixels @ view.matrix @ to_pixels)[:2]
    return theta


def _sample(images: Tensor, thetas: Matrix, size: tuple[int, int], nearest: bool) -> Tensor:
    pixels = images.permute(0, 3, 1, 2).float()
    # In two steps, of which the second does not wait for what the device has still to do.
    theta = torch.from_numpy(thetas).to(pixels.dtype).to(pixels.device, non_blocking=True)
    grid = functional.affine_grid(theta, [len(pixels), pixels.shape[1], *size], align_corners=False)
    mode = "nearest" if nearest else "bilinear"
    sampled = functional.grid_sample(pixels, grid, mode=mode, padding_mode="border", align_corners=False)
    # Zero padding would also darken the outer half of the border's own pixels. The margin absorbs rounding.
    inside = (grid.abs() <= 1 + 1e-6).all(dim=-1)
    return sampled * inside[:, None]


@singledispatch
def _view(step: object, _numbers: _Numbers, _height: int, _width: int) -> _View:
    raise TypeError(f"{type(step).__name__} is no geometry")


@_view.register
def _(step: RandomHorizontalFlip, numbers: _Numbers, height: int, width: int) -> _View:
    flipped = numbers[0] < step.random_horizontal_flip
    return _View(_shift(width, 0) @ _scale(-1, 1) if flipped else np.eye(3), height, width)


@_view.register
def _(step: RandomVerticalFlip, numbers: _Numbers, height: int, width: int) -> _View:
    flipped = numbers[0] < step.random_vertical_flip
    return _View(_shift(0, height) @ _scale(1, -1) if flipped else np.eye(3), height, width)


@_view.register
def _(step: JitterCrop, numbers: _Numbers, height: int, width: int) -> _View:
    left, right = (int(step.jitter_crop * number * width / 2) for number in numbers[:2])
    top, bottom = (int(step.jitter_crop * number * height / 2) for number in numbers[2:4])
    return _View(_shift(left, top), height - top - bottom, width - left - right)


@_view.register
def _(step: RandomZoom, numbers: _Numbers, height: int, width: int) -> _View:
    cut = step.random_zoom * numbers[0]
    return _View(_shift(cut * width / 2, cut * height / 2) @ _scale(1 - cut, 1 - cut), height, width)


@_view.register
def _(step: RandomRotate, numbers: _Numbers, height: int, width: int) -> _View:
    return _View(_rotation((2 * numbers[0] - 1) * step.random_rotate, height, width), height, width)


@_view.register
def _(step: Rotate, _numbers: _Numbers, height: int, width: int) -> _View:
    return _View(_rotation(step.rotate, height, width), height, width)


@_view.register
def _(step: Resize, _numbers: _Numbers, height: int, width: int) -> _View:
    new_width, new_height = step.resize
    return _View(_scale(width / new_width, height / new_height), new_height, new_width)


@_view.register
def _(step: CenterCrop, _numbers: _Numbers, height: int, width: int) -> _View:
    new_width, new_height = step.center_crop
    left, top = (width - new_width) // 2, (height - new_height) // 2
    if top < 0 or left < 0:
        raise DataError(f"center_crop [{new_width}, {new_height}] does not fit into {width}x{height} pixels")
    return _View(_shift(left, top), new_height, new_width)


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def _scale(x: float, y: float) -> Matrix:
    return np.diag([x, y, 1]).astype(np.float64)


def _rotation(degrees: float, height: int, width: int) -> Matrix:
    """Where the points of an image that was turned clockwise about its centre come from."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    matrix: Matrix = _shift(width / 2, height / 2) @ turn @ _shift(-width / 2, -height / 2)
    return matrix


def patch_masks(images: Tensor, patches: Patches, generator: torch.Generator) -> Tensor:
    """Where ``patches.number`` squares at random places cover each of (n, channels, height, width) images.

    Returns:
        bool (n, 1, height, width).
    """
    num_samples, _, height, width = images.shape
    corners = torch.rand(2, num_samples, patches.number, 1, generator=generator)
    # A patch lies wholly within the image, or covers a side that is shorter than it.
    spans = torch.tensor([max(height - patches.size, 0) + 1, max(width - patches.size, 0) + 1])
    first = (corners * spans[:, None, None, None]).long().to(images.device, non_blocking=True)
    rows = torch.arange(height, device=images.device) - first[0]
    columns = torch.arange(width, device=images.device) - first[1]
    within_rows, within_columns = ((place >= 0) & (place < patches.size) for place in (rows, columns))
    return (within_rows[:, :, :, None] & within_columns[:, :, None, :]).any(dim=1, keepdim=True)
