"""What infer says of each image, against numbers worked out by hand."""

from __future__ import annotations

import csv

import h5py
import numpy as np
import pytest
from PIL import Image

from rml_search.image_scores import means_by_class
from rml_search.inference import InferenceResult
from rml_search.inference_scores import score_inference
from rml_search.plain_output import scores_table
from rmldnn_contract.config import Configuration

NAMES = ("benign (1)", "benign (2)", "malignant (1)", "malignant (2)")


@pytest.fixture
def result(workspace):
    """Four images of 8 by 8 with a 4 by 4 lesion; it is found whole, by half, by half, and not at all."""
    folder = workspace.root / "data" / "test"
    for path in [*folder.glob("*/*.png")]:
        path.unlink()
    truth = np.zeros((8, 8), np.uint8)
    truth[2:6, 2:6] = 255
    workspace.predictions.mkdir()
    file = workspace.predictions / "output_1.h5"
    with h5py.File(file, "w") as predictions:
        for name, num_rows in zip(NAMES, (4, 2, 2, 0), strict=True):
            Image.new("L", (8, 8)).save(folder / "inputs" / f"{name}.png")
            Image.fromarray(truth).save(folder / "targets" / f"{name}.png")
            found = np.zeros((1, 8, 8), np.float32)
            found[0, 2 : 2 + num_rows, 2:6] = 0.9
            predictions[name] = found
    data = {
        "type": "images",
        "test_input_path": "./data/test/inputs/",
        "test_target_path": "./data/test/targets/",
        "target_is_mask": True,
    }
    network = {"layers": "layers.json", "data": data, "loss": {"function": "BCE"}}
    configuration = Configuration.model_validate({"neural_network": network})
    return InferenceResult(None, None, (file,), configuration)


def test_each_image_and_the_means_by_class(workspace, result):
    scores = score_inference(result, workspace)
    # Half of the lesion: Dice 2 * 8 / (8 + 16), IoU 8 / 16.
    assert [one.dice for one in scores] == pytest.approx([1, 2 / 3, 2 / 3, 0])
    assert [one.iou for one in scores] == pytest.approx([1, 1 / 2, 1 / 2, 0])
    assert scores[0].hd95 == 0
    assert scores[3].hd95 is None
    benign, malignant, everything = means_by_class(scores)
    assert (benign.name, benign.dice) == ("benign", pytest.approx(5 / 6))
    assert (malignant.name, malignant.iou) == ("malignant", pytest.approx(1 / 4))
    assert everything.pooled_dice == pytest.approx(2 * 32 / (32 + 64))
    assert "| benign" in scores_table([benign, malignant, everything])


def test_the_scores_of_each_image_are_written_beside_the_predictions(workspace, result):
    score_inference(result, workspace)
    with workspace.scores(workspace.predictions).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(NAMES)
    assert [row["class"] for row in rows] == ["benign", "benign", "malignant", "malignant"]
    assert float(rows[1]["dice"]) == pytest.approx(2 / 3, abs=1e-6)
    assert rows[3]["hd95_pixels"] == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"target_is_mask": False},
        {"test_target_path": None},
        {"transforms": [{"center_crop": [4, 4]}]},
        {"target_type": "numpy"},
    ],
)
def test_nothing_is_said_where_masks_cannot_be_compared(workspace, result, changes):
    document = result.configuration.model_dump(mode="json", exclude_unset=True)
    document["neural_network"]["data"] |= changes
    changed = InferenceResult(None, None, result.predictions, Configuration.model_validate(document))
    assert score_inference(changed, workspace) == []
    assert not workspace.scores(workspace.predictions).exists()
