"""Labels from folders, and the accuracy of a classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rmldnn_contract.data import Data
from rmldnn_contract.exit_status import DataError
from rmldnn_torch.data import Batch, DataSettings, Loader
from rmldnn_torch.datasets import open_test_data, open_training_data
from rmldnn_torch.labels import read_labels
from rmldnn_torch.log import Log
from rmldnn_torch.losses import lovasz
from rmldnn_torch.metrics import label_accuracy, label_counts
from rmldnn_torch.sample_files import SampleFile


def write_images(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 100).save(path)
    return folder


def opened(folders: tuple[Path | None, Path | None], num_classes: int, *, training: bool, **changes: Any) -> Loader:
    paths = {key: str(folder) for key, folder in zip(("input_path", "test_input_path"), folders, strict=True) if folder}
    data = Data.model_validate({"input_type": "images", "target_type": "labels", "grayscale": True, **paths, **changes})
    settings = DataSettings(num_classes, num_target_axes=0)
    loader = (open_training_data if training else open_test_data)(data, settings, Log(silent=True))
    assert loader is not None
    return loader


def labels_of(loader: Loader) -> dict[str, float]:
    batches: list[Batch] = list(loader.batches(0))
    pairs = ((batch.names, batch.targets) for batch in batches if batch.targets is not None)
    return {name: label.item() for names, labels in pairs for name, label in zip(names, labels.flatten(), strict=True)}


def test_the_folder_that_holds_a_file_is_its_class(tmp_path: Path) -> None:
    folder = write_images(tmp_path, "dog/1.png", "cat/9.png", "deep/down/emu/3.png", "dog/2.png")
    loader = opened((folder, None), 3, training=True)
    assert labels_of(loader) == {"dog/1.png": 1, "cat/9.png": 0, "deep/down/emu/3.png": 2, "dog/2.png": 1}
    (batch,) = loader.batches(0)
    assert batch.targets is not None
    assert (batch.targets.dtype, batch.targets.shape) == (torch.int64, (4,))


def test_classes_are_numbered_as_text() -> None:
    files = [SampleFile(Path("data", name), name) for name in ("2/a.png", "10/b.png")]
    assert read_labels(files, None) == ("2", "10")
    assert sorted(read_labels(files, None)) == ["10", "2"]


def test_a_tag_names_the_folder_above_the_class(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "training" / "set" / "training", "7/patient 1/a.png", "4/b.png")
    test = write_images(tmp_path / "set" / "testing", "7/c.png")
    tags = {"training_tag": "training", "test_tag": "testing"}
    assert labels_of(opened((folder, test), 2, training=True, **tags)) == {"7/patient 1/a.png": 1, "4/b.png": 0}
    assert labels_of(opened((folder, test), 2, training=False, **tags)) == {"7/c.png": 1}
    with pytest.raises(DataError, match=r"c\.png lies in no folder of a class below a folder 'tests'"):
        opened((folder, test), 2, training=False, training_tag="training", test_tag="tests")
    flat = write_images(tmp_path / "flat" / "testing", "d.png")
    with pytest.raises(DataError, match="lies in no folder of a class"):
        opened((folder, flat), 2, training=False, **tags)


def test_test_samples_have_the_classes_of_the_training(tmp_path: Path) -> None:
    train = write_images(tmp_path / "train", "a/1.png", "b/2.png", "c/3.png")
    test = write_images(tmp_path / "test", "c/1.png", "b/2.png")
    assert labels_of(opened((train, test), 3, training=False)) == {"c/1.png": 2, "b/2.png": 1}
    write_images(tmp_path / "test", "d/1.png")
    with pytest.raises(DataError, match="no training sample has the class 'd', which test samples have: a, b, c"):
        opened((train, test), 3, training=False)


def test_classes_and_outputs_of_the_network(tmp_path: Path) -> None:
    folder = write_images(tmp_path, "a/1.png", "b/2.png", "c/3.png")
    with pytest.raises(DataError, match=r"the samples have 3 classes \(a, b, c\), the network tells 2 apart"):
        opened((folder, None), 2, training=True)
    with pytest.raises(DataError, match=r"have 3 classes .*the network tells 2 apart"):
        opened((folder, None), 1, training=True)
    assert len(opened((folder, None), 10, training=True).dataset.names) == 3
    # Without a training the number of a class would be a guess as long as others are missing.
    with pytest.raises(DataError, match="the network tells 10 apart, and which ones these are cannot be told"):
        opened((None, folder), 10, training=False)
    assert set(labels_of(opened((None, folder), 3, training=False)).values()) == {0, 1, 2}


def test_a_network_of_one_output_tells_two_classes_apart(tmp_path: Path) -> None:
    folder = write_images(tmp_path, "benign/1.png", "malignant/2.png")
    loader = opened((folder, None), 1, training=True)
    assert labels_of(loader) == {"benign/1.png": 0.0, "malignant/2.png": 1.0}
    (batch,) = loader.batches(0)
    assert batch.targets is not None
    assert (batch.targets.dtype, batch.targets.shape) == (torch.float32, (2, 1))


def test_random_geometry_of_inputs_needs_no_counterpart(tmp_path: Path) -> None:
    folder = write_images(tmp_path, "a/1.png", "b/2.png")
    loader = opened((folder, None), 2, training=True, input_transforms=[{"random_rotate": 20}])
    assert labels_of(loader) == {"a/1.png": 0, "b/2.png": 1}


def test_arrays_have_labels_too(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "samples.npz", np.zeros((4, 4)), np.zeros((4, 4)))
    labels = labels_of(opened((tmp_path, None), 2, training=True, input_type="numpy"))
    assert list(labels.values()) == [0, 0, 1, 1]


# --- accuracy


def test_the_fraction_of_correct_labels() -> None:
    output = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1.0], [5.0, 0.0, 0.0]])
    targets = torch.tensor([0, 1, 1, 2])
    assert label_counts(output, targets, "softmax").tolist() == [2, 4]
    assert label_counts(output, targets, "log_softmax", ignore_index=2).tolist() == [2, 3]
    accuracy = label_accuracy("softmax", None)
    assert accuracy.value(accuracy.count(output, targets) + accuracy.count(output[:1], targets[:1])) == 3 / 5


def test_one_output_predicts_from_one_half_up() -> None:
    output, targets = torch.tensor([[0.0], [-0.1], [0.6], [3.0]]), torch.tensor([[1.0], [0.0], [0.0], [1.0]])
    assert label_counts(output, targets, "sigmoid").tolist() == [3, 4]
    assert label_counts(output, targets, "linear").tolist() == [2, 4]


def test_the_lovasz_loss_of_a_label_is_that_of_one_pixel() -> None:
    output, targets = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0])
    pixels = lovasz(output[:, :, None, None], targets[:, None, None], "softmax")
    assert lovasz(output, targets, "softmax") == pixels
    # The class that occurs has the error 1 - p, and the Jaccard index of one pixel is all or nothing.
    assert pixels.item() == pytest.approx((1 - output.softmax(1)[:, 0]).mean().item())
