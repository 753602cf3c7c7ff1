"""From a published data set to the folders of a search: layouts, masks, splits, and everything that can be wrong."""

from __future__ import annotations

import csv
import errno
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from rml_search.dataset import check_data_set
from rml_search.errors import DataSetError, OptionError, SearchError, WriteError
from rml_search.prepare import ClassSplit, PrepareSummary, SplitChoice, prepare
from rml_search.synthetic import draw_scan

SIZE = (64, 48)  #: width, height of the noise pictures below


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SIZE[::-1], dtype=np.uint8)


def box(left: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[10:30, left:right] = True
    return mask


def save(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def write_source(tmp_path: Path) -> Path:
    """20 benign, 10 malignant and 10 normal images, in Kaggle's layout and names."""
    root = tmp_path / "Dataset_BUSI_with_GT"
    seed = 0
    for class_name, count in (("benign", 20), ("malignant", 10), ("normal", 10)):
        for number in range(1, count + 1):
            seed += 1
            save(root / class_name / f"{class_name} ({number}).png", noise(seed))
            mask = box(5, 20) & (class_name != "normal")
            save(root / class_name / f"{class_name} ({number})_mask.png", mask)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path)


def run(source: Path, out: Path, **split: object) -> PrepareSummary:
    return prepare(source, out, split=SplitChoice(**split), report=lambda line: None)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def find(out: Path, part: str, name: str) -> Path:
    (path,) = out.glob(f"*/{part}/{name}.png")
    return path


def splits(out: Path) -> dict[str, str]:
    with (out / "split.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: row["split"] for row in csv.DictReader(file)}


def test_layout_names_and_shares(source: Path, tmp_path: Path) -> None:
    summary = run(source, tmp_path / "data")
    assert summary.classes == (ClassSplit("benign", 18, 2), ClassSplit("malignant", 9, 1), ClassSplit("normal", 9, 1))
    assert (summary.num_train, summary.num_test, summary.num_groups, summary.num_united_masks) == (36, 4, 40, 0)
    checked = check_data_set(tmp_path / "data")
    assert (checked.train.num_images, checked.test.num_images) == (36, 4)
    inputs = {path.name: path.parent.parent.name for path in (tmp_path / "data").glob("*/inputs/*")}
    targets = {path.name: path.parent.parent.name for path in (tmp_path / "data").glob("*/targets/*")}
    assert inputs == targets == splits(tmp_path / "data")
    assert "benign (1).png" in inputs


def test_images_keep_their_bytes_and_masks_become_black_and_white(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "data")
    original = (source / "benign/benign (3).png").read_bytes()
    assert find(tmp_path / "data", "inputs", "benign (3)").read_bytes() == original
    mask = Image.open(find(tmp_path / "data", "targets", "benign (3)"))
    assert (mask.mode, mask.size) == ("L", SIZE)
    np.testing.assert_array_equal(np.asarray(mask), np.where(box(5, 20), 255, 0))
    assert not pixels(find(tmp_path / "data", "targets", "normal (3)")).any()


def test_several_masks_are_united(source: Path, tmp_path: Path) -> None:
    """``benign (1)`` must not get the masks of ``benign (10)``."""
    save(source / "benign/benign (1)_mask_1.png", box(18, 30))
    save(source / "benign/benign (10)_mask_1.png", box(40, 45))
    save(source / "benign/benign (10)_mask_2.png", np.where(box(50, 55), 255, 0).astype(np.uint8))
    assert run(source, tmp_path / "data").num_united_masks == 2
    one = pixels(find(tmp_path / "data", "targets", "benign (1)")) > 0
    ten = pixels(find(tmp_path / "data", "targets", "benign (10)")) > 0
    np.testing.assert_array_equal(one, box(5, 30))
    np.testing.assert_array_equal(ten, box(5, 20) | box(40, 45) | box(50, 55))


def test_normal_images_need_no_mask(source: Path, tmp_path: Path) -> None:
    (source / "normal/normal (4)_mask.png").unlink()
    run(source, tmp_path / "data")
    mask = pixels(find(tmp_path / "data", "targets", "normal (4)"))
    assert mask.shape == SIZE[::-1]
    assert not mask.any()


def test_other_formats_and_orientations(source: Path, tmp_path: Path) -> None:
    """A photograph on its side becomes an upright PNG, and its mask with it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn clockwise to display
    save(source / "benign/turned.tif", np.rot90(noise(99)), exif=exif)
    save(source / "benign/turned_mask.png", np.rot90(box(5, 20)), exif=exif)
    save(source / "benign/turned png.png", np.rot90(noise(98)), exif=exif)
    save(source / "benign/turned png_mask.png", box(5, 20))
    run(source, tmp_path / "data")
    for name, seed in (("turned", 99), ("turned png", 98)):
        image = Image.open(find(tmp_path / "data", "inputs", name))
        assert image.format == "PNG"
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        np.testing.assert_array_equal(np.asarray(image), noise(seed))
        np.testing.assert_array_equal(pixels(find(tmp_path / "data", "targets", name)) > 0, box(5, 20))


def test_mask_of_another_size_is_resized(source: Path, tmp_path: Path) -> None:
    doubled = np.kron(box(5, 20), np.ones((2, 2), dtype=bool))
    save(source / "benign/benign (2)_mask.png", doubled)
    run(source, tmp_path / "data")
    np.testing.assert_array_equal(pixels(find(tmp_path / "data", "targets", "benign (2)")) > 0, box(5, 20))


def test_near_duplicates_stay_together(tmp_path: Path) -> None:
    """Each scan is there twice, cropped, in an order that says nothing of it."""
    for number in range(12):
        scan, mask = draw_scan(160, np.random.default_rng([3, number]))
        save(tmp_path / f"source/{number:02}.png", scan)
        save(tmp_path / f"source/{number:02}_mask.png", mask)
        save(tmp_path / f"source/{number:02} again.png", scan[10:150, 5:155])
        save(tmp_path / f"source/{number:02} again_mask.png", mask[10:150, 5:155])
    summary = run(tmp_path / "source", tmp_path / "data", test_fraction=0.25)
    assert (summary.num_groups, summary.num_train, summary.num_test) == (12, 18, 6)
    split = splits(tmp_path / "data")
    assert all(split[f"{number:02}.png"] == split[f"{number:02} again.png"] for number in range(12))


def test_seed_decides(source: Path, tmp_path: Path) -> None:
    for out, seed in (("a", 0), ("again", 0), ("other", 1)):
        run(source, tmp_path / out, seed=seed, test_fraction=0.3)
    assert splits(tmp_path / "a") == splits(tmp_path / "again")
    assert splits(tmp_path / "a") != splits(tmp_path / "other")
    shares = [Counter(splits(tmp_path / out).values()) for out in ("a", "other")]
    assert shares == [{"train": 28, "test": 12}] * 2


def test_one_folder_without_classes(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path / f"flat/{number}.jpg", noise(number))
        save(tmp_path / f"flat/{number}_mask.png", box(5, 20))
    summary = run(tmp_path / "flat", tmp_path / "data", test_fraction=0.25)
    assert summary.classes == (ClassSplit("", 3, 1),)
    np.testing.assert_array_equal(
        pixels(find(tmp_path / "data", "inputs", "2")), np.asarray(Image.open(tmp_path / "flat/2.jpg"))
    )


def test_equal_names_in_two_classes_get_the_class_before_them(tmp_path: Path) -> None:
    for seed, class_name in enumerate(["a/benign", "a/benign", "b/benign", "b/benign"]):
        save(tmp_path / f"source/{class_name}/{seed % 2}.png", noise(seed))
        save(tmp_path / f"source/{class_name}/{seed % 2}_mask.png", box(5, 20))
    run(tmp_path / "source", tmp_path / "data", test_fraction=0.5)
    names = {f"{folder}_benign_{number}.png" for folder in "ab" for number in (0, 1)}
    assert splits(tmp_path / "data").keys() == names


def test_report_says_little(source: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    prepare(source, tmp_path / "data", report=lines.append)
    assert lines[0] == "40 images in 3 classes: reading them"
    assert "40 different pictures among 40 images" in lines
    assert len(lines) < 6


# What can be wrong with a source


def remove_mask(source: Path) -> None:
    (source / "benign/benign (7)_mask.png").unlink()


def remove_image(source: Path) -> None:
    (source / "malignant/malignant (7).png").unlink()


def remove_masks(source: Path) -> None:
    for path in source.rglob("*_mask.png"):
        path.unlink()


def remove_everything(source: Path) -> None:
    for path in source.rglob("*.png"):
        path.unlink()


def truncate_image(source: Path) -> None:
    path = source / "benign/benign (7).png"
    path.write_bytes(path.read_bytes()[:500])


def truncate_mask(source: Path) -> None:
    path = source / "benign/benign (7)_mask.png"
    path.write_bytes(path.read_bytes()[:60])


def mask_of_another_frame(source: Path) -> None:
    save(source / "benign/benign (7)_mask.png", box(5, 20).T)


def two_of_one_name(source: Path) -> None:
    save(source / "benign/benign (7).bmp", noise(1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_mask, r"no mask for benign/benign \(7\).png; only images of a class named 'normal' may lack a mask"),
        (remove_image, r"masks without an image: malignant/malignant \(7\)_mask.png"),
        (remove_masks, r"contains no masks; is it the right folder\?"),
        (remove_everything, r"contains no images: expected NAME.png next to NAME_mask.png"),
        (truncate_image, r"benign/benign \(7\).png cannot be read as an image"),
        (truncate_mask, r"benign/benign \(7\)_mask.png .*replace or remove it"),
        (mask_of_another_frame, r"benign \(7\)_mask.png is 48x64, its image 64x48: sizes must match"),
        (two_of_one_name, r"two images with the same name, benign/benign \(7\).bmp and benign/benign \(7\).png"),
    ],
)
def test_incomplete_source(source: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(source)
    with pytest.raises(DataSetError, match=message) as caught:
        run(source, tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_missing_source(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"nowhere does not exist"):
        run(tmp_path / "nowhere", tmp_path / "data")


def test_source_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataSetError, match=r"notes.txt is neither a folder nor a readable zip file"):
        run(tmp_path / "notes.txt", tmp_path / "data")


@pytest.mark.parametrize("fraction", [0, 1, -0.5, float("nan")])
def test_impossible_fraction(source: Path, tmp_path: Path, fraction: float) -> None:
    with pytest.raises(OptionError, match=r"must be between 0 and 1"):
        run(source, tmp_path / "data", test_fraction=fraction)


def test_fraction_that_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"40 images, 40 of them different, .* leave no test images"):
        run(source, tmp_path / "data", test_fraction=0.01)


# Where it is written


def test_empty_folder_is_used(source: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run(source, tmp_path / "data")
    assert check_data_set(tmp_path / "data").test.num_images == 4


@pytest.mark.parametrize("name", ["data/mine.txt", "data/.hidden", "data"])
def test_what_is_there_is_left_alone(source: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(WriteError, match=r"data exists and is not empty"):
        run(source, tmp_path / "data")
    assert path.read_text() == "mine"


def test_the_current_folder_is_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(WriteError, match=r"is the current folder"):
        run(source, Path())


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), WriteError, r"nothing was kept: No space left on device"),
        (KeyboardInterrupt("Ctrl-C"), KeyboardInterrupt, r"^Ctrl-C$"),
    ],
)
def test_nothing_half_made_is_left(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    expected: type[SearchError],
    message: str,
) -> None:
    write_bytes = Path.write_bytes

    def fail_on_the_tenth(path: Path, data: bytes) -> int:
        if len([*path.parent.iterdir()]) == 10:
            raise error
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail_on_the_tenth)
    with pytest.raises(expected, match=message):
        run(source, tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_kill_leaves_nothing_under_the_name_and_the_next_run_cleans_up(source: Path, tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from rml_search import prepare\n"
        "def kill(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare._mask_as_png = kill\n"
        "prepare.prepare(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), report=print)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, source, tmp_path / "data"], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()} - {source.name}
    assert left == {".data.being-written"}
    run(source, tmp_path / "data")
    assert {path.name for path in tmp_path.iterdir()} == {source.name, "data"}
