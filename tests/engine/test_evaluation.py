"""Evaluation and inference: the numbers of an Eval line, got again in other ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rmldnn_contract.exit_status import ExitStatus
from rmldnn_contract.training_log import EvalBatch, parse_line, read_epochs, without_stamp
from rmldnn_torch.command_line import main

from .conftest import Document, convolution, layers_of

Written = Callable[[Document], Path]
Capture = pytest.CaptureFixture[str]
Infer = Callable[[Document], list[str]]


def run(path: Path, capsys: Capture, *, status: ExitStatus = ExitStatus.OK) -> list[str]:
    assert main([f"--config={path}"]) == status
    return [without_stamp(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def trained(written: Written, capsys: Capture) -> list[str]:
    """The log of a training of three epochs, whose checkpoints lie in the working directory."""
    return run(written({"num_epochs": 3}), capsys)


@pytest.fixture
def infer(document: Document, trained: list[str], tmp_path: Path, capsys: Capture) -> Infer:
    """Runs the trained network on the test images; the argument changes the ``data`` section."""

    def run_inference(changes: Document) -> list[str]:
        network = document["neural_network"]
        data = {key: value for key, value in network["data"].items() if key not in {"input_path", "target_path"}}
        inference = {
            "layers": network["layers"],
            "checkpoints": {"load": "checkpoints/model_checkpoint_3.pt"},
            "data": {**data, "test_output_path": "predictions", **changes},
            "loss": network["loss"],
        }
        path = tmp_path / "config_test.json"
        path.write_text(json.dumps({"neural_network": inference}), encoding="utf-8")
        return run(path, capsys)

    return run_inference


def predictions() -> dict[str, NDArray[np.float32]]:
    """What the tutorial's viewer reads."""
    with h5py.File("predictions/output_1.h5", "r") as file:
        return {name: file[name][0, :, :] for name in file}


def test_inference_repeats_the_numbers_of_the_training(trained: list[str], infer: Infer) -> None:
    *_, last = read_epochs(trained)
    (again,) = read_epochs(infer({}))
    assert (again.accuracy, again.test_loss) == (last.accuracy, last.test_loss)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_batch_size_makes_no_difference(infer: Infer, batch_size: int) -> None:
    (expected,) = read_epochs(infer({}))
    (other,) = read_epochs(infer({"test_batch_size": batch_size}))
    assert other.accuracy == pytest.approx(expected.accuracy, abs=1e-3)
    assert other.test_loss == pytest.approx(expected.test_loss, abs=1e-4)


def test_loss_and_accuracy_follow_from_the_predictions(infer: Infer, lesions: Path) -> None:
    (record,) = read_epochs(infer({}))
    given = predictions()
    masks = {name: np.asarray(Image.open(lesions / "test" / "targets" / name)) > 0 for name in given}
    probability, truth = (np.concatenate([part[name].ravel() for name in given]) for part in (given, masks))
    loss = -np.mean(np.where(truth, np.log(probability), np.log1p(-probability)))
    inside = probability.round() == 1
    foreground = 2 * (inside & truth).sum() / (inside.sum() + truth.sum())
    background = 2 * (~inside & ~truth).sum() / ((~inside).sum() + (~truth).sum())
    assert record.test_loss == pytest.approx(loss, abs=1e-4)
    assert record.accuracy == pytest.approx((foreground + background) / 2, abs=1e-3)


def test_lines_have_running_values_and_the_last_one_comes_always(infer: Infer) -> None:
    lines = infer({"test_batch_size": 1})
    evaluations = [line for line in map(parse_line, lines) if isinstance(line, EvalBatch)]
    assert evaluations[-1].is_last
    assert (evaluations[-1].batch, evaluations[-1].num_batches, evaluations[-1].num_epochs) == (8, 8, 1)
    place = next(number for number, line in enumerate(lines) if line.startswith("Eval"))
    assert lines[place - 1] == "-" * 45
    assert lines[-2] == "-" * 45


def test_without_targets_there_are_predictions_only(infer: Infer) -> None:
    with_targets = infer({}), predictions()
    lines = infer({"test_target_path": None})
    assert any(line == "Eval  Epoch [  1/  1] : Batch [    2/    2]" for line in lines)
    for name, expected in with_targets[1].items():
        np.testing.assert_array_equal(predictions()[name], expected)


def test_random_geometry_does_not_touch_an_evaluation(infer: Infer) -> None:
    expected = infer({}), predictions()
    infer({"transforms": [{"random_rotate": 90}, {"random_horizontal_flip": 1.0}, {"jitter_crop": 0.5}]})
    for name, values in expected[1].items():
        np.testing.assert_array_equal(predictions()[name], values)


def test_the_last_epoch_of_a_training_writes_predictions_too(written: Written, capsys: Capture, infer: Infer) -> None:
    run(written({"num_epochs": 3, "data.test_output_path": "during"}), capsys)
    infer({})
    with h5py.File("during/output_1.h5", "r") as file:
        for name, values in predictions().items():
            np.testing.assert_array_equal(file[name][0], values)


def test_an_inference_leaves_the_weights_alone(infer: Infer) -> None:
    before = torch.load("checkpoints/model_checkpoint_3.pt", weights_only=True)["parameters"]
    infer({})
    after = torch.load("checkpoints/model_checkpoint_3.pt", weights_only=True)["parameters"]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert sorted(path.name for path in Path("checkpoints").iterdir())[-1] == "model_checkpoint_3.pt"


def test_a_network_that_would_stay_random_in_part_is_not_run(
    document: Document, trained: list[str], written: Written, capsys: Capture
) -> None:
    layers = layers_of(*(convolution(name, 8, "relu") for name in ("conv1", "conv2", "conv3")))
    document["neural_network"]["data"].pop("input_path")
    document["neural_network"]["data"].pop("target_path")
    path = written({"layers": layers, "checkpoints": {"load": "checkpoints/model_checkpoint_3.pt"}})
    lines = run(path, capsys, status=ExitStatus.CHECKPOINT)
    assert "lacks 2 weights of the network, conv3." in lines[-1]
