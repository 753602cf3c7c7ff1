"""The tutorials' documents on generated data: each trains, goes on from its checkpoint and infers.

Here those that classify and the one on inpainting; ``test_tutorial_masks`` has those that segment images, and
``test_tutorial_volumes`` the seismic one. Documents have the published keys; data and networks are smaller.
"""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from rmldnn_contract.exit_status import ExitStatus

from .published_networks import published
from .runs import Document, Runs, layer

# --- classification, as RocketML's smoke test and its MNIST tutorial


SMOKE_LAYERS = [
    layer("Conv2D", "conv1", batch_input_shape=[None, 28, 28, 1], filters=10, kernel_size=[5, 5], use_bias=True),
    layer("MaxPooling2D", "max_pool_1", pool_size=[2, 2]),
    layer("Activation", "relu_1", trainable=True, activation="relu"),
    layer("Conv2D", "conv2", filters=20, kernel_size=[5, 5], activation="linear"),
    layer("SpatialDropout2D", "spat_drop", rate=0),
    layer("MaxPooling2D", "max_pool_2", pool_size=[2, 2]),
    layer("Activation", "relu_2", trainable=True, activation="relu"),
    layer("Flatten", "flatten_1", trainable=True, data_format="channels_last"),
    layer("Dense", "fc1", units=50, activation="linear", use_bias=True),
    layer("Activation", "relu_3", trainable=True, activation="relu"),
    layer("Dropout", "dropout", rate=0),
    layer("Dense", "fc2", units=2, activation="linear", use_bias=True),
    layer("Activation", "softmax", trainable=True, activation="log_softmax", axis=1),
]


def write_digits(folder: Path, count: int, seed: int) -> None:
    """Rings (0) and strokes (1) in folders of these names, as JPEG files of 28x28."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:28, :28]
    for number in range(count):
        for digit in ("0", "1"):
            row, column = generator.uniform(11, 16, size=2)
            distance = np.hypot(rows - row, columns - column) if digit == "0" else np.abs(columns - column) + 8
            drawn = np.abs(distance - 8) < 2
            pixels = np.clip(drawn * 220 + generator.normal(10, 10, drawn.shape), 0, 255).astype(np.uint8)
            (folder / digit).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / digit / f"image_{number}.jpg")


def write_marks(folder: Path, count: int, seed: int) -> None:
    """A bright square at one of ten places, in a folder for each, as JPEG files of 28x28."""
    generator = np.random.default_rng(seed)
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for number in range(count):
            pixels = generator.normal(20, 10, (28, 28))
            top, left = np.array(divmod(digit, 5)) * (14, 5) + generator.integers(1, 3, size=2)
            pixels[top : top + 8, left : left + 4] += 200
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / str(digit) / f"image_{number}.jpg")


@pytest.fixture
def digits(working_folder: Path) -> Document:
    write_digits(Path("data/mnist_jpg/training"), 24, seed=1)
    write_digits(Path("data/mnist_jpg/testing"), 8, seed=2)
    network = {
        "outfile": "out_dnn_mnist_sgd.txt",
        "num_epochs": 4,
        "checkpoints": {"save": "model/", "interval": 4},
        "data": {
            "input_type": "images",
            "input_path": "./data/mnist_jpg/training/",
            "test_input_path": "./data/mnist_jpg/testing/",
            "target_type": "labels",
            "batch_size": 16,
            "training_tag": "training",
            "test_tag": "testing",
            "grayscale": True,
            "transforms": [{"resize": [28, 28]}],
        },
        "optimizer": {"type": "SGD", "learning_rate": 0.02, "momentum": 0.5},
        "loss": {"function": "NLL"},
        "layers": SMOKE_LAYERS,
    }
    return {"neural_network": network}


def test_classification(digits: Document, run: Runs) -> None:
    evaluation = run.trains_and_resumes(digits)
    assert "   Total parameters: 21432" in run.lines  # as RocketML's log of the smoke test says
    assert "   Num of operations: 14" in run.lines
    assert "   Classes: 0, 1" in run.lines
    assert evaluation is not None
    assert evaluation.accuracy is not None
    assert evaluation.accuracy > 0.9
    data = {"input_type": "images", "grayscale": True, "test_input_path": "data/mnist_jpg/testing"}
    inference: Document = {
        "neural_network": {"layers": SMOKE_LAYERS, "data": data | {"test_output_path": "predictions/"}}
    }
    run(inference, checkpoints={"load": "model/model_checkpoint_4.pt"})
    with h5py.File("predictions/output_1.h5") as file:
        predicted = {group: [np.argmax(file[group][d][()]) for d in file[group]] for group in file}
        assert file["0"]["image_0.jpg"].shape == (2,)
    assert list(predicted) == ["0", "1"]
    right = sum(predicted[name].count(int(name)) for name in predicted)
    labelled = {"input_type": "images", "target_type": "labels", **data}
    run(inference, checkpoints={"load": "model/model_checkpoint_4.pt"}, data=labelled, loss={"function": "NLL"})
    assert run.evaluation.accuracy == pytest.approx(right / 16, abs=1e-3)


def test_mnist(working_folder: Path, run: Runs) -> None:
    """Keras's network for all ten digits, a ``Sequential`` that ends in ``log_softmax``."""
    (working_folder / "mnist_keras_net.json").write_text(json.dumps(published("mnist")), encoding="utf-8")
    write_marks(Path("mnist_jpg/training"), 8, seed=1)
    write_marks(Path("mnist_jpg/testing"), 2, seed=2)
    network = {
        "outfile": "out_dnn_mnist.txt",
        "num_epochs": 5,
        "layers": "./mnist_keras_net.json",
        "checkpoints": {"save": "mnist_model/", "interval": 5},
        "data": {
            "input_type": "images",
            "target_type": "labels",
            "input_path": "./mnist_jpg/training/",
            "test_input_path": "./mnist_jpg/testing/",
            "batch_size": 8,
            "test_batch_size": 128,
            "preload": True,
            "grayscale": True,
        },
        "optimizer": {"type": "Adam", "learning_rate": 0.003},
        "loss": {"function": "NLL"},
    }
    evaluation = run.trains_and_resumes({"neural_network": network})
    assert "   Trainable parameters: 34826" in run.lines
    assert evaluation is not None
    assert evaluation.accuracy is not None
    assert evaluation.accuracy > 0.9
    inference: Document = {
        "layers": "./mnist_keras_net.json",
        "checkpoints": {"load": "./mnist_model/model_checkpoint_5.pt"},
        "data": {
            "input_type": "images",
            "test_input_path": "./mnist_jpg/testing/",
            "test_output_path": "./mnist_predictions/",
            "grayscale": True,
        },
    }
    run({"neural_network": inference})
    with h5py.File("mnist_predictions/output_1.h5") as file:
        outputs = {digit: np.stack([dataset[()] for dataset in file[digit].values()]) for digit in file}
    right = sum((values.argmax(axis=1) == int(digit)).sum() for digit, values in outputs.items())
    assert evaluation.accuracy == pytest.approx(right / 20, abs=1e-3)
    np.testing.assert_allclose([np.exp(values).sum(axis=1) for values in outputs.values()], 1, atol=1e-5)


@pytest.mark.parametrize("function", ["BCE", "MSE", "Dice", "Jaccard", "Focal", "Lovasz"])
@pytest.mark.parametrize("end", ["softmax", "sigmoid", "one output"])
def test_other_losses_take_labels_as_classes_of_their_own(digits: Document, run: Runs, function: str, end: str) -> None:
    units = 1 if end == "one output" else 2
    activation = "sigmoid" if units == 1 else end
    layers = [*SMOKE_LAYERS[:-2], layer("Dense", "fc2", units=units, activation=activation)]
    run(digits, loss={"function": function}, layers=layers, optimizer={"type": "Adam", "learning_rate": 0.003})
    assert run.evaluation.accuracy is not None
    assert run.evaluation.accuracy > 0.9


def test_a_network_for_masks_is_none_for_labels(digits: Document, run: Runs) -> None:
    layers = [*SMOKE_LAYERS[:1], layer("Activation", "softmax", activation="log_softmax")]
    run(digits, status=ExitStatus.NETWORK, layers=layers)
    assert "the network gives 24x24 for images of 28x28, the targets are one number for each class" in run.lines[-1]
    assert "end the network in Flatten or GlobalAveragePooling and Dense" in run.lines[-1]


# --- inpainting: images to themselves with patches cut out


def test_inpainting(run: Runs) -> None:
    generator = np.random.default_rng(0)
    for number in range(12):
        folder = Path("natural_images/training", f"class_{number % 3}")
        folder.mkdir(parents=True, exist_ok=True)
        color = np.roll((220, 150, 100), number % 3) + generator.integers(-20, 20, 3)
        pixels = np.full((20, 24, 3), color, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    layers = [
        layer("InputLayer", "data", batch_input_shape=[None, 16, 16, 3]),
        layer("Conv2D", "encode", filters=8, kernel_size=[3, 3], strides=[2, 2], padding="same", activation="relu"),
        layer("Conv2DTranspose", "decode", filters=3, kernel_size=[4, 4], strides=[2, 2], padding="same"),
        layer("Activation", "sigmoid", activation="sigmoid"),
    ]
    data: Document = {
        "type": "images",
        "input_path": "./natural_images/training/",
        "target_path": "./natural_images/training/",
        "batch_size": 4,
        "preload": True,
        "transforms": [{"resize": [16, 16]}, {"random_patches": {"number": 4, "size": 4}}],
    }
    document: Document = {
        "neural_network": {
            "num_epochs": 20,
            "outfile": "out_inpaint_feature_extraction.txt",
            "layers": layers,
            "checkpoints": {"save": "./model_checkpoints/", "interval": 10},
            "data": data,
            "optimizer": {"type": "Adam", "learning_rate": 0.01},
            "loss": {"function": "BCE"},
        }
    }
    run.trains_and_resumes(document)
    test = {"type": "images", "test_input_path": "natural_images/training", "transforms": data["transforms"]}
    inference: Document = {"neural_network": {"layers": layers, "data": test | {"test_output_path": "predictions"}}}
    run(inference, checkpoints={"load": "model_checkpoints/model_checkpoint_20.pt"})
    with h5py.File("predictions/output_1.h5") as file:
        assert list(file) == ["class_0", "class_1", "class_2"]
        assert file["class_0/0.jpg"].shape == (3, 16, 16)
    # The second part of the tutorial: what was learnt without labels tells classes apart.
    head = [layer("GlobalAveragePooling2D", "pool"), layer("Dense", "classes", units=3, activation="log_softmax")]
    frozen = {"class_name": "Conv2D", "config": layers[1]["config"] | {"trainable": False}}
    labelled = {"input_type": "images", "target_type": "labels", "input_path": "./natural_images/training/"}
    labelled |= {"test_input_path": "./natural_images/training", "transforms": [{"resize": [16, 16]}]}
    classifier: Document = {
        "num_epochs": 3,
        "outfile": "out_inpaint_classifier.txt",
        "layers": [layers[0], frozen, *head],
        "checkpoints": {"load": "./model_checkpoints/model_checkpoint_20.pt"},
        "data": labelled,
        "optimizer": {"type": "Hessian", "max_iterations": 10},
        "loss": {"function": "NLL"},
    }
    run({"neural_network": classifier})
    assert "   Skipping parameter decode.weight (decode.weight): not found in model" in run.lines
    assert run.evaluation.accuracy == 1
