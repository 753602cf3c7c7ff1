"""Reading pictures and masks of any mode that Pillow knows, with errors that name the file."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from rml_search.errors import DataSetError

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


_COLOURED = frozenset({"RGB", "P", "CMYK", "YCbCr", "LAB", "HSV"})
#: what Pillow raises for files that it cannot read
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning)


def decode(source: Path | bytes, name: str) -> Image.Image:
    """Decodes a whole picture as it is stored; its ``format`` and EXIF data are kept.

    ``name`` is what an error calls the file. Raises :class:`DataSetError` for a file that is missing, truncated,
    no picture at all, or larger than Pillow's limit against decompression bombs.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                image.load()
                return image
    except UNREADABLE as error:
        raise unreadable(name, error) from error


def read_image(source: Path | bytes, name: str) -> Image.Image:
    """Decodes a whole picture and turns it as its EXIF orientation says; errors as :func:`decode` has them."""
    return ImageOps.exif_transpose(decode(source, name))


def unreadable(name: str, error: BaseException) -> DataSetError:
    """Says in one line which picture cannot be read, and why."""
    if isinstance(error, FileNotFoundError):
        return DataSetError(f"{name} does not exist")
    if isinstance(error, UnidentifiedImageError):
        return DataSetError(f"{name} is not an image, or is damaged: replace or remove it")
    reason = " ".join(str(error).split()) or type(error).__name__
    return DataSetError(f"{name} cannot be read as an image ({reason}): replace or remove it")


def to_grey(image: Image.Image) -> Pixels:
    """Returns the luminance (H,W), 0 to 255; what is transparent is black, and 16 bits are scaled down to 8."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        scale = 65535 if values.max(initial=0) > 255 else 255
        return np.asarray(np.clip(values * (255 / scale), 0, 255).round(), dtype=np.uint8)
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.asarray(image.convert("L"))


def to_display(image: Image.Image) -> Pixels:
    """Returns (H,W,3) of a coloured picture, (H,W) of any other."""
    if image.mode in _COLOURED and not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    return to_grey(image)


def to_mask(image: Image.Image) -> Mask:
    """Returns where (H,W) the lesion is drawn.

    Lesion is what is brighter than half of the range, 127 of 8 bits and 32767 of 16: so lossy formats and smooth edges
    do no harm. In a mask that has nothing so bright (0/1, class numbers, a palette of dark colours) all but black is
    lesion. Colours count by their luminance, as in :func:`to_grey`. Our engine reads masks by the same rule.
    """
    values, half = (np.asarray(image), 32767) if image.mode.startswith("I") else (to_grey(image), 127)
    return np.asarray(values > (half if values.max(initial=0) > half else 0))
