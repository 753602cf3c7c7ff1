"""Masks, and what is inside them: engine and driver read masks each for itself, but by one rule.

Every case is one row of pixels; ``inside`` has a 1 for each that lies inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class MaskCase:
    """A mask as an image file of the given suffix would hold it."""

    image: Image.Image
    inside: tuple[int, ...]
    suffix: str = ".png"


def _gray(*values: int, dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=dtype))


def _palette(*indices: int, colors: list[int]) -> Image.Image:
    image = Image.new("P", (len(indices), 1))
    image.putpalette(colors)
    image.putdata(indices)
    return image


def _opaque_where(*alpha: int) -> Image.Image:
    """White everywhere, but transparent where ``alpha`` is 0."""
    return Image.fromarray(np.array([[(255, 255, 255, value) for value in alpha]], dtype=np.uint8))


_DARK = [0, 0, 0, 128, 0, 0, 0, 128, 0]  # the first colours of the masks of Pascal VOC

MASK_CASES = {
    "black": MaskCase(_gray(0, 0, 0), (0, 0, 0)),
    "white": MaskCase(_gray(255, 255), (1, 1)),
    "0/255": MaskCase(_gray(0, 255, 0), (0, 1, 0)),
    "0/1": MaskCase(_gray(0, 1, 0), (0, 1, 0)),
    "class numbers": MaskCase(_gray(0, 1, 2), (0, 1, 1)),
    "no pixel outside": MaskCase(_gray(1, 1, 1), (1, 1, 1)),
    "dark levels up to the half": MaskCase(_gray(0, 3, 126, 127), (0, 1, 1, 1)),
    "a bright level": MaskCase(_gray(0, 3, 127, 128), (0, 0, 0, 1)),
    "a lossy format's": MaskCase(_gray(9, 240), (0, 1)),
    "smooth edges": MaskCase(_gray(0, 64, 128, 192, 255), (0, 0, 1, 1, 1)),
    "one bit": MaskCase(Image.fromarray(np.array([[False, True]])), (0, 1)),
    "colours": MaskCase(_gray(0, 255).convert("RGB"), (0, 1)),
    "red on black": MaskCase(Image.fromarray(np.array([[(0, 0, 0), (255, 0, 0)]], dtype=np.uint8)), (0, 1)),
    "dark palette": MaskCase(_palette(0, 1, 2, colors=_DARK), (0, 1, 1)),
    "bright palette": MaskCase(_palette(0, 1, colors=[40, 40, 40, 250, 250, 250]), (0, 1)),
    "transparent around": MaskCase(_opaque_where(0, 255), (0, 1)),
    "16 bits, 0/65535": MaskCase(_gray(0, 65535, dtype=np.uint16), (0, 1)),
    "16 bits, 0/1": MaskCase(_gray(0, 1, 0, dtype=np.uint16), (0, 1, 0)),
    "16 bits, 0/255": MaskCase(_gray(0, 100, 255, dtype=np.uint16), (0, 1, 1)),
    "16 bits, dark levels": MaskCase(_gray(0, 1, 300, 32767, dtype=np.uint16), (0, 1, 1, 1)),
    "16 bits, a bright level": MaskCase(_gray(0, 20000, 32767, 32768, dtype=np.uint16), (0, 0, 0, 1)),
    "32 bits, 0/1": MaskCase(_gray(0, 1, dtype=np.int32), (0, 1), ".tif"),  # PNG has no 32 bits
    "32 bits, 0/255": MaskCase(_gray(0, 255, dtype=np.int32), (0, 1), ".tif"),
}
