"""The tutorials on transfer learning on generated data: ResNet-50 with a frozen trunk and a new head.

The network files are the published ones, layer by layer, with fewer filters and for smaller images.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.network import Network

from .keras_references_reader import Weights, write_keras_file
from .published_networks import birds_classifier, satellite_classifier, scaled_down, weights_by_formula
from .runs import Document, Runs

CLASSES = {"blue jay": (40, 60, 200), "cardinal": (200, 30, 40), "goldfinch": (220, 190, 30)}


def write_birds(folder: Path, count: int, seed: int) -> None:
    """JPEG files of noise around the colour of each class, in a folder of its name."""
    generator = np.random.default_rng(seed)
    for name, color in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.normal(color, 40, (40, 48, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.jpg")


def trained_elsewhere(network_file: Document, path: Path) -> Weights:
    """Writes weights for the trunk, and for a head with another name that the network file does not have."""
    weights = weights_by_formula(Network(read_network(network_file)), without=("dense",))
    weights["predictions"] = {"predictions/kernel:0": np.ones((128, 1000), np.float32)}
    write_keras_file(path, weights)
    return weights


def parameters_in(checkpoint: str) -> dict[str, torch.Tensor]:
    parameters: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["parameters"]
    return parameters


@pytest.fixture
def birds(working_folder: Path) -> Document:
    write_birds(Path("data/train"), 12, seed=1)
    write_birds(Path("data/valid"), 4, seed=2)
    data = {
        "input_type": "images",
        "target_type": "labels",
        "input_path": "./data/train/",
        "test_input_path": "./data/valid/",
        "batch_size": 12,
        "test_batch_size": 128,
        "preload": True,
        "transforms": [{"resize": [32, 32]}],
    }
    network = {
        "num_epochs": 6,
        "outfile": "out_classifier.txt",
        "layers": "./layers.json",
        "checkpoints": {"load": "./model_resnet50_imagenet.h5", "save": "model_checkpoints_save/", "interval": 2},
        "data": data,
        "optimizer": {
            "type": "Adam",
            "learning_rate": 0.05,
            "lr_scheduler": {"type": "Exponential", "gamma": 0.95},
        },
        "loss": {"function": "NLL"},
    }
    return {"neural_network": network}


def is_told_apart(document: Document, run: Runs) -> None:
    """Whether an inference without labels finds the class of each image, as the tutorial reads predictions."""
    inference: Document = {
        "layers": document["neural_network"]["layers"],
        "checkpoints": {"load": "./model_checkpoints_save/model_checkpoint_6.pt"},
        "data": {
            "input_type": "images",
            "test_input_path": "./data/valid/",
            "test_output_path": "./predictions/",
            "transforms": [{"resize": [32, 32]}],
        },
    }
    run({"neural_network": inference})
    with h5py.File("predictions/output_1.h5") as file:
        predicted = {group: [int(np.argmax(file[group][name][()])) for name in file[group]] for group in file}
    assert predicted == {name: [number] * 4 for number, name in enumerate(sorted(CLASSES))}


def test_a_frozen_trunk(birds: Document, run: Runs) -> None:
    network_file = scaled_down(birds_classifier(3, blocks=(1, 1, 1, 1)), 32, divisor=16)
    Path("layers.json").write_text(json.dumps(network_file), encoding="utf-8")
    weights = trained_elsewhere(network_file, Path("model_resnet50_imagenet.h5"))

    run(birds, num_epochs=1)

    assert "   Trainable parameters: 387" in run.lines  # 128 features to 3 classes, and a bias for each
    assert "   Classes: blue jay, cardinal, goldfinch" in run.lines
    assert "Loading model checkpoint from HDF5 file: ./model_resnet50_imagenet.h5" in run.lines
    assert [line for line in run.lines if line.startswith("   Skipping")] == [
        "   Skipping parameter predictions.weight (predictions/kernel:0): not found in model",
        "   Skipping parameter dense.weight (dense/kernel:0): not found in model",
        "   Skipping parameter dense.bias (dense/bias:0): not found in model",
    ]

    evaluation = run.trains_and_resumes(birds)
    assert evaluation is not None
    assert evaluation.accuracy == 1
    learnt = parameters_in("model_checkpoints_save/model_checkpoint_6.pt")
    kernel = weights["conv3_block1_2_conv"]["conv3_block1_2_conv/kernel:0"]
    np.testing.assert_array_equal(learnt["conv3_block1_2_conv.weight"], kernel.transpose(3, 2, 0, 1))
    norm = weights["conv5_block1_3_bn"]
    for name, keras_name in {
        "weight": "gamma",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }.items():
        stored = norm[f"conv5_block1_3_bn/{keras_name}:0"]
        np.testing.assert_array_equal(learnt[f"conv5_block1_3_bn.{name}"], stored)
    is_told_apart(birds, run)


def test_a_trunk_whose_normalizations_follow_the_data(birds: Document, run: Runs) -> None:
    network_file = scaled_down(satellite_classifier(3, blocks=(1, 1)), 32, divisor=8)
    Path("layers.json").write_text(json.dumps(network_file), encoding="utf-8")
    weights = trained_elsewhere(network_file, Path("model_resnet50_imagenet.h5"))
    evaluation = run.trains_and_resumes(birds)
    assert evaluation is not None
    assert evaluation.accuracy == 1
    learnt = parameters_in("model_checkpoints_save/model_checkpoint_6.pt")
    assert not {"conv1_bn.weight", "conv1_bn.bias", "dense.bias"} & learnt.keys()
    kernel = weights["conv1_conv"]["conv1_conv/kernel:0"]
    np.testing.assert_array_equal(learnt["conv1_conv.weight"], kernel.transpose(3, 2, 0, 1))
    assert not np.allclose(learnt["conv1_bn.running_mean"], weights["conv1_bn"]["conv1_bn/moving_mean:0"])
    is_told_apart(birds, run)
