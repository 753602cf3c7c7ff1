"""Image files and their pixels as 8-bit arrays.

Pixels are uint8 arrays of (height, width, channels), channels in the order red, green, blue. Every error is
a ``DataError`` that names the file or folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from rmldnn_contract.exit_status import DataError, MemoryExhaustedError
from rmldnn_torch.sample_files import SampleFile, list_files
from rmldnn_torch.transforms import class_number_type

Pixels: TypeAlias = NDArray[np.uint8]
_Values = TypeVar("_Values", bound=NDArray[Any])

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jp2", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pbm", ".pgm", ".ppm", ".pnm"}
)
# What Pillow calls the pixels of 16-bit grey images, by byte order.
_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})


# Images larger than this are taken for a mistake or an attack: a small file can claim any size.
MAX_PIXELS = 2**28
# Pillow's own limit is lower, warns on standard error and names no file; ``_read`` looks itself.
Image.MAX_IMAGE_PIXELS = None


def list_images(folder: Path) -> tuple[SampleFile, ...]:
    """The images in a folder and those below it, sorted by name; hidden files and folders are passed over."""
    return list_files(folder, SUFFIXES, "images")


def read_image(path: Path, *, gray: bool) -> Pixels:
    """An image as (height, width, 1) where ``gray``, else (height, width, 3).

    Rotated as its EXIF data say; grey values weigh colours as ITU-R 601 does (Pillow's ``convert("L")``);
    16-bit values are divided by 257; transparent images are laid on black.
    """
    return _read(path, lambda image: _gray(image) if gray else _rgb(image))


def read_binary_mask(path: Path) -> Pixels:
    """A mask of one class as (height, width, 1), 1 inside and 0 outside.

    Inside is what is brighter than half of the range, 127 of 8 bits and 32767 of 16: so lossy formats and smooth edges
    do no harm. In a mask that has nothing so bright (0/1, class numbers, a palette of dark colours) all but black is
    inside. Colours count by their luminance, as in :func:`read_image`. The driver reads masks by the same rule.
    """

    def convert(image: Image.Image) -> Pixels:
        return _inside(_sixteen_bits(image) if _has_sixteen_bits(image) else _gray(image)[..., 0], image)

    return _read(path, convert)


def read_class_mask(path: Path, num_classes: int, ignore_index: int | None = None) -> NDArray[np.integer]:
    """A mask of class numbers, (height, width, 1), from 0 to ``num_classes`` - 1, or ``ignore_index``.

    The number is the grey value, in palette images the palette's index. With two classes a mask of two
    levels (0/255) is read as ``read_binary_mask`` does. Any other value is an error.
    """
    # No image has negative numbers, so that such an ``ignore_index`` needs no room.
    kind = class_number_type(num_classes, max(ignore_index or 0, 0))

    def convert(image: Image.Image) -> NDArray[np.integer]:
        values = _class_numbers(image)
        allowed = np.append(np.arange(num_classes), [] if ignore_index is None else ignore_index)
        strange = np.setdiff1d(values, allowed)
        if strange.size and num_classes == 2 and np.unique(values).size <= 2:
            return _inside(values, image).astype(kind)
        if strange.size:
            raise DataError(f"value {strange[0]} in the mask {path}: the network has classes 0 to {num_classes - 1}")
        return values.astype(kind)[..., np.newaxis]

    return _read(path, convert)


def _inside(values: NDArray[np.integer], image: Image.Image) -> Pixels:
    half = 32767 if _has_sixteen_bits(image) else 127
    return (values > (half if values.max() > half else 0)).astype(np.uint8)[..., np.newaxis]


def _class_numbers(image: Image.Image) -> NDArray[np.integer]:
    if image.mode in {"L", "P"}:
        return np.asarray(image)
    if _has_sixteen_bits(image):
        return _sixteen_bits(image)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    colors = _rgb(image)
    if (colors != colors[..., :1]).any():
        raise DataError("a mask in colours: write the class numbers as grey values or palette indices")
    return colors[..., 0]


def _gray(image: Image.Image) -> Pixels:
    if _has_sixteen_bits(image):
        return _eight_bits(image)
    return np.asarray(_on_black(image).convert("L"))[..., np.newaxis]


def _rgb(image: Image.Image) -> Pixels:
    if _has_sixteen_bits(image):
        return np.repeat(_eight_bits(image), 3, axis=2)
    return np.asarray(_on_black(image).convert("RGB"))


def _has_sixteen_bits(image: Image.Image) -> bool:
    return image.mode == "I" or image.mode in _SIXTEEN_BIT_MODES


def _sixteen_bits(image: Image.Image) -> NDArray[np.int64]:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise DataError("values beyond 16 bits: convert it to 8 or 16 bits")
    return values


def _eight_bits(image: Image.Image) -> Pixels:
    return np.asarray((_sixteen_bits(image) + 128) // 257, dtype=np.uint8)[..., np.newaxis]


def _on_black(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise DataError("floating-point pixels: convert it to 8 or 16 bits")
    if not image.has_transparency_data:
        return image
    colored = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colored.size, (0, 0, 0, 255)), colored)


def _read(path: Path, convert: Callable[[Image.Image], _Values]) -> _Values:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS:,}: make it smaller")
            return convert(ImageOps.exif_transpose(image))
    except MemoryError as error:
        raise MemoryExhaustedError(f"the image {path} does not fit into memory: make it smaller") from error
    except DataError as error:
        message = str(error)
        raise DataError(message if str(path) in message else f"the image {path} has {message}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is no image that can be read: replace or remove it") from error
    except Exception as error:  # broken files make Pillow's decoders raise nearly anything
        raise DataError(f"cannot read the image {path}: {_one_line(error)}; replace or remove it") from error


def _one_line(error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split()) or type(error).__name__
