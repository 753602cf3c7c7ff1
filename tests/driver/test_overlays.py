"""The picture of one image: which contour lies where, in which colour and style."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rml_search.gallery_rows import GalleryRow
from rml_search.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, draw_overlay, draw_plain, encode_png

TRUTH = np.zeros((40, 60), dtype=bool)
TRUTH[10:30, 10:30] = True
PREDICTED = np.zeros((40, 60), dtype=np.float32)
PREDICTED[10:30, 35:55] = 0.9
IMAGE = np.full((40, 60), 90, dtype=np.uint8)


def where(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.abs(picture.astype(int) - colour).max(axis=2) < 30


def extent(found: np.ndarray) -> list[float]:
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    return [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]


def test_contours_lie_where_the_masks_do() -> None:
    """Ten times enlarged: the truth at 100 to 300 of both, the prediction at 350 to 550 of the columns."""
    picture = draw_overlay(GalleryRow("a", IMAGE, PREDICTED, TRUTH), min_side=400)
    assert picture.shape == (400, 600, 3)
    np.testing.assert_allclose(extent(where(picture, TRUTH_COLOUR)), [100, 300, 100, 300], atol=6)
    np.testing.assert_allclose(extent(where(picture, PREDICTION_COLOUR)), [100, 300, 350, 550], atol=6)
    assert (picture[200, 200] == 90).all(), "the inside of a lesion is left as it is"


def test_truth_is_solid_and_prediction_dashed() -> None:
    """Along the upper side of each square: the one has no gap, of the other half is drawn, and its ends."""
    picture = draw_overlay(GalleryRow("a", IMAGE, PREDICTED, TRUTH), min_side=400)
    assert where(picture, TRUTH_COLOUR)[95:107, 110:290].any(axis=0).all()
    drawn = where(picture, PREDICTION_COLOUR)[95:107, 360:540].any(axis=0)
    assert 0.45 < drawn.mean() < 0.8
    assert np.count_nonzero(np.diff(drawn.astype(int)) == 1) >= 5


def test_both_are_seen_where_they_coincide() -> None:
    picture = draw_overlay(GalleryRow("a", IMAGE, TRUTH.astype(np.float32), TRUTH))
    assert where(picture, TRUTH_COLOUR).sum() > 300
    assert where(picture, PREDICTION_COLOUR).sum() > 300


def test_nothing_to_draw() -> None:
    row = GalleryRow("a", IMAGE, np.zeros((40, 60), np.float32), np.zeros((40, 60), dtype=bool))
    np.testing.assert_array_equal(draw_overlay(row), draw_plain(row))
    assert (draw_plain(row) == 90).all()


def test_a_single_pixel_is_seen() -> None:
    row = GalleryRow("a", IMAGE, np.zeros((40, 60), np.float32), np.zeros((40, 60), dtype=bool))
    row.prediction[3, 3] = 1
    assert where(draw_overlay(row), PREDICTION_COLOUR).any()


@pytest.mark.parametrize("height", [40, 1000])
def test_large_images_keep_their_size(height: int) -> None:
    zeros = np.zeros((height, 2 * height), np.float32)
    picture = draw_plain(GalleryRow("a", zeros.astype(np.uint8), zeros), min_side=200)
    assert picture.shape[:2] == ((200, 400) if height == 40 else (1000, 2000))


def test_png_keeps_the_colours() -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 0] = (230, 159, 0)
    with Image.open(io.BytesIO(encode_png(picture))) as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
