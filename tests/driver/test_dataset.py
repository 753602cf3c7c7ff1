"""Data set folders: what is accepted, and what is said of everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rml_search.dataset import check_data_set, check_split, list_images, list_pairs, split_folders
from rml_search.errors import DataSetError


def write_image(path: Path, size: tuple[int, int] = (8, 6), mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("test", 2)):
        for part in split_folders(tmp_path, split):
            for number in range(count):
                write_image(part / f"scan {number}.png")
    return tmp_path


def test_summary_of_a_good_data_set(data_set: Path) -> None:
    write_image(data_set / "train/inputs/scan 1.png", (20, 4), "RGB")
    summary = check_data_set(data_set)
    assert summary.train.num_images == 3
    assert summary.train.smallest == (8, 4)
    assert summary.train.largest == (20, 6)
    assert summary.train.modes == ("L", "RGB")
    assert summary.train.mask_modes == ("L",)
    assert summary.train.num_masks_of_other_size == 1
    assert (summary.test.num_images, summary.test.num_masks_of_other_size) == (2, 0)
    assert str(summary.train) == "3 images (8x4 to 20x6; L, RGB)"
    assert str(summary.test) == "2 images (8x6; L)"


def test_hidden_files_are_passed_over(data_set: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", ".cache/scan.png", "__MACOSX/._scan 0.png"):
        path = data_set / "train/inputs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no image")
    assert check_data_set(data_set).train.num_images == 3


def test_subfolders_pair_by_their_path(data_set: Path) -> None:
    write_image(data_set / "test/inputs/benign/scan 0.png")
    write_image(data_set / "test/targets/benign/scan 0.png")
    assert check_data_set(data_set).test.num_images == 3


@pytest.mark.parametrize("missing", ["", "train", "test/inputs", "test/targets"])
def test_missing_folder(tmp_path: Path, data_set: Path, missing: str) -> None:
    (data_set / missing).rename(tmp_path.parent / f"{tmp_path.name} moved")
    with pytest.raises(DataSetError, match=r"is not a folder") as caught:
        check_data_set(data_set)
    assert str(data_set / missing) in str(caught.value)


def test_empty_folder(data_set: Path) -> None:
    for path in (data_set / "test/targets").iterdir():
        path.unlink()
    (data_set / "test/targets/.DS_Store").touch()
    with pytest.raises(DataSetError, match=r"test/targets contains no images"):
        check_data_set(data_set)


def test_images_without_partner_are_named(data_set: Path) -> None:
    for number in range(10, 15):
        write_image(data_set / f"train/inputs/more {number}.png")
    with pytest.raises(DataSetError) as caught:
        check_data_set(data_set)
    message = str(caught.value)
    assert "8 inputs but 3 targets" in message
    assert "no target for more 10, more 11, more 12 and 2 more" in message
    assert "\n" not in message


def test_as_many_but_others(data_set: Path) -> None:
    (data_set / "train/targets/scan 1.png").rename(data_set / "train/targets/scan 7.png")
    with pytest.raises(DataSetError, match=r"no target for scan 1; no input for scan 7"):
        check_data_set(data_set)


def test_names_with_nothing_in_common(tmp_path: Path) -> None:
    for name, folder in (("a", "inputs"), ("b", "inputs"), ("x", "targets"), ("y", "targets")):
        write_image(tmp_path / folder / f"{name}.png")
    with pytest.raises(DataSetError, match=r"names like a.png and x.png have nothing in common"):
        check_split(tmp_path / "inputs", tmp_path / "targets")


@pytest.mark.parametrize("mask_name", ["scan_{}_mask.png", "mask_{}.png", "scan_{}.bmp"])
def test_masks_may_be_named_otherwise_as_long_as_the_order_is_the_same(tmp_path: Path, mask_name: str) -> None:
    for number in ("01", "02", "11"):
        write_image(tmp_path / f"inputs/scan_{number}.png")
        write_image(tmp_path / "targets" / mask_name.format(number))
    pairs = list_pairs(tmp_path / "inputs", tmp_path / "targets")
    assert [mask.name for _, mask in pairs] == [mask_name.format(number) for number in ("01", "02", "11")]


def test_names_that_sort_differently_are_refused(tmp_path: Path) -> None:
    """``img1.png`` comes before ``img10.png``, ``img10_mask.png`` before ``img1_mask.png``: they would be swapped."""
    for number in (1, 10):
        write_image(tmp_path / f"inputs/img{number}.png")
        write_image(tmp_path / f"targets/img{number}_mask.png")
    assert [path.name for path in list_images(tmp_path / "targets")] == ["img10_mask.png", "img1_mask.png"]
    with pytest.raises(DataSetError, match=r"pair img1.png with img10_mask.png"):
        check_split(tmp_path / "inputs", tmp_path / "targets")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def replace_by_text(path: Path) -> None:
    path.write_text("hello")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, replace_by_text, empty])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_damaged_file_is_named(tmp_path: Path, damage, suffix: str) -> None:
    for number in range(3):
        write_image(tmp_path / f"scan {number}{suffix}", (40, 40))
    damage(tmp_path / f"scan 1{suffix}")
    with pytest.raises(DataSetError, match=rf"scan 1\{suffix} .*replace or remove it") as caught:
        check_split(tmp_path, None)
    assert "\n" not in str(caught.value)


def test_images_alone_for_inference(data_set: Path) -> None:
    summary = check_split(data_set / "test/inputs", None)
    assert (summary.num_images, summary.mask_modes, summary.num_masks_of_other_size) == (2, (), 0)
