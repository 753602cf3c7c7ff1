"""Synthetic scans: reproducible, of the right statistics, and neither trivial nor hopeless."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rml_search import synthetic
from rml_search.dataset import check_data_set
from rml_search.errors import WriteError
from rml_search.images import Mask, Pixels
from rml_search.synthetic import draw_scan, write_synthetic_data


@pytest.fixture(scope="module")
def scans() -> list[tuple[Pixels, Mask]]:
    return [draw_scan(64, np.random.default_rng([5, number])) for number in range(120)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}


def test_files(tmp_path: Path) -> None:
    write_synthetic_data(tmp_path / "data", num_train=4, num_test=3, size=48, seed=1)
    summary = check_data_set(tmp_path / "data")
    assert (summary.train.num_images, summary.test.num_images) == (4, 3)
    for split in (summary.train, summary.test):
        assert (split.smallest, split.largest, split.modes, split.mask_modes) == ((48, 48), (48, 48), ("L",), ("L",))
    masks = [np.asarray(Image.open(path)) for path in (tmp_path / "data").rglob("targets/*.png")]
    assert set(np.unique(masks)) == {0, 255}
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_seed_decides_and_numbers_do_not(tmp_path: Path) -> None:
    for name, num_train, seed in (("a", 3, 1), ("again", 3, 1), ("more", 4, 1), ("other", 3, 2)):
        write_synthetic_data(tmp_path / name, num_train=num_train, num_test=1, size=32, seed=seed)
    first = contents(tmp_path / "a")
    assert len(first) == 8
    assert contents(tmp_path / "again") == first
    assert first.items() < contents(tmp_path / "more").items()
    assert not first.items() <= contents(tmp_path / "other").items()
    assert (
        len(set(contents(tmp_path / "a/train/inputs").values()) | set(contents(tmp_path / "a/test/inputs").values()))
        == 4
    )


def test_folder_that_holds_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WriteError, match=r"is not empty"):
        write_synthetic_data(tmp_path, num_train=1, num_test=1, size=32, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_speckle_of_one_look_is_rayleigh_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean over deviation is sqrt(pi / (4 - pi)) = 1.913, and constant echogenicity keeps its power (0 dB is 1)."""
    monkeypatch.setattr(synthetic, "_NUM_LOOKS", 1)
    amplitude = synthetic._speckle(np.full((512, 512), -6.0), np.random.default_rng(0))
    assert amplitude.mean() / amplitude.std() == pytest.approx(1.913, rel=0.04)
    assert (amplitude**2).mean() == pytest.approx(10**-0.6, rel=0.1)


def test_speckle_is_wider_than_deep_and_widens_with_depth() -> None:
    amplitude = synthetic._speckle(np.zeros((512, 512)), np.random.default_rng(0))

    def correlation(rows: slice, down: int, right: int) -> float:
        part = amplitude[rows]
        a, b = part[: len(part) - down, : 512 - right], part[down:, right:]
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    shallow, deep = slice(20, 180), slice(332, 492)
    assert correlation(deep, 0, 3) > 1.5 * correlation(deep, 3, 0)
    assert correlation(deep, 0, 5) > 1.5 * correlation(shallow, 0, 5)


def test_share_and_size_of_lesions(scans: list[tuple[Pixels, Mask]]) -> None:
    shares = np.array([mask.mean() for _, mask in scans])
    without = (shares == 0).mean()
    assert 0.06 < without < 0.26  # 0.15 of 120, three deviations
    assert shares[shares > 0].min() > 0.005
    assert shares.max() < 0.2


def test_lesions_are_one_piece_and_darker_than_what_surrounds_them(scans: list[tuple[Pixels, Mask]]) -> None:
    contrasts = []
    for scan, mask in scans:
        if not mask.any():
            continue
        lesion = mask.astype(np.uint8)
        assert cv2.connectedComponents(lesion)[0] == 2
        ring = (cv2.dilate(lesion, np.ones((9, 9), np.uint8)) > 0) & ~mask
        contrasts.append(float(scan[ring].mean()) - float(scan[mask].mean()))
    assert np.median(contrasts) > 25
    assert np.mean(np.array(contrasts) > 0) > 0.95


def test_behind_lesions_it_is_darker_or_brighter_than_beside(scans: list[tuple[Pixels, Mask]]) -> None:
    """Shadows and enhancement both occur: mean of the columns under the lesion less that of the others there."""
    differences = []
    for scan, mask in scans:
        if mask.any():
            below = scan[np.flatnonzero(mask.any(axis=1)).max() + 3 :]
            under = mask.any(axis=0)
            differences.append(float(below[:, under].mean()) - float(below[:, ~under].mean()))
    assert np.mean(np.array(differences) < -15) > 0.15
    assert np.mean(np.array(differences) > 5) > 0.15


def test_no_threshold_segments_them(scans: list[tuple[Pixels, Mask]]) -> None:
    """Even the best of all thresholds on smoothed scans, chosen on these scans, stays below 0.6 (pooled Dice)."""
    smooth = np.stack([cv2.GaussianBlur(scan, (0, 0), 1.5) for scan, _ in scans])
    truth = np.stack([mask for _, mask in scans])
    scores = []
    for level in range(5, 200, 5):
        dark = smooth < level
        scores.append(2 * (dark & truth).sum() / (dark.sum() + truth.sum()))
    assert 0.1 < max(scores) < 0.6
