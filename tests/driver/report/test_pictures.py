"""The gallery of the report: which images come first, their scores, and why there are none."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from rml_report.plots import draw_plots
from rml_search.report.page import Page, render_page
from rml_search.report.pictures import MAX_PICTURES, load_gallery

PREDICTION_BGR, TRUTH_BGR = (0, 159, 230), (233, 180, 86)


@pytest.fixture
def predicted(workspace):
    """Predicts squares of 10 x 10 as many pixels beside the true one as is said: Dice = (10 - shift) / 10."""

    def predict(**shifts):
        for kind in ("inputs", "targets"):
            (workspace.root / "data/test" / kind / "image 0.png").unlink()
        truth = np.zeros((40, 40), np.uint8)
        truth[5:15, 5:15] = 255
        workspace.predictions.mkdir()
        with h5py.File(workspace.predictions / "output_1.h5", "w") as file:
            for name, shift in shifts.items():
                Image.new("L", (40, 40), 90).save(workspace.root / f"data/test/inputs/{name}.png")
                Image.fromarray(truth).save(workspace.root / f"data/test/targets/{name}.png")
                scores = np.zeros((1, 40, 40), np.float32)
                scores[0, 5:15, 5 + shift : 15 + shift] = 1
                file[f"{name}.png"] = scores
        data = {"type": "images", "test_input_path": "./data/test/inputs/", "test_target_path": "./data/test/targets/"}
        document = {"layers": "./layers.json", "checkpoints": {"load": "best.pt"}, "data": data}
        workspace.best_model.mkdir()
        workspace.best_config.write_text(json.dumps({"neural_network": document}))
        return workspace

    return predict


def pixels(source):
    kind, _, data = source.partition(",")
    assert kind == "data:image/webp;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR).astype(int)


def has_colour(image, colour):
    return (np.abs(image - colour).max(axis=2) < 40).sum() > 30


def test_the_worst_comes_first_with_its_scores(predicted):
    """Dice 0.4, 0.7 and 1; IoU = intersection over union of two squares: 40/160, 70/130, 1."""
    gallery = load_gallery(predicted(good=0, bad=6, middling=3))
    assert [score.name for score in gallery.scores] == ["bad", "middling", "good"]
    assert [score.dice for score in gallery.scores] == pytest.approx([0.4, 0.7, 1])
    assert [score.iou for score in gallery.scores] == pytest.approx([40 / 160, 70 / 130, 1])
    # Borders that lie 6, 3 and 0 pixels beside each other; pooled: 210 pixels in common of 300 and 300.
    assert [score.hd95 for score in gallery.scores] == pytest.approx([6, 3, 0])
    (means,) = gallery.means
    assert (means.dice, means.hd95, means.pooled_dice) == pytest.approx((0.7, 3, 210 / 300))
    assert (gallery.median_dice, gallery.num_poor) == (pytest.approx(0.7), 1)
    assert gallery.reason is None
    assert "6.2% of the image" in gallery.pictures[0].alternative  # 100 of 1600 pixels
    assert "Dice is 0.400" in gallery.pictures[0].alternative


def test_a_picture_shows_the_image_and_both_contours(predicted):
    picture = pixels(load_gallery(predicted(bad=6)).pictures[0].source)
    assert picture.shape == (384, 2 * 384 + 6, 3)
    left, right = picture[:, :384], picture[:, 390:]
    assert np.abs(left - 90).max() < 12
    assert has_colour(right, PREDICTION_BGR)
    assert has_colour(right, TRUTH_BGR)
    # The prediction lies 6 of 40 pixels to the right of the truth: its right edge at 21/40 of the width.
    orange = np.abs(right - PREDICTION_BGR).max(axis=2) < 40
    assert np.flatnonzero(orange.any(axis=0))[-1] == pytest.approx(21 / 40 * 384, abs=4)


def test_only_the_worst_are_drawn_of_many(predicted):
    gallery = load_gallery(predicted(**{f"image{number}": number % 10 for number in range(MAX_PICTURES + 3)}))
    assert len(gallery.pictures) == MAX_PICTURES
    assert len(gallery.scores) == MAX_PICTURES + 3
    assert gallery.pictures[0].scores.dice == pytest.approx(0.1)


def test_a_class_without_a_lesion_has_no_pooled_score(predicted, mixed_study):
    """As BUSI's normal images have none."""
    workspace = predicted(benign_1=3, benign_2=0)
    inputs, targets = (workspace.root / f"data/test/{kind}" for kind in ("inputs", "targets"))
    with h5py.File(workspace.predictions / "output_1.h5", "a") as file:
        for name in ("normal_1.png", "normal_2.png"):
            shutil.copy(inputs / "benign_1.png", inputs / name)
            Image.new("L", (40, 40), 0).save(targets / name)
            file[name] = np.zeros((1, 40, 40), np.float32)
    gallery = load_gallery(workspace)
    assert [(one.name, one.pooled_dice is None) for one in gallery.means] == [
        ("benign", False),
        ("normal", True),
        ("all", False),
    ]
    page = render_page(Page(mixed_study, {}, draw_plots(mixed_study), gallery, ""))
    assert re.search(r">normal</th>(<td[^>]*>(2|1\.000|none)</td>){6}", page)


def test_no_predictions(workspace):
    assert "has not been run" in load_gallery(workspace).reason


def test_predictions_of_an_earlier_best_model(predicted):
    workspace = predicted(good=0)
    workspace.best_digest.write_text("of a later model")
    os.utime(workspace.predictions / "output_1.h5", (1, 1))
    assert "earlier best model" in load_gallery(workspace).reason


def test_images_that_are_gone(predicted):
    workspace = predicted(good=0)
    (workspace.root / "data/test/inputs/good.png").unlink()
    gallery = load_gallery(workspace)
    assert gallery.pictures == ()
    assert "The predictions cannot be drawn" in gallery.reason


def test_a_file_that_holds_no_predictions(predicted):
    workspace = predicted(good=0)
    (workspace.predictions / "output_1.h5").write_text("nothing")
    assert "not a readable HDF5 file" in load_gallery(workspace).reason


@pytest.mark.parametrize(
    ("images", "is_drawn"),
    [
        ("./data/test/inputs/", True),
        ("data/test/inputs", True),
        ("{root}/data/test/inputs", True),
        ("/mnt/host{root}/data/test/inputs", True),
        ("./new/inputs", False),
        ("/mnt/host/new/inputs", False),
    ],
)
def test_predictions_of_other_images_are_not_drawn(predicted, images, is_drawn):
    """They may well have the same names; in a container, places outside of the folder have others."""
    workspace = predicted(good=0)
    document = json.loads(workspace.best_config.read_text())
    document["neural_network"]["data"]["test_input_path"] = images.format(root=workspace.root)
    (workspace.predictions / "inference_config.json").write_text(json.dumps(document))
    gallery = load_gallery(workspace)
    assert bool(gallery.pictures) == is_drawn
    assert gallery.reason == (
        None if is_drawn else "The predictions are of another model, or of other images than the search's test images."
    )


def test_predictions_of_another_model_are_not_drawn(predicted):
    workspace = predicted(good=0)
    document = json.loads(workspace.best_config.read_text())
    document["neural_network"]["checkpoints"]["load"] = "top/trial_0003.pt"
    (workspace.predictions / "inference_config.json").write_text(json.dumps(document))
    assert "of another model" in load_gallery(workspace).reason


def test_predictions_that_do_not_tell_of_their_images_are_drawn(predicted):
    workspace = predicted(good=0)
    (workspace.predictions / "inference_config.json").write_text("{")
    assert load_gallery(workspace).pictures
