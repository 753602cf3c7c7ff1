"""Near-duplicates: copies of a frame are found whatever was done to them, other frames are told apart.

How many of the real data set's known duplicates are found is in ``test_prepare_busi.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rml_search.errors import DataSetError
from rml_search.images import Pixels
from rml_search.near_duplicates import group_near_duplicates
from rml_search.synthetic import draw_scan

NUM_SCANS = 6


@pytest.fixture(scope="module")
def scans() -> list[Pixels]:
    return [draw_scan(288, np.random.default_rng([11, number]))[0] for number in range(NUM_SCANS)]


def crop(scan: Pixels) -> Pixels:
    return scan[20:230, 45:270]


def shrink_and_squeeze(scan: Pixels) -> Pixels:
    return np.asarray(cv2.resize(scan, (190, 160), interpolation=cv2.INTER_AREA))


def enlarge_crop(scan: Pixels) -> Pixels:
    return np.asarray(cv2.resize(scan[30:250, 10:240], (400, 380), interpolation=cv2.INTER_CUBIC))


def more_contrast(scan: Pixels) -> Pixels:
    return np.asarray(255 * (scan / 255.0) ** 1.7).astype(np.uint8)


def calipers_and_text(scan: Pixels) -> Pixels:
    marked = scan.copy()
    for x, y in ((90, 120), (200, 170), (150, 90), (140, 210)):
        cv2.drawMarker(marked, (x, y), 255, cv2.MARKER_TILTED_CROSS, 12)
    cv2.line(marked, (90, 120), (200, 170), 255)
    return burn_in(marked)


def burn_in(scan: Pixels) -> Pixels:
    """Write what a scanner writes on every frame."""
    marked = scan.copy()
    for row, text in enumerate(("LT BREAST 2 OCLOCK", "D 12.4 mm", "GAIN 62 DR 70")):
        cv2.putText(marked, text, (8, 236 + 18 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255)
    return marked


def as_jpeg(scan: Pixels) -> Pixels:
    _, data = cv2.imencode(".jpg", scan, [cv2.IMWRITE_JPEG_QUALITY, 60])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


def in_colour(scan: Pixels) -> Pixels:
    return np.stack([scan, scan, scan // 2], axis=2)


@pytest.mark.parametrize(
    "change", [crop, shrink_and_squeeze, enlarge_crop, more_contrast, calipers_and_text, as_jpeg, in_colour]
)
def test_changed_copies_are_found_and_nothing_else(scans: list[Pixels], change: Callable[[Pixels], Pixels]) -> None:
    copies = [change(scan) for scan in scans]
    assert group_near_duplicates([*scans, *copies]) == [*range(NUM_SCANS), *range(NUM_SCANS)]


def test_frames_that_share_only_the_text_on_them_are_different(scans: list[Pixels]) -> None:
    assert group_near_duplicates([burn_in(scan) for scan in scans]) == list(range(NUM_SCANS))


def test_tissue_with_other_speckle_is_a_different_frame() -> None:
    """The same smooth picture under two draws of noise: nothing but the speckle tells them apart."""
    tissue = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(256, 256)), (0, 0), 25)
    tissue = 120 + 60 * tissue / np.abs(tissue).max()
    frames = []
    for seed in range(2):
        rayleigh = np.hypot(*np.random.default_rng(seed + 1).normal(size=(2, 256, 256)))
        frames.append(np.clip(tissue * cv2.GaussianBlur(rayleigh, (0, 0), 1.5), 0, 255).astype(np.uint8))
    assert group_near_duplicates(frames) == [0, 1]


def test_chains_are_one_group(scans: list[Pixels]) -> None:
    """Left and right thirds have nothing in common but the middle that overlaps both."""
    wide = scans[0]
    parts = [wide[:, :150], wide[:, 140:], wide[:, 60:230]]
    assert group_near_duplicates(parts[:2]) == [0, 1]
    assert group_near_duplicates(parts) == [0, 0, 0]


def test_pictures_without_texture() -> None:
    black, grey = np.zeros((64, 64), np.uint8), np.full((64, 64), 128, np.uint8)
    assert group_near_duplicates([black, grey, black.copy()]) == [0, 1, 0]


def test_no_pictures() -> None:
    assert group_near_duplicates([]) == []


def test_files_and_repeatability(tmp_path: Path, scans: list[Pixels]) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for path, scan in zip(paths, [scans[0], scans[1], crop(scans[0]), crop(scans[2])], strict=True):
        Image.fromarray(scan).save(path)
    assert group_near_duplicates(paths) == group_near_duplicates(paths) == [0, 1, 0, 2]


def test_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "scan.png").write_text("hello")
    with pytest.raises(DataSetError, match=r"scan.png is not an image"):
        group_near_duplicates([tmp_path / "scan.png"])
