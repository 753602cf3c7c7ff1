"""Dice, IoU and the Hausdorff distance, against hand computations and a computation without any transform."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rml_search.segmentation_scores import Overlap, dice_coefficient, hausdorff_distance, measure_overlap

EMPTY, FULL = np.zeros((3, 3), dtype=bool), np.ones((3, 3), dtype=bool)


@st.composite
def pairs_of_masks(draw):
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    return draw(arrays(bool, shape)), draw(arrays(bool, shape))


def square(top: int, left: int, side: int = 3, size: int = 12) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def border_points(mask: np.ndarray) -> list[tuple[int, int]]:
    """Pixels of the mask with a neighbour above, below, left or right that is not in it, or outside the image."""
    inside = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    return [(r, c) for r, c in inside if any((r + dr, c + dc) not in inside for dr, dc in steps)]


def percentile_of(values: list[float], percentile: float) -> float:
    """Linear interpolation between the two nearest ranks."""
    place = (len(values) - 1) * percentile / 100
    low, high = sorted(values)[math.floor(place)], sorted(values)[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def compare_all_points(prediction: np.ndarray, truth: np.ndarray, percentile: float) -> float:
    a, b = border_points(prediction), border_points(truth)
    return max(
        percentile_of([min(math.dist(p, q) for q in there) for p in here], percentile)
        for here, there in [(a, b), (b, a)]
    )


def test_overlap_by_hand() -> None:
    """6 and 4 pixels, 3 of them in common: 2 * 3 / 10, and 3 / 7."""
    overlap = Overlap(num_common=3, num_predicted=6, num_true=4)
    assert overlap.dice == pytest.approx(0.6)
    assert overlap.iou == pytest.approx(3 / 7)


def test_pixels_are_counted() -> None:
    assert measure_overlap(square(0, 0), square(1, 1)) == Overlap(4, 9, 9)
    assert Overlap(4, 9, 9) + Overlap(1, 2, 3) == Overlap(5, 11, 12)


def test_empty_masks() -> None:
    assert (measure_overlap(EMPTY, EMPTY).dice, measure_overlap(EMPTY, EMPTY).iou) == (1, 1)
    assert (measure_overlap(EMPTY, FULL).dice, measure_overlap(FULL, EMPTY).iou) == (0, 0)
    assert hausdorff_distance(EMPTY, EMPTY) is None
    assert hausdorff_distance(EMPTY, FULL) is None
    assert hausdorff_distance(FULL, EMPTY) is None


@given(pairs_of_masks())
def test_iou_follows_from_dice(masks) -> None:
    overlap = measure_overlap(*masks)
    assert overlap.iou == pytest.approx(overlap.dice / (2 - overlap.dice))


@settings(deadline=None)  # the first call imports SciPy
@given(pairs_of_masks(), st.sampled_from([50.0, 95.0, 100.0]))
def test_distance_is_that_of_all_pairs_of_border_points(masks, percentile) -> None:
    prediction, truth = masks
    distance = hausdorff_distance(prediction, truth, percentile)
    if prediction.any() and truth.any():
        assert distance == pytest.approx(compare_all_points(prediction, truth, percentile))
    else:
        assert distance is None


def test_distance_of_single_points_by_hand() -> None:
    """3 rows and 4 columns apart: 5 pixels."""
    assert hausdorff_distance(square(1, 2, side=1), square(4, 6, side=1)) == 5


def test_distance_of_shifted_squares_by_hand() -> None:
    """One of 3x3 is moved by 2: the farthest column of its border is 2 away, 3 of 8 points, so the 95th percentile."""
    assert hausdorff_distance(square(2, 2), square(2, 4)) == 2


def test_percentile_passes_over_a_speck() -> None:
    """One point of 101 lies 90 away, fewer than the twentieth part: the other 100 coincide with the truth."""
    truth = np.zeros((1, 200), dtype=bool)
    truth[0, :100] = True
    prediction = truth.copy()
    prediction[0, 189] = True
    assert hausdorff_distance(prediction, truth) == 0
    assert hausdorff_distance(prediction, truth, 100) == 90


def test_the_larger_direction_counts() -> None:
    """A speck 7 pixels off counts for the prediction's direction alone; swapped, the distance is the same."""
    truth, prediction = square(0, 0, side=1), square(0, 0, side=1)
    prediction[0, 7] = True
    assert hausdorff_distance(prediction, truth) == hausdorff_distance(truth, prediction) == pytest.approx(0.95 * 7)


@pytest.mark.parametrize("measure", [dice_coefficient, hausdorff_distance])
def test_masks_of_different_shapes(measure) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        measure(np.zeros((3, 3), dtype=bool), np.zeros((1, 3), dtype=bool))
