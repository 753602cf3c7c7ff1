"""The gallery: which images, which Dice, and a picture that shows them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from rml_search.errors import DataSetError, WriteError
from rml_search.gallery import GalleryRow, Order, draw_gallery, draw_gallery_of_inference, load_rows
from rml_search.inference import InferenceResult
from rml_search.overlays import draw_overlay
from rml_search.paths import Workspace
from rml_search.segmentation_scores import dice_coefficient
from rmldnn_contract.config import parse_configuration

ORANGE, BLUE = (230, 159, 0), (86, 180, 233)


def region(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), dtype=bool)
    mask[rows, columns] = True
    return mask


def shifted_row(name: str, shift: int) -> GalleryRow:
    """A square of 10x10 predicted ``shift`` pixels beside the true one: Dice = (10 - shift) / 10."""
    image = np.full((40, 40), 90, dtype=np.uint8)
    prediction = region(40, 40, slice(5, 15), slice(5 + shift, 15 + shift)).astype(np.float32)
    return GalleryRow(name, image, prediction, region(40, 40, slice(5, 15), slice(5, 15)))


def has_colour(path: Path, colour: tuple[int, int, int]) -> bool:
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return bool((np.abs(pixels - colour).max(axis=2) < 6).sum() > 50)


def texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))


def draw_as_text(rows: list[GalleryRow], out: Path, **options: Any) -> list[str]:
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw_gallery(rows, out, **options)
    return texts(out)


# Scores


def test_dice_by_hand() -> None:
    """6 and 4 pixels, 3 of them in common: 2 * 3 / 10."""
    a, b = region(4, 4, slice(0, 2), slice(0, 3)), region(4, 4, slice(0, 2), slice(0, 2))
    b[1, 1], b[3, 3] = False, True
    assert dice_coefficient(a, b) == pytest.approx(0.6)
    assert dice_coefficient(b, a) == pytest.approx(0.6)


def test_dice_of_empty_masks() -> None:
    empty, full = np.zeros((3, 3), dtype=bool), np.ones((3, 3), dtype=bool)
    assert dice_coefficient(empty, empty) == 1
    assert dice_coefficient(empty, full) == dice_coefficient(full, empty) == 0


def test_dice_of_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"cannot be compared"):
        dice_coefficient(np.zeros((3, 3), dtype=bool), np.zeros((1, 3), dtype=bool))


def test_a_probability_of_one_half_is_not_lesion() -> None:
    row = GalleryRow("a", np.zeros((1, 2), np.uint8), np.array([[0.5, 0.51]], np.float32), np.array([[False, True]]))
    assert row.dice == 1


# Loading


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    """Two images of other sizes than the network's 8x8, predictions named with the suffix as the files are."""
    predictions = {"a.png": region(8, 8, slice(0, 4), slice(0, 8)), "sub/b.png": region(8, 8, slice(4, 8), slice(0, 8))}
    (tmp_path / "predictions").mkdir()
    with h5py.File(tmp_path / "predictions/output_1.h5", "w") as file:
        for name, prediction in predictions.items():
            file[name] = prediction[np.newaxis].astype(np.float32)
    for part in ("inputs", "targets"):
        (tmp_path / part / "sub").mkdir(parents=True)
    upper_half = region(32, 24, slice(0, 16), slice(0, 24))
    for name in predictions:
        colourful = np.zeros((32, 24, 3), dtype=np.uint8)
        colourful[..., 0] = 200
        Image.fromarray(colourful if name == "a.png" else colourful[..., 0]).save(tmp_path / "inputs" / name)
        Image.fromarray(upper_half).save(tmp_path / "targets" / name)
    return tmp_path


def test_rows_put_images_masks_and_predictions_together(predicted: Path) -> None:
    a, b = load_rows(predicted / "inputs", predicted / "targets", predicted / "predictions")
    assert (a.name, b.name) == ("a", "sub/b")
    assert (a.image.shape, b.image.shape) == ((32, 24, 3), (32, 24)), "not in the proportions of the files"
    assert (a.prediction.shape, a.target.shape) == ((8, 8), (8, 8))
    assert (a.image[0, 0].tolist(), int(b.image[0, 0])) == ([200, 0, 0], 200)
    assert (a.dice, b.dice) == (1, 0)


@pytest.mark.parametrize(
    ("size", "shape"), [((60, 40), (40, 60)), ((600, 400), (256, 384)), ((900, 9), (9, 36)), ((1, 9), (4, 1))]
)
def test_pictures_keep_the_proportions_of_their_files(predicted: Path, size, shape) -> None:
    Image.fromarray(np.zeros(size[::-1], np.uint8)).save(predicted / "inputs/a.png")
    row, _ = load_rows(predicted / "inputs", None, predicted / "predictions")
    assert row.image.shape == shape
    picture = draw_overlay(row)
    assert min(picture.shape[:2]) == 384
    assert max(picture.shape[:2]) == 384 * max(shape) // min(shape)


def test_names_without_suffix_are_found_too(predicted: Path) -> None:
    path = predicted / "predictions/output_1.h5"
    with h5py.File(path, "a") as file:
        file.move("a.png", "a")
        file.move("sub/b.png", "sub/b")
    rows = load_rows(predicted / "inputs", predicted / "targets", [path])
    assert [row.dice for row in rows] == [1, 0]


def test_image_size(predicted: Path) -> None:
    rows = load_rows(predicted / "inputs", predicted / "targets", predicted / "predictions", (24, 32))
    assert rows[0].image.shape == (32, 24, 3)
    assert rows[0].prediction.shape == (32, 24)
    assert rows[0].dice == pytest.approx(1, abs=0.05)


def test_without_targets(predicted: Path) -> None:
    rows = load_rows(predicted / "inputs", None, predicted / "predictions")
    assert [row.dice for row in rows] == [None, None]


def test_predictions_of_other_images(predicted: Path) -> None:
    (predicted / "inputs/a.png").rename(predicted / "inputs/c.png")
    (predicted / "targets/a.png").rename(predicted / "targets/c.png")
    with pytest.raises(DataSetError, match=r"has no prediction of c.png: run the inference again"):
        load_rows(predicted / "inputs", predicted / "targets", predicted / "predictions")


# Drawing


def test_picture_shows_predictions_and_truth(tmp_path: Path) -> None:
    draw_gallery([shifted_row("a", 3)], tmp_path / "new folder/gallery.png")
    with Image.open(tmp_path / "new folder/gallery.png") as picture:
        assert picture.width == 1400
    assert has_colour(tmp_path / "new folder/gallery.png", ORANGE)
    assert has_colour(tmp_path / "new folder/gallery.png", BLUE)
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["gallery.png"]


def test_contours_lie_where_the_masks_do(tmp_path: Path) -> None:
    """The bounding box of blue in the second panel, in pixels of the image: columns and rows 5 to 14."""
    draw_gallery([shifted_row("a", 0)], tmp_path / "gallery.png")
    pixels = np.asarray(Image.open(tmp_path / "gallery.png").convert("RGB")).astype(int)
    blue = np.abs(pixels - BLUE).max(axis=2) < 40
    side = (1400 - 4 * 14) / 3  # three panels and four gaps of 0.07 inches, 200 dots an inch
    left = 2 * 14 + side
    top = (0.62 + 0.24) * 200  # header and label
    panel = blue[round(top) : round(top + side), round(left) : round(left + side)]
    rows, columns = np.flatnonzero(panel.any(axis=1)), np.flatnonzero(panel.any(axis=0))
    edges = np.array([columns[0], columns[-1], rows[0], rows[-1]]) * 40 / side
    np.testing.assert_allclose(edges, [5, 15, 5, 15], atol=0.3)


def test_region_that_fills_the_image_has_a_border(tmp_path: Path) -> None:
    everything = np.ones((20, 30), dtype=np.float32)
    draw_gallery([GalleryRow("a", np.zeros((20, 30), np.uint8), everything)], tmp_path / "gallery.png")
    assert has_colour(tmp_path / "gallery.png", ORANGE)


def test_empty_prediction_of_an_empty_mask(tmp_path: Path) -> None:
    row = GalleryRow("a", np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.float32), np.zeros((9, 9), dtype=bool))
    assert "Dice 1.000, IoU 1.000, no lesion, none found" in draw_as_text([row], tmp_path / "gallery.svg")


def test_texts(tmp_path: Path) -> None:
    """Squares of 10x10 that lie 2 and 4 aside: IoU 80/120 and 60/140, and the farthest column is as far away."""
    rows = [shifted_row("a $x$ <b>", 2), shifted_row("b", 4)]
    found = draw_as_text(rows, tmp_path / "gallery.svg")
    assert "Lesion in 2 images: mean Dice 0.700, IoU 0.548; here 2, from worst to best" in found
    labels = [text for text in found if text.startswith("Dice")]
    assert labels == ["Dice 0.600, IoU 0.429, HD95 4.0 px", "Dice 0.800, IoU 0.667, HD95 2.0 px"]
    assert {"ground truth", "b"} <= set(found)
    assert [text for text in found if text in {"Input", "Prediction", "Ground truth"}] == [
        "Input",
        "Ground truth",
        "Prediction",
    ]
    assert "a $x$ &lt;b&gt;" in found


def test_what_was_not_found(tmp_path: Path) -> None:
    missed = replace(shifted_row("a", 0), prediction=np.zeros((40, 40), np.float32))
    invented = replace(shifted_row("b", 0), target=np.zeros((40, 40), dtype=bool))
    found = draw_as_text([missed, invented], tmp_path / "gallery.svg")
    assert "Dice 0.000, IoU 0.000, nothing found" in found
    assert "Dice 0.000, IoU 0.000, no lesion, one found" in found


@pytest.mark.parametrize(
    ("order", "dice", "words"),
    [
        (Order.SPREAD, ["0.100", "0.600", "1.000"], "here 3, from worst to best"),
        (Order.WORST, ["0.100", "0.200", "0.400"], "here the 3 worst"),
    ],
)
def test_which_rows_are_shown(tmp_path: Path, order: Order, dice: list[str], words: str) -> None:
    """The mean is that of all nine: (9 - 3.8) / 9."""
    rows = [shifted_row(f"{shift}", shift) for shift in (3, 9, 0, 6, 1, 8, 2, 5, 4)]
    found = draw_as_text(rows, tmp_path / "gallery.svg", max_rows=3, order=order)
    assert [text[5:10] for text in found if text.startswith("Dice")] == dice
    (title,) = [text for text in found if text.startswith("Lesion in 9 images: mean Dice 0.578")]
    assert title.endswith(words)


def test_first_are_shown_without_targets(tmp_path: Path) -> None:
    rows = [replace(shifted_row(name, 0), target=None) for name in ("long " * 20, "b", "c")]
    found = draw_as_text(rows, tmp_path / "gallery.svg", max_rows=2)
    assert "The first 2 of 3 images" in found
    assert "Ground truth" not in found
    assert "c" not in found
    assert any(len(text) < 40 and text.startswith("long long") and "…" in text for text in found)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_same_rows_same_name_twice(tmp_path: Path, suffix: str) -> None:
    for shift in (1, 2):
        draw_gallery([shifted_row("a", shift)], tmp_path / f"gallery{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"gallery{suffix}"]


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=r"must end in one of .pdf, .png, .svg"):
        draw_gallery([shifted_row("a", 1)], tmp_path / "gallery.docx")


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match=r"no predictions to draw"):
        draw_gallery([], tmp_path / "gallery.png")


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"cannot write .*gallery.png"):
        draw_gallery([shifted_row("a", 1)], tmp_path / "file/gallery.png")


# After an inference


def inference_result(predicted: Path, **data: object) -> InferenceResult:
    document = {
        "layers": "layers.json",
        "data": {"type": "images", "test_input_path": "./inputs/", "test_target_path": "./targets/", **data},
    }
    configuration = parse_configuration(json.dumps({"neural_network": document}))
    return InferenceResult(0.1, 0.5, (predicted / "predictions/output_1.h5",), configuration)


def test_gallery_of_an_inference(predicted: Path) -> None:
    result = inference_result(predicted, transforms=[{"resize": [8, 8]}])
    draw_gallery_of_inference(result, Workspace(predicted), predicted / "gallery.png")
    assert has_colour(predicted / "gallery.png", ORANGE)
    assert has_colour(predicted / "gallery.png", BLUE)


def test_gallery_of_transforms_that_move_pixels(predicted: Path) -> None:
    result = inference_result(predicted, transforms=[{"resize": [8, 8]}, {"rotate": 30}])
    with pytest.raises(DataSetError, match=r"rotate moves the pixels"):
        draw_gallery_of_inference(result, Workspace(predicted), predicted / "gallery.png")
