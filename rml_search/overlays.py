"""One image with the contours of the true and the predicted lesion, as pixels: for pages and other programs."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from rml_search.gallery_rows import THRESHOLD, GalleryRow
from rml_search.images import Mask, Pixels

# Okabe and Ito's palette: told apart with any kind of colour vision, and by their lightness in print.
TRUTH_COLOUR = (86, 180, 233)  #: sky blue, drawn solid
PREDICTION_COLOUR = (230, 159, 0)  #: orange, drawn dashed
_HALO_COLOUR = (0, 0, 0)  #: under each line, so that it stands out from bright tissue
_MIN_SIDE = 384  #: pixels of the shorter side: as wide as a phone
_SHARE_OF_LINE = 0.009  #: of the shorter side
_SHARE_OF_DASH = 0.03

_Points = npt.NDArray[np.int32]


def draw_overlay(row: GalleryRow, *, min_side: int = _MIN_SIDE) -> Pixels:
    """Draws the truth as a solid blue line and, above it, the prediction as a dashed orange one.

    Returns:
        the image (H,W,3) of uint8, red first; its shorter side is enlarged to ``min_side`` pixels if it had fewer.
    """
    picture = draw_plain(row, min_side=min_side)
    shorter = min(picture.shape[:2])
    thickness = max(1, round(shorter * _SHARE_OF_LINE))
    if row.target is not None:
        for contour in _contours(_enlarge(row.target.astype(np.float32), picture) > THRESHOLD):
            _draw_line(picture, [contour], TRUTH_COLOUR, thickness, closed=True)
    for contour in _contours(_enlarge(row.prediction, picture) > THRESHOLD):
        _draw_line(picture, _dashes(contour, shorter * _SHARE_OF_DASH), PREDICTION_COLOUR, thickness, closed=False)
    return picture


def draw_plain(row: GalleryRow, *, min_side: int = _MIN_SIDE) -> Pixels:
    """The image alone, (H,W,3) of uint8, at the size of :func:`draw_overlay`'s."""
    height, width = row.image.shape[:2]
    factor = max(1.0, min_side / min(height, width))
    colour = row.image if row.image.ndim == 3 else np.repeat(row.image[..., None], 3, axis=2)
    size = (round(width * factor), round(height * factor))
    return np.array(cv2.resize(colour, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def encode_png(picture: Pixels) -> bytes:
    """The bytes of a PNG file of a picture (H,W,3), red first."""
    _, encoded = cv2.imencode(".png", picture[..., ::-1])
    return encoded.tobytes()


def _enlarge(values: npt.NDArray[np.float32], picture: Pixels) -> npt.NDArray[np.float32]:
    height, width = picture.shape[:2]
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def _contours(mask: Mask) -> Sequence[_Points]:
    """The borders of the regions of a mask and of their holes, every pixel (N,2) of them."""
    found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [np.asarray(contour, np.int32).reshape(-1, 2) for contour in found]


def _dashes(contour: _Points, length: float) -> list[_Points]:
    """Cuts a closed line into dashes of about ``length`` pixels with gaps of the same length."""
    closed = np.concatenate([contour, contour[:1]])
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    num_dashes = max(1, round(travelled[-1] / (2 * length)))
    starts = np.arange(num_dashes) * travelled[-1] / num_dashes
    ends = starts + 0.5 * travelled[-1] / num_dashes
    return [closed[(travelled >= start) & (travelled <= end)] for start, end in zip(starts, ends, strict=True)]


def _draw_line(
    picture: Pixels, lines: Sequence[_Points], colour: tuple[int, int, int], thickness: int, *, closed: bool
) -> None:
    drawn = [line for line in lines if len(line)]
    cv2.polylines(picture, drawn, closed, _HALO_COLOUR, thickness + 2, cv2.LINE_AA)
    cv2.polylines(picture, drawn, closed, colour, thickness, cv2.LINE_AA)
