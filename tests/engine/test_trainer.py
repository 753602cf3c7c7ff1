"""Training through the command line, judged by the log and the files that it leaves."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from rmldnn_contract.exit_status import ExitStatus
from rmldnn_contract.training_log import (
    EpochRecord,
    TrainBatch,
    parse_line,
    parse_test_file,
    read_epochs,
    without_stamp,
)
from rmldnn_torch.command_line import main
from rmldnn_torch.devices import num_cpus
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.network import Network

from .conftest import Document, convolution, layers_of

Written = Callable[[Document], Path]
Capture = pytest.CaptureFixture[str]


def run(path: Path, capsys: Capture, *options: str, status: int = ExitStatus.OK) -> list[str]:
    """The lines of a run, without their times."""
    assert main([f"--config={path}", *options]) == status
    output = capsys.readouterr()
    assert output.err == ""
    return [without_stamp(line) for line in output.out.splitlines()]


def train_lines(lines: list[str]) -> list[TrainBatch]:
    return [line for line in map(parse_line, lines) if isinstance(line, TrainBatch)]


def numbers_only(lines: list[str]) -> list[str]:
    """What two runs share: percentages of time differ, and so does which batches before an epoch's last have a line."""
    kept = [line for line in lines if not _is_before_the_last_batch(line)]
    return [re.sub(r" \[Data: .*", "", line) for line in kept]


def _is_before_the_last_batch(line: str) -> bool:
    batch = re.search(r"Batch \[ *(\d+)/ *(\d+)\]", line)
    return batch is not None and batch[1] != batch[2]


def parameters(path: Path) -> Mapping[str, Tensor]:
    loaded: Mapping[str, Tensor] = torch.load(path, weights_only=True)["parameters"]
    return loaded


def images_of(folder: Path) -> tuple[Tensor, Tensor]:
    """Inputs and masks of a folder, read with Pillow alone."""
    names = sorted(path.name for path in (folder / "inputs").iterdir())
    arrays = [
        np.stack([np.asarray(Image.open(folder / kind / name)) for name in names]) for kind in ("inputs", "targets")
    ]
    inputs, targets = (torch.from_numpy(array / np.float32(255)).unsqueeze(1) for array in arrays)
    return inputs, targets


def test_a_network_learns(written: Written, capsys: Capture) -> None:
    lines = run(written({"num_epochs": 10, "loss.function": "Dice"}), capsys)
    epochs = list(read_epochs(lines))
    losses = [line.loss for line in train_lines(lines)]
    assert len(epochs) == 10
    assert losses[-1] < losses[0] / 2
    # Background alone is worth about 0.45 here: the discs cover a seventh of the images.
    assert epochs[-1].accuracy is not None
    assert epochs[-1].accuracy > 0.9
    assert epochs[0].accuracy is not None
    assert epochs[-1].accuracy > epochs[0].accuracy
    assert lines[-1] == "All done (return value = 0)."


def test_the_blocks_of_the_log_come_in_the_published_order(written: Written, capsys: Capture) -> None:
    lines = run(written({}), capsys)
    heads = ["rmldnn-torch", "Device(s)", "Neural Network", "Optimizer", "Learning rate scheduler", "Loss"]
    heads += ["Discovering training input images...", "Discovering training target images...", "Dataset (training)"]
    heads += ["Discovering test input images...", "Discovering test target images...", "Dataset (test)"]
    heads += ["Train Epoch [  1/  2]", "-----", "Eval  Epoch [  1/  2]", "-----", "Train Epoch [  2/  2]", "-----"]
    heads += ["Eval  Epoch [  2/  2]", "-----", "All done"]
    places: list[int] = []
    for head in heads:
        start = places[-1] + 1 if places else 0
        places.append(next(place for place in range(start, len(lines)) if lines[place].startswith(head)))
    assert "   Total parameters: 737" in lines  # 9*8+8, 9*8*8+8, 9*8+1
    assert "   Num of operations: 7" in lines  # the input, three convolutions, their activations
    assert "   Num images (total): 24" in lines
    assert "   Num batches (per process): 3" in lines


def test_the_first_line_has_the_loss_and_the_gradient_of_the_first_batch(
    written: Written, document: Document, lesions: Path, capsys: Capture
) -> None:
    lines = run(written({"data.batch_size": 24, "num_epochs": 1}), capsys, "--seed=5")
    torch.manual_seed(5)
    network = Network(read_network(document["neural_network"]["layers"]))
    inputs, targets = images_of(lesions / "train")
    loss = functional.binary_cross_entropy(network(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()
    (line,) = train_lines(lines)
    assert (line.batch, line.num_batches) == (1, 1)
    assert line.loss == pytest.approx(loss.item(), abs=1e-4)
    assert line.gradient_norm == pytest.approx(norm.item(), abs=1e-4)


def test_one_step_of_sgd_is_the_gradient_times_the_learning_rate(
    written: Written, document: Document, lesions: Path, capsys: Capture
) -> None:
    settings = {"type": "sgd", "learning_rate": 0.5}
    run(written({"data.batch_size": 24, "num_epochs": 1, "optimizer": settings, "loss.function": "mse"}), capsys)
    torch.manual_seed(0)
    network = Network(read_network(document["neural_network"]["layers"]))
    inputs, targets = images_of(lesions / "train")
    functional.mse_loss(network(inputs), targets).backward()  # type: ignore[no-untyped-call]
    trained = parameters(Path("checkpoints/model_checkpoint_1.pt"))
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(trained[name], (parameter - 0.5 * parameter.grad).detach(), atol=1e-6, rtol=1e-4)


def test_the_hessian_optimizer_fits_a_linear_network_in_one_step(
    written: Written, lesions: Path, capsys: Capture
) -> None:
    settings = {"type": "Hessian", "max_iterations": 50}
    changes = {"layers": layers_of(activation="linear"), "loss": {"function": "MSE"}, "optimizer": settings}
    run(written({**changes, "data.batch_size": 24, "num_epochs": 1}), capsys)
    trained = parameters(Path("checkpoints/model_checkpoint_1.pt"))
    inputs, targets = images_of(lesions / "train")
    patches = functional.unfold(inputs, 3, padding=1).transpose(1, 2).reshape(-1, 9).double()
    design = torch.cat([patches, torch.ones_like(patches[:, :1])], dim=1)
    solution = torch.linalg.lstsq(design, targets.reshape(-1, 1).double()).solution.ravel()
    found = torch.cat([trained["classes.weight"].ravel(), trained["classes.bias"]]).double()
    errors = [((design @ weights - targets.ravel()) ** 2).mean().item() for weights in (found, solution)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)


def test_the_hessian_optimizer_trains_with_dropout(written: Written, capsys: Capture) -> None:
    drop = {"class_name": "Dropout", "config": {"name": "drop", "rate": 0.3}}
    settings = {"type": "Hessian", "max_iterations": 4}
    changes = {"layers": layers_of(convolution("conv1", 8, "relu"), drop), "optimizer": settings}
    first, second = (run(written(changes), capsys) for _ in range(2))
    losses = [record.test_loss for record in read_epochs(first)]
    assert losses[0] is not None
    assert losses[0] < 0.5  # log 2 = 0.69 at the start
    assert numbers_only(first) == numbers_only(second)


def test_same_seed_same_numbers(written: Written, capsys: Capture) -> None:
    transforms = [{"random_horizontal_flip": 0.5}, {"random_rotate": 20}]
    hidden = [convolution("conv1", 4, "relu"), {"class_name": "Dropout", "config": {"name": "drop", "rate": 0.5}}]
    path = written({"data.transforms": transforms, "layers": layers_of(*hidden)})
    runs = []
    for seed in ("3", "3", "4"):
        lines = run(path, capsys, f"--seed={seed}")
        runs.append((numbers_only(lines), parameters(Path("checkpoints/model_checkpoint_2.pt"))))
    (first, weights), (second, same_weights), (third, _) = runs
    assert first == second
    assert first != third
    assert weights.keys() == same_weights.keys()
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)


def test_deterministic_gives_the_same_numbers_and_takes_every_operation_here(written: Written, capsys: Capture) -> None:
    path = written({"data.transforms": [{"random_rotate": 20}], "loss.function": "lovasz"})
    expected = run(path, capsys)
    try:
        assert numbers_only(run(path, capsys, "--deterministic")) == numbers_only(expected)
        assert torch.are_deterministic_algorithms_enabled()
        run(path, capsys)
        assert not torch.are_deterministic_algorithms_enabled()  # runs of one process do not inherit it
    finally:
        torch.use_deterministic_algorithms(False)


def test_histories_have_the_numbers_of_the_log(written: Written, capsys: Capture) -> None:
    lines = run(written({"outfile": "logs/run.txt"}), capsys)
    accuracies = {record.epoch: record.accuracy for record in read_epochs(lines)}
    tests = Path("logs/run_test.txt").read_text()
    assert parse_test_file(tests) == pytest.approx(accuracies, abs=6e-4)
    # Readers of RocketML's file look for numbers on every line: the first is the epoch, the last the accuracy.
    numbers = [re.findall(r"\d+\.\d+|\d+", line) for line in tests.splitlines()]
    assert [int(found[0]) for found in numbers] == list(accuracies)
    assert [float(found[-1]) for found in numbers] == pytest.approx(list(accuracies.values()), abs=6e-4)
    rows = [line.split() for line in Path("logs/run_train.txt").read_text().splitlines() if not line.startswith("#")]
    expected = [(line.epoch, line.batch, line.loss) for line in train_lines(lines)]
    assert [(int(row[1]), int(row[2])) for row in rows] == [(epoch, batch) for epoch, batch, _ in expected]
    assert [float(row[3]) for row in rows] == pytest.approx([loss for *_, loss in expected], abs=6e-5)


def test_without_an_outfile_no_histories_are_written(written: Written, capsys: Capture) -> None:
    run(written({"outfile": None}), capsys)
    assert sorted(path.name for path in Path().iterdir()) == ["checkpoints", "config.json"]


def test_checkpoints_come_at_their_interval(written: Written, capsys: Capture) -> None:
    run(written({"num_epochs": 5, "checkpoints.interval": 2, "checkpoints.save": "a/b"}), capsys)
    assert sorted(path.name for path in Path("a/b").iterdir()) == ["model_checkpoint_2.pt", "model_checkpoint_4.pt"]


def test_training_goes_on_from_a_checkpoint(written: Written, capsys: Capture) -> None:
    first = run(written({"num_epochs": 4}), capsys)
    lines = run(written({"num_epochs": 1, "checkpoints.load": "checkpoints/model_checkpoint_4.pt"}), capsys)
    assert "Loading model checkpoint from file: checkpoints/model_checkpoint_4.pt" in lines
    assert train_lines(lines)[0].loss < train_lines(first)[0].loss


def test_frozen_layers_stay_as_they_are(written: Written, capsys: Capture) -> None:
    hidden = [convolution("conv1", 8, "relu", trainable=False), convolution("conv2", 8, "relu")]
    lines = run(written({"layers": layers_of(*hidden)}), capsys)
    first, second = (parameters(Path(f"checkpoints/model_checkpoint_{epoch}.pt")) for epoch in (1, 2))
    assert torch.equal(first["conv1.weight"], second["conv1.weight"])
    assert not torch.equal(first["conv2.weight"], second["conv2.weight"])
    assert "   Trainable parameters: 657" in lines


def test_the_learning_rate_is_told_when_it_changes(written: Written, capsys: Capture) -> None:
    scheduler = {"type": "Step", "gamma": 0.5, "step_size": 2, "verbose": True}
    changes = {"num_epochs": 4, "optimizer.lr_scheduler": scheduler}
    assert [line for line in run(written(changes), capsys) if line.startswith("Learning rate: ")] == [
        "Learning rate: 0.005",
        "Learning rate: 0.0025",
    ]
    quiet = run(written({**changes, "optimizer.lr_scheduler": {**scheduler, "verbose": False}}), capsys)
    assert not [line for line in quiet if line.startswith("Learning rate: ")]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "adagrad"])
@pytest.mark.parametrize("loss", ["bce", "mse", "dice", "jaccard", "focal", "lovasz"])
def test_every_optimizer_with_every_loss(written: Written, capsys: Capture, optimizer: str, loss: str) -> None:
    settings = {"type": optimizer, "learning_rate": 0.01}
    lines = run(written({"optimizer": settings, "loss.function": loss, "num_epochs": 1}), capsys)
    (record,) = read_epochs(lines)
    assert isinstance(record, EpochRecord)
    assert record.accuracy is not None


def test_a_network_of_classes(written: Written, capsys: Capture) -> None:
    hidden = [convolution("conv1", 8, "relu"), convolution("conv2", 8, "relu")]
    layers = layers_of(*hidden, classes=2, activation="softmax")
    loss = {"function": "NLL", "source": "softmax", "weight": [1, 3]}
    epochs = list(read_epochs(run(written({"layers": layers, "loss": loss, "num_epochs": 10}), capsys)))
    assert epochs[-1].accuracy is not None
    assert epochs[-1].accuracy > 0.9


def test_training_without_a_test(written: Written, capsys: Capture) -> None:
    lines = run(written({"data.test_input_path": None, "data.test_target_path": None}), capsys)
    assert not list(read_epochs(lines))
    assert not any(line.startswith(("Eval", "---")) for line in lines)
    assert not Path("out_test.txt").exists()


def test_a_loss_that_is_no_number_ends_the_run(written: Written, capsys: Capture) -> None:
    settings = {"type": "sgd", "learning_rate": 1e30}
    changes = {"optimizer": settings, "loss.function": "mse", "layers": layers_of(activation="linear")}
    lines = run(written({**changes, "loss.source": None}), capsys, status=ExitStatus.DIVERGED)
    last_numbers = train_lines(lines)[-1]
    assert not np.isfinite(last_numbers.loss)
    assert re.match(r"Error: the loss is not a finite number any more \(epoch 1, batch \d\): lower the", lines[-1])


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"layers": layers_of(channels=3)}, ExitStatus.NETWORK, "the network takes 3 channels, the images have 1: set"),
        (
            {"layers": layers_of({"class_name": "MaxPooling2D", "config": {"name": "pool"}})},
            ExitStatus.NETWORK,
            "the network gives 16x16 for images of 32x32, the targets are 32x32",
        ),
        (
            {"data.target_is_mask": False, "data.target_grayscale": False},
            ExitStatus.NETWORK,
            "the network gives 1 channels, the targets have 3",
        ),
        ({"optimizer": {"type": "lamb", "amsgrad": True}}, ExitStatus.HYPERPARAMETERS, "LAMB has no amsgrad"),
        ({"loss.source": "softmax"}, ExitStatus.HYPERPARAMETERS, "loss.source is 'softmax'"),
        ({"checkpoints.load": "none.pt"}, ExitStatus.CHECKPOINT, "none.pt"),
        ({"layers": "none.json"}, ExitStatus.NETWORK, "none.json"),
        ({"data.input_path": "none"}, ExitStatus.DATA, "there is no folder none"),
        ({"checkpoints.save": "config.json/x"}, ExitStatus.CANNOT_WRITE, "cannot write"),
        ({"outfile": "config.json/x"}, ExitStatus.CANNOT_WRITE, "cannot write"),
    ],
)
def test_what_does_not_fit_is_one_line(
    written: Written, capsys: Capture, changes: Document, status: ExitStatus, message: str
) -> None:
    lines = run(written(changes), capsys, status=status)
    assert lines[-1].startswith("Error: ")
    assert message in lines[-1]
    assert not list(Path().glob("*traceback*"))


def test_images_of_another_size_than_the_network_file_says_are_told(written: Written, capsys: Capture) -> None:
    layers = layers_of()
    layers[0]["config"]["batch_input_shape"] = [None, 64, 64, 1]
    lines = run(written({"layers": layers}), capsys)
    told = [line for line in lines if line.startswith("The images are 32x32, the network file says 64x64")]
    assert len(told) == 1


def test_a_single_image_left_over_is_no_traceback(written: Written, capsys: Capture) -> None:
    # A network that shrinks 32x32 to one value for each channel: nothing to take a variance of.
    pool = {"class_name": "MaxPooling2D", "config": {"name": "pool", "pool_size": [32, 32]}}
    grow = {"class_name": "UpSampling2D", "config": {"name": "grow", "size": [32, 32]}}
    layers = layers_of(pool, {"class_name": "BatchNormalization", "config": {"name": "norm"}}, grow)
    lines = run(written({"layers": layers, "data.batch_size": 23}), capsys, status=ExitStatus.DATA)
    assert "choose a batch_size that leaves no image alone" in lines[-1]


def test_two_processes_learn_what_one_does(written: Written, document: Document, capsys: Capture) -> None:
    hidden = [convolution("conv1", 8, "relu"), convolution("conv2", 8, "relu")]
    path = written({"data.test_output_path": "predictions", "data.batch_size": 10, "layers": layers_of(*hidden)})
    alone = run(path, capsys)
    assert Path("predictions/output_1.h5").exists()
    Path("predictions/output_1.h5").unlink()
    command = [sys.executable, "-m", "rmldnn_torch", f"--config={path}"]
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "64", "OMPI_COMM_WORLD_SIZE": "2"}
    environment |= {"PMIX_NAMESPACE": str(path), "RMLDNN_PRECISION": "float32"}
    processes = [
        subprocess.Popen(
            command, env={**environment, "OMPI_COMM_WORLD_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    first, second = (process.communicate(timeout=60)[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0]
    assert second == ""
    lines = [without_stamp(line) for line in first.splitlines()]
    # The tutorials' mpirun asks for more threads than there are cores: they would spin.
    assert f"   Process 1: CPU ({max(1, num_cpus() // 2)} threads)" in lines
    assert "   Num images (per process): 12" in lines
    assert "   Batch size (per process): 5" in lines
    for one, two in zip(read_epochs(alone), read_epochs(lines), strict=True):
        assert two.test_loss == pytest.approx(one.test_loss, abs=2e-4)
        assert two.accuracy == pytest.approx(one.accuracy, abs=2e-3)
    for one_batch, two_batch in zip(train_lines(alone), train_lines(lines), strict=False):
        if one_batch.batch == two_batch.batch:
            assert two_batch.loss == pytest.approx(one_batch.loss, abs=2e-4)
            assert two_batch.gradient_norm == pytest.approx(one_batch.gradient_norm, abs=2e-3)
    assert sorted(path.name for path in Path("predictions").iterdir()) == ["output_1.h5", "output_2.h5"]
