"""The published tutorials' documents on generated data: each trains, goes on from its checkpoint and infers."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rmldnn_contract.exit_status import ExitStatus
from rmldnn_contract.training_log import EvalBatch, TrainBatch, parse_line, without_stamp
from rmldnn_torch.command_line import main

from .conftest import Document

Capture = pytest.CaptureFixture[str]


def layer(kind: str, name: str, **config: object) -> Document:
    return {"class_name": kind, "config": {"name": name, **config}}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Runs:
    """Runs documents in the working directory, and keeps what the last one printed."""

    def __init__(self, capsys: Capture) -> None:
        self._capsys = capsys
        self.lines: list[str] = []

    def __call__(self, document: Document, status: ExitStatus = ExitStatus.OK, **changes: object) -> None:
        """Runs ``document`` with other values for the keys of its ``neural_network``."""
        network = copy.deepcopy(document["neural_network"])
        network.update(changes)
        Path("config.json").write_text(json.dumps({"neural_network": network}), encoding="utf-8")
        assert main(["--config=config.json"]) == status
        self.lines = [without_stamp(line) for line in self._capsys.readouterr().out.splitlines()]

    @property
    def losses(self) -> list[float]:
        """Of the training batches that have a line."""
        return [line.loss for line in map(parse_line, self.lines) if isinstance(line, TrainBatch)]

    @property
    def evaluation(self) -> EvalBatch:
        """The last one."""
        return [line for line in map(parse_line, self.lines) if isinstance(line, EvalBatch)][-1]


@pytest.fixture
def run(capsys: Capture) -> Runs:
    return Runs(capsys)


def resumes(run: Runs, document: Document, checkpoint: str) -> None:
    """A training that begins with a checkpoint begins with less loss than one that begins anew."""
    run(document)
    first = run.losses[0]
    run(document, checkpoints={"load": checkpoint}, num_epochs=1)
    assert f"Loading model checkpoint from file: {checkpoint}" in run.lines
    assert run.losses[0] < first


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


@pytest.fixture
def digits() -> Document:
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
    run(digits)
    assert "   Total parameters: 21432" in run.lines  # as RocketML's log of the smoke test says
    assert "   Num of operations: 14" in run.lines
    assert "   Classes: 0, 1" in run.lines
    assert run.evaluation.accuracy is not None
    assert run.evaluation.accuracy > 0.9
    resumes(run, digits, "model/model_checkpoint_4.pt")
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
        pixels = np.full((20, 24, 3), generator.integers(100, 250, 3), dtype=np.uint8)
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
    resumes(run, document, "./model_checkpoints/model_checkpoint_20.pt")
    test = {"type": "images", "test_input_path": "natural_images/training", "transforms": data["transforms"]}
    inference: Document = {"neural_network": {"layers": layers, "data": test | {"test_output_path": "predictions"}}}
    run(inference, checkpoints={"load": "model_checkpoints/model_checkpoint_20.pt"})
    with h5py.File("predictions/output_1.h5") as file:
        assert list(file) == ["class_0", "class_1", "class_2"]
        assert file["class_0/0.jpg"].shape == (3, 16, 16)


# --- seismic volumes in slices


def write_layers_of_rock(name: str, shape: tuple[int, int, int], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A volume whose value tells one of three classes, which lie above each other, with some noise."""
    generator = np.random.default_rng(seed)
    depth = np.arange(shape[2]) + 2 * np.sin(np.arange(shape[0]) / 3)[:, None, None]
    classes = np.broadcast_to((depth * 3 / (shape[2] + 4)).clip(0, 2).astype(np.uint8), shape)
    volume = (classes - 1.0 + generator.normal(0, 0.2, shape)).astype(np.float32)
    Path("parihaka").mkdir(exist_ok=True)
    np.save(f"parihaka/input3D_{name}.npy", volume)
    np.save(f"parihaka/target3D_{name}.npy", classes)
    return volume, classes


ROCK_LAYERS = [
    layer("InputLayer", "data", batch_input_shape=[None, None, None, None, 1]),
    layer("Conv3D", "conv1", filters=6, kernel_size=[3, 3, 3], padding="same", activation="relu"),
    layer("Conv3D", "classes", filters=3, kernel_size=[1, 1, 1], activation="log_softmax"),
]


@pytest.fixture
def seismic() -> Document:
    write_layers_of_rock("train", (16, 12, 20), seed=1)
    write_layers_of_rock("test", (9, 12, 20), seed=2)
    data = {
        "type": "numpy",
        "input_path": "./parihaka/input3D_train.npy",
        "target_path": "./parihaka/target3D_train.npy",
        "test_input_path": "./parihaka/input3D_test.npy",
        "test_target_path": "./parihaka/target3D_test.npy",
        "batch_size": 4,
        "test_batch_size": 4,
        "preload": True,
        "slicers": [{"name": "samples", "sizes": [8, 4, 8], "strides": [8, 4, 3], "discard_remainders": True}],
    }
    network = {
        "outfile": "out_seismic3d.txt",
        "checkpoints": {"save": "./model_seismic3d/", "interval": 2},
        "layers": ROCK_LAYERS,
        "num_epochs": 2,
        "data": data,
        "optimizer": {"type": "Adam", "learning_rate": 0.02},
        "loss": {"function": "NLL"},
    }
    return {"neural_network": network}


def test_seismic_volumes(seismic: Document, run: Runs) -> None:
    run(seismic)
    assert "Slicer samples: 30 samples of 8x4x8" in run.lines  # 2 x 3 x 5
    assert "   Num samples (total): 30" in run.lines
    assert run.evaluation.accuracy is not None
    assert run.evaluation.accuracy > 0.8
    resumes(run, seismic, "model_seismic3d/model_checkpoint_2.pt")
    data = {key: value for key, value in seismic["neural_network"]["data"].items() if key.startswith(("type", "test"))}
    whole = [{"name": "test_sample", "sizes": [8, 12, 16], "discard_remainders": True}]
    inference: Document = {"neural_network": {"layers": ROCK_LAYERS, "data": data | {"slicers": whole}}}
    inference["neural_network"]["checkpoints"] = {"load": "model_seismic3d/model_checkpoint_2.pt"}
    inference["neural_network"]["data"]["test_output_path"] = "./prediction/"
    run(inference, loss={"function": "Dice", "source": "log_softmax"})
    with h5py.File("prediction/output_1.h5") as file:
        predicted = file["0:8,0:12,0:16"][()].argmax(0)  # as the tutorial reads it
    target = np.load("parihaka/target3D_test.npy")[:8, :12, :16]
    found, there = ([values == number for number in range(3)] for values in (predicted, target))
    dice = [2 * (f & t).sum() / (f.sum() + t.sum()) for f, t in zip(found, there, strict=True)]
    assert run.evaluation.accuracy == pytest.approx(np.mean(dice), abs=1e-3)


def test_predictions_for_slices_are_put_together(seismic: Document, run: Runs) -> None:
    """In two sets, padded, overlapping and with remainders; without targets, and in parts by themselves."""
    pointwise = [ROCK_LAYERS[0], layer("Conv3D", "classes", filters=3, kernel_size=[1, 1, 1], activation="softmax")]
    run(seismic, layers=pointwise)
    slicers = [
        {"name": "bricks", "sizes": [4, 5, 20], "strides": [3, 5, 20], "padding": [1, 2, 0]},
        {"sizes": [9, 12, 6], "padded_sizes": [9, 12, 8]},
    ]
    data = {"type": "numpy", "test_input_path": "parihaka/input3D_test.npy", "slicers": slicers, "test_batch_size": 3}
    data |= {"hdf5_outfile": "together.h5", "test_output_path": "apart"}
    inference: Document = {"neural_network": {"layers": pointwise, "data": data}}
    inference["neural_network"]["checkpoints"] = {"load": "model_seismic3d/model_checkpoint_2.pt"}
    run(inference)
    # A network that looks at single elements gives for the whole volume what it gives for any slice.
    whole = data | {"slicers": [{"name": "whole", "sizes": [9, 12, 20]}], "hdf5_outfile": "whole.h5"}
    run(inference, data=whole)
    with (
        h5py.File("together.h5") as together,
        h5py.File("whole.h5") as at_once,
        h5py.File("apart/output_1.h5") as apart,
    ):
        assert list(together) == ["bricks", "slice_set_2"]
        assert list(apart) == ["0:9,0:12,0:20"]
        for dataset in together.values():
            assert dataset.shape == (3, 9, 12, 20)
            np.testing.assert_allclose(dataset[()], at_once["whole"][()], atol=1e-6)
        np.testing.assert_array_equal(apart["0:9,0:12,0:20"][()], at_once["whole"][()])
    run(inference)
    with h5py.File("apart/output_1.h5") as apart, h5py.File("whole.h5") as at_once:
        assert list(apart) == ["bricks", "slice_set_2"]
        block = apart["bricks/3:7,10:12,0:20"][()]
        np.testing.assert_allclose(block, at_once["whole"][:, 3:7, 10:12], atol=1e-6)


def test_flat_slices_of_a_volume(seismic: Document, run: Runs) -> None:
    """Two sets of slices in two dimensions, one of them transposed, for one network."""
    layers = [
        layer("InputLayer", "data", batch_input_shape=[None, None, None, 1]),
        layer("Conv2D", "conv1", filters=6, kernel_size=[3, 3], padding="same", activation="relu"),
        layer("Conv2D", "classes", filters=3, kernel_size=[1, 1], activation="softmax"),
    ]
    slicers = [{"name": "yz", "sizes": [1, 12, 20]}, {"name": "xz", "sizes": [9, 1, 20], "transpose": True}]
    data = seismic["neural_network"]["data"] | {"slicers": slicers, "hdf5_outfile": "out.h5", "hdf5_precision": "half"}
    run(seismic, data=data, layers=layers, num_epochs=6)
    classes = np.load("parihaka/target3D_test.npy")
    with h5py.File("out.h5") as file:
        for dataset in (file["yz"], file["xz"]):
            assert (dataset.shape, dataset.dtype) == ((3, 9, 12, 20), np.float16)
            np.testing.assert_allclose(dataset[()].sum(axis=0, dtype=np.float32), 1, atol=2e-3)
            assert np.mean(dataset[()].argmax(axis=0) == classes) > 0.8
    assert run.evaluation.accuracy is not None


def test_a_network_that_shrinks_slices_cannot_have_them_put_together(seismic: Document, run: Runs) -> None:
    layers = [*ROCK_LAYERS[:2], layer("MaxPooling3D", "pool", pool_size=[2, 2, 2]), ROCK_LAYERS[2]]
    data = {"type": "numpy", "test_input_path": "parihaka/input3D_test.npy", "slicers": [{"sizes": [8, 4, 8]}]}
    run({"neural_network": {"layers": layers, "data": data | {"hdf5_outfile": "out.h5"}}}, status=ExitStatus.NETWORK)
    assert "the network gives 4x2x4 for slices of 8x4x8" in run.lines[-1]
    assert not Path("out.h5").exists()


def test_two_processes_put_together_what_one_does(seismic: Document, run: Runs, tmp_path: Path) -> None:
    run(seismic, num_epochs=2)
    slicers = [{"sizes": [4, 5, 20], "strides": [3, 5, 20]}]
    data = {"type": "numpy", "test_input_path": "parihaka/input3D_test.npy", "slicers": slicers, "test_batch_size": 3}
    inference: Document = {"neural_network": {"layers": ROCK_LAYERS, "data": data}}
    inference["neural_network"]["checkpoints"] = {"load": "model_seismic3d/model_checkpoint_2.pt"}
    run(inference, data=data | {"hdf5_outfile": "one.h5"})
    inference["neural_network"]["data"] = data | {"hdf5_outfile": "two.h5"}
    Path("two.json").write_text(json.dumps(inference), encoding="utf-8")
    environment = {"PYTHONPATH": ":".join(sys.path), "OMPI_COMM_WORLD_SIZE": "2", "PMIX_NAMESPACE": str(tmp_path)}
    environment["RMLDNN_PRECISION"] = "float32"
    command = [sys.executable, "-m", "rmldnn_torch", "--config=two.json"]
    processes = [
        subprocess.Popen(command, env=environment | {"OMPI_COMM_WORLD_RANK": str(rank)}, stdout=subprocess.DEVNULL)
        for rank in range(2)
    ]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    with h5py.File("one.h5") as one, h5py.File("two.h5") as two:
        np.testing.assert_allclose(two["slice_set_1"][()], one["slice_set_1"][()], atol=1e-5)
