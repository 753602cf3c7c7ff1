"""The tutorial on seismic volumes on generated data: slices for training, and predictions put together again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from rmldnn_contract.exit_status import ExitStatus

from .runs import Document, Runs, layer


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
def seismic(working_folder: Path) -> Document:
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


def in_hdf5(data: Document) -> Document:
    """The same arrays, as the tutorial's later form has them."""
    data = data | {"type": "hdf5"}
    for key in [key for key in data if key.endswith("_path")]:
        path = Path(data[key])
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            file[path.stem] = np.load(path)
        path.unlink()
        data[key] = str(path.with_suffix(".h5"))
    return data


@pytest.mark.parametrize("kind", ["numpy", "hdf5"])
def test_seismic_volumes(kind: str, seismic: Document, run: Runs) -> None:
    target = np.load("parihaka/target3D_test.npy")[:8, :12, :16]
    if kind == "hdf5":
        seismic["neural_network"]["data"] = in_hdf5(seismic["neural_network"]["data"])
    evaluation = run.trains_and_resumes(seismic)
    assert "Slicer samples: 30 samples of 8x4x8" in run.lines  # 2 x 3 x 5
    assert "   Num samples (total): 30" in run.lines
    assert evaluation is not None
    assert evaluation.accuracy is not None
    assert evaluation.accuracy > 0.8
    data = {key: value for key, value in seismic["neural_network"]["data"].items() if key.startswith(("type", "test"))}
    whole = [{"name": "test_sample", "sizes": [8, 12, 16], "discard_remainders": True}]
    data = data | {"slicers": whole, "test_batch_size": 1}
    inference: Document = {"neural_network": {"layers": ROCK_LAYERS, "data": data}}
    inference["neural_network"]["checkpoints"] = {"load": "model_seismic3d/model_checkpoint_2.pt"}
    inference["neural_network"]["data"]["test_output_path"] = "./prediction/"
    run(inference, loss={"function": "Dice", "source": "log_softmax"})
    with h5py.File("prediction/output_1.h5") as file:
        predicted = file["0:8,0:12,0:16"][()].argmax(0)  # as the tutorial reads it
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
