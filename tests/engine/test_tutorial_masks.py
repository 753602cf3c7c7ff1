"""The tutorials on segmentation on generated data: pets in three classes, brain scans in two.

The network files are the published ones, layer by layer, with fewer filters and for smaller images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rmldnn_torch.architectures import resunet
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.network import Network

from .keras_references_reader import write_keras_file
from .published_networks import published, scaled_down, weights_by_formula
from .runs import Document, Runs

SIZE = 32


def write_discs(inputs: Path, masks: Path, count: int, levels: tuple[int, int, int], seed: int) -> None:
    """Images in colours of a bright disc with a rim, and grey masks of the ``levels`` around, inside and on the rim."""
    generator = np.random.default_rng(seed)
    inputs.mkdir(parents=True)
    masks.mkdir(parents=True)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    colors = np.array([(60, 90, 50), (200, 160, 120), (20, 20, 200)])
    for number in range(count):
        row, column = generator.uniform(12, SIZE - 12, size=2)
        distance = np.hypot(rows - row, columns - column)
        classes = np.where(distance < 7, 1, np.where(distance < 10, 2, 0))
        pixels = generator.normal(colors[classes], 20).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(inputs / f"{number:02}.jpg")
        Image.fromarray(np.array(levels, np.uint8)[classes]).save(masks / f"{number:02}.png")


def masks_in(folder: Path) -> dict[str, NDArray[np.uint8]]:
    return {path.stem: np.asarray(Image.open(path)) for path in sorted(folder.iterdir())}


def dice(predicted: list[Any], truth: list[Any], num_classes: int) -> float:
    """The coefficient of each class over all pixels, averaged over the classes."""
    found, there = np.stack(predicted), np.stack(truth)
    overlap = [2 * ((found == number) & (there == number)).sum() for number in range(num_classes)]
    total = [(found == number).sum() + (there == number).sum() for number in range(num_classes)]
    return float(np.mean(np.divide(overlap, total)))


def test_pets(run: Runs) -> None:
    """An Xception-style U-Net of separable convolutions, which ends in a softmax over pet, background and rim."""
    network_file = scaled_down(published("xception"), SIZE, divisor=4)
    Path("network_xception2D.json").write_text(json.dumps(network_file), encoding="utf-8")
    for part, count, seed in (("training", 32, 1), ("testing", 4, 2)):
        folder = Path("oxford_pets", part)
        write_discs(folder / "inputs", folder / "masks", count, levels=(1, 0, 2), seed=seed)
    network: Document = {
        "outfile": "out_dnn_pets_segmentation.txt",
        "num_epochs": 10,
        "layers": "./network_xception2D.json",
        "checkpoints": {"save": "model_pets_segmentation/", "interval": 5},
        "data": {
            "type": "images",
            "input_path": "./oxford_pets/training/inputs/",
            "target_path": "./oxford_pets/training/masks/",
            "test_input_path": "./oxford_pets/testing/inputs/",
            "test_target_path": "./oxford_pets/testing/masks/",
            "batch_size": 4,
            "test_batch_size": 128,
            "preload": True,
            "target_grayscale": True,
            "target_is_mask": True,
            "transforms": [{"resize": [SIZE, SIZE]}, {"normalize": {"mean": 0.0, "std": 0.003921568}}],
        },
        "optimizer": {"type": "rmsprop", "learning_rate": 3e-4},
        "loss": {"function": "Dice", "source": "softmax"},
    }
    evaluation = run.trains_and_resumes({"neural_network": network})
    assert evaluation is not None
    assert evaluation.accuracy is not None
    assert evaluation.accuracy > 0.7
    inference: Document = {
        "layers": "./network_xception2D.json",
        "checkpoints": {"load": "./model_pets_segmentation/model_checkpoint_10.pt"},
        "data": {
            "type": "images",
            "test_input_path": "./oxford_pets/testing/inputs/",
            "test_output_path": "./predictions/",
            "test_batch_size": 3,
            "transforms": [{"resize": [SIZE, SIZE]}, {"normalize": {"std": 0.003921568}}],
        },
    }
    run({"neural_network": inference})
    with h5py.File("predictions/output_1.h5") as file:
        probabilities = {name.removesuffix(".jpg"): file[name][()] for name in file}
    truth = masks_in(Path("oxford_pets/testing/masks"))
    assert list(probabilities) == list(truth)
    np.testing.assert_allclose([values.sum(axis=0) for values in probabilities.values()], 1, atol=1e-5)
    predicted = [values.argmax(axis=0) for values in probabilities.values()]
    assert abs(dice(predicted, [*truth.values()], 3) - evaluation.accuracy) < 1e-3


def test_brain_scans(run: Runs) -> None:
    """The U-Net over a ResNet-50 with weights from a Keras file, for masks of 0 and 255."""
    network_file = scaled_down(resunet(SIZE, SIZE), SIZE, divisor=4)
    Path("layers_resunet.json").write_text(json.dumps(network_file), encoding="utf-8")
    weights = weights_by_formula(Network(read_network(network_file)), without=("decoder", "final"))
    write_keras_file(Path("model_resunet.h5"), weights)
    write_discs(Path("data/train_image"), Path("data/train_mask"), 16, levels=(0, 255, 0), seed=1)
    write_discs(Path("data/test_image"), Path("data/test_mask"), 4, levels=(0, 255, 0), seed=2)
    network: Document = {
        "outfile": "out_segmentation_resunet.txt",
        "num_epochs": 10,
        "layers": "./layers_resunet.json",
        "checkpoints": {"load": "./model_resunet.h5", "save": "model_MRI_segmentation_resunet/", "interval": 10},
        "data": {
            "type": "images",
            "input_path": "./data/train_image/",
            "target_path": "./data/train_mask/",
            "test_input_path": "./data/test_image/",
            "test_target_path": "./data/test_mask/",
            "batch_size": 4,
            "test_batch_size": 64,
            "preload": True,
            "target_grayscale": True,
            "target_is_mask": True,
            "transforms": [{"resize": [SIZE, SIZE]}],
        },
        "optimizer": {
            "type": "adam",
            "learning_rate": 0.01,
            "lr_scheduler": {"type": "Exponential", "gamma": 0.95, "verbose": True},
        },
        "loss": {"function": "Dice", "source": "sigmoid"},
    }
    run({"neural_network": network}, num_epochs=2)
    assert "Loading model checkpoint from HDF5 file: ./model_resunet.h5" in run.lines
    assert "   Skipping parameter bn_data.weight (bn_data/gamma:0): not found in model" in run.lines
    assert "Learning rate: 0.0095" in run.lines
    evaluation = run.trains_and_resumes({"neural_network": network})
    assert evaluation is not None
    assert evaluation.accuracy is not None
    assert evaluation.accuracy > 0.7
    inference: Document = {
        "debug": True,
        "layers": "./layers_resunet.json",
        "checkpoints": {"load": "./model_MRI_segmentation_resunet/model_checkpoint_10.pt"},
        "data": {
            "type": "images",
            "test_input_path": "./data/test_image/",
            "test_output_path": "./predictions/",
            "test_batch_size": 16,
            "transforms": [{"resize": [SIZE, SIZE]}],
        },
    }
    run({"neural_network": inference})
    with h5py.File("predictions/output_1.h5") as file:
        predicted = [file[name][0, :, :].round() for name in file]  # as the tutorial reads it
    truth = [values // 255 for values in masks_in(Path("data/test_mask")).values()]
    assert abs(dice(predicted, truth, 2) - evaluation.accuracy) < 1e-3
