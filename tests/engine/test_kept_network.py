"""What a worker keeps on its device between runs, on a stand-in for a GPU's recorder."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rmldnn_contract.exit_status import CheckpointError
from rmldnn_torch import kept_network as kept_module
from rmldnn_torch import run as run_module
from rmldnn_torch.cuda_graphs import Recording, Work
from rmldnn_torch.kept_network import KeptNetwork
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.network import Network
from rmldnn_torch.optimizers import Optimization
from rmldnn_torch.weights import save_checkpoint

from .conftest import Document, convolution, layers_of
from .test_cuda_graphs import (
    ANNOUNCEMENT,
    DROPOUT,
    NORMALIZATION,
    REFUSAL,
    Repeater,
    losses,
    without_announcements,
)
from .test_trainer import Capture, Written, parameters, run

#: Batches of ten images and of four, recorded in the second epoch and in the third.
CHANGES: Document = {
    "num_epochs": 4,
    "layers": layers_of(convolution("conv1", 8, "relu"), NORMALIZATION, DROPOUT),
    "data.batch_size": 10,
}
FOUND = "Found the step of batches of "

Result = tuple[list[str], Mapping[str, Tensor]]
Worker = Callable[..., Result]


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> KeptNetwork:
    """That of this process, which is a worker."""
    kept = KeptNetwork(is_of_the_worker=True)
    monkeypatch.setattr(run_module, "kept_network", kept)
    return kept


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Repeater:
    """Of a device that stays the same from run to run."""
    recorder = Repeater()
    monkeypatch.setattr(run_module, "recorder_of", lambda device: recorder)
    return recorder


@pytest.fixture
def train(written: Written, capsys: Capture) -> Worker:
    """The log and the last weights of a run."""

    def execute(changes: Document, *options: str) -> Result:
        lines = run(written({**CHANGES, **changes}), capsys, "--cuda-graphs", *options)
        return lines, parameters(Path("checkpoints/model_checkpoint_4.pt"))

    return execute


@pytest.fixture
def train_alone(train: Worker, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """The same of a process that carries out no other run, on a device that cannot record."""

    def execute(changes: Document, *options: str) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(run_module, "kept_network", KeptNetwork())
            patch.setattr(run_module, "recorder_of", lambda device: None)
            return train(changes, *options)

    return execute


def numbers(lines: Sequence[str]) -> list[str]:
    return without_announcements([line for line in lines if not line.startswith(FOUND)])


def announcements(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if line.startswith((ANNOUNCEMENT, FOUND, REFUSAL))]


def assert_same(result: Result, expected: Result) -> None:
    assert numbers(result[0]) == numbers(expected[0])
    assert all(torch.equal(result[1][name], weights) for name, weights in expected[1].items())


@pytest.mark.usefixtures("kept")
def test_trials_of_a_search_record_once_and_give_the_numbers_of_processes_of_their_own(
    train: Worker, train_alone: Worker, recorder: Repeater
) -> None:
    trials: list[tuple[Document, str]] = [
        ({"optimizer": {"type": "adam", "learning_rate": 0.01}}, "--seed=1"),
        ({"optimizer": {"type": "sgd", "learning_rate": 0.1, "momentum": 0.9}}, "--seed=1"),
        ({"optimizer": {"type": "adam", "learning_rate": 0.001}}, "--seed=2"),
        ({"loss": {"function": "Dice"}}, "--seed=1"),
        ({"data.transforms": [{"random_horizontal_flip": 0.5}]}, "--seed=1"),
    ]
    recorded = []
    for changes, seed in trials:
        result = train(changes, seed)
        recorded.append(recorder.num_recordings)
        assert_same(result, train_alone(changes, seed))
    # Two sizes of batches, for each of two losses; and for images that augmentation has laid otherwise in memory.
    assert recorded == [2, 2, 2, 4, 6]
    assert announcements(train({}, "--seed=3")[0]) == [f"{FOUND}10 as a CUDA graph", f"{FOUND}4 as a CUDA graph"]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    "changes",
    [
        {"layers": layers_of(convolution("conv1", 4, "relu"), NORMALIZATION, DROPOUT)},
        {"data.batch_size": 12},
    ],
    ids=["network", "larger batches"],
)
def test_another_network_or_a_larger_batch_takes_the_place(
    train: Worker, train_alone: Worker, recorder: Repeater, changes: Document
) -> None:
    train({})
    result = train(changes)
    assert all(line.startswith(ANNOUNCEMENT) for line in announcements(result[0]))
    assert_same(result, train_alone(changes))
    num_recordings = recorder.num_recordings
    assert_same(train({}), train_alone({}))
    assert recorder.num_recordings > num_recordings


@pytest.mark.usefixtures("kept")
def test_smaller_batches_leave_what_is_there(train: Worker, train_alone: Worker, recorder: Repeater) -> None:
    train({})
    recorder.num_beginnings = 0
    changes: Document = {"data.batch_size": 8}
    assert_same(train(changes), train_alone(changes))
    assert recorder.num_recordings == 3
    assert_same(train({}), train_alone({}))
    assert recorder.num_recordings == 3
    assert recorder.num_beginnings == 0


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("options", [["--no-cuda-graphs"], ["--deterministic"], ["--precision=bf16"]])
def test_steps_of_another_arithmetic_are_others(
    train: Worker, train_alone: Worker, recorder: Repeater, options: list[str]
) -> None:
    train({})
    result = train({}, *options)
    assert not any(line.startswith(FOUND) for line in result[0])
    assert_same(result, train_alone({}, *options))
    assert_same(train({}), train_alone({}))


@pytest.mark.usefixtures("kept", "recorder")
def test_an_optimizer_that_moves_weights_in_memory_gets_a_network_of_its_own(
    train: Worker, train_alone: Worker
) -> None:
    train({})
    changes: Document = {"optimizer": {"type": "Hessian", "max_iterations": 2}}
    assert_same(train(changes), train_alone(changes))
    assert_same(train({}), train_alone({}))


def test_weights_that_move_while_a_run_trains_end_the_use_of_recordings(
    kept: KeptNetwork, train: Worker, train_alone: Worker, recorder: Repeater, monkeypatch: pytest.MonkeyPatch
) -> None:
    train({})
    step, networks = Optimization.step, [kept._network]

    def move(optimization: Optimization, objective: Callable[[], float] | None = None) -> None:
        step(optimization, objective)
        for network in networks:
            assert isinstance(network, Network)
            for parameter in network.parameters():
                parameter.data = parameter.data.clone(memory_format=torch.preserve_format)

    expected = train_alone({})
    recorder.num_beginnings = 0
    with monkeypatch.context() as patch:
        patch.setattr(Optimization, "step", move)
        lines, _ = train({})
        # The optimizer has views of the weights where they lay, so these do not learn any more: only the end matters.
        assert announcements(lines) == [f"{FOUND}10 as a CUDA graph", f"{REFUSAL}the weights have moved"]
    assert recorder.num_beginnings == 1
    assert_same(train({}), expected)


@pytest.mark.usefixtures("kept")
def test_kept_steps_that_give_other_numbers_are_recorded_anew(
    train: Worker, train_alone: Worker, recorder: Repeater
) -> None:
    train({})
    recorder._change = lambda tensor: tensor * 1.1
    lines, weights = train({})
    recorder._change = lambda tensor: tensor
    assert announcements(lines) == [f"{REFUSAL}it gave other numbers"]
    assert recorder.num_recordings == 3  # a third one, with the same fault
    expected = train_alone({})
    assert_same((lines, weights), expected)
    assert_same(train({}), expected)
    assert recorder.num_recordings == 5


class External(TorchDispatchMode):
    """Notes what work reads that it has not made itself, without keeping it alive."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, StorageWeakRef] = {}
        self._own: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), settings: Any = None) -> object:
        for storage in _storages((arguments, settings)):
            if storage.data_ptr() not in self._own:
                self.storages.setdefault(storage.data_ptr(), StorageWeakRef(storage))
        result = operation(*arguments, **(settings or {}))
        self._own |= {storage.data_ptr() for storage in _storages(result)} - self.storages.keys()
        return result


def _storages(values: object) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


class Forgetful(Repeater):
    """A device that holds nothing of what its recordings read, as a graph, which knows addresses alone."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[External] = []
        self.replays: list[Callable[[], None]] = []

    def record(self, work: Work) -> Recording:
        with External() as external:
            work()
        self.read.append(external)
        recording, number = super().record(work), len(self.replays)
        self.replays.append(recording.replay)

        def replay() -> None:
            self.replays[number]()

        return Recording(recording.outputs, replay)


def write_classes(masks: Path, folder: Path) -> str:
    """The masks with class numbers 0 to 2 in the place of 0 and 255."""
    folder.mkdir()
    for path in masks.iterdir():
        inside = np.asarray(Image.open(path)) > 0
        Image.fromarray((inside * (1 + np.arange(inside.shape[1]) % 2)).astype(np.uint8)).save(folder / path.name)
    return str(folder)


@pytest.mark.parametrize(("activation", "classes", "loss"), [*losses()])
def test_all_that_a_kept_step_reads_outlives_the_run(
    kept: KeptNetwork,
    train: Worker,
    monkeypatch: pytest.MonkeyPatch,
    lesions: Path,
    tmp_path: Path,
    activation: str,
    classes: int,
    loss: Document,
) -> None:
    recorder = Forgetful()
    monkeypatch.setattr(run_module, "recorder_of", lambda device: recorder)
    hidden = [convolution("conv1", 4, "relu"), NORMALIZATION, DROPOUT]
    layers = layers_of(*hidden, classes=classes, activation=activation)
    data: Document = {}
    if classes > 1:
        data["data.target_path"] = write_classes(lesions / "train" / "targets", tmp_path / "train_classes")
        data["data.test_target_path"] = write_classes(lesions / "test" / "targets", tmp_path / "test_classes")
    lines, _ = train({"layers": layers, "loss": loss, **data})
    assert len(announcements(lines)) == kept.num_steps == 2
    recorder.replays.clear()
    gc.collect()
    for external in recorder.read:
        assert external.storages
        assert not any(storage.expired() for storage in external.storages.values())


@pytest.mark.usefixtures("recorder")
def test_no_more_steps_are_kept_than_a_search_over_losses_has(
    kept: KeptNetwork, train: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "_MAX_STEPS", 4)
    kept_numbers = []
    for size in (12, 11, 10, 9, 8):  # 24 images: one size of batches with the first and the last, two with the others
        train({"data.batch_size": size})
        kept_numbers.append(kept.num_steps)
    assert kept_numbers == [1, 3, 5, 2, 3]


@pytest.mark.usefixtures("kept")
def test_a_recorder_that_has_nothing_left_begins_anew(train: Worker, train_alone: Worker, recorder: Repeater) -> None:
    """As after a trial that diverges: no numbers agree then."""
    recorder._change = lambda tensor: tensor * torch.nan
    assert announcements(train({})[0]) == [f"{REFUSAL}it gave other numbers"]
    recorder._change, recorder.num_beginnings = lambda tensor: tensor, 0
    assert_same(train({}), train_alone({}))
    assert recorder.num_beginnings == 1


@pytest.mark.usefixtures("recorder")
def test_a_run_that_broke_off_leaves_nothing_wrong(kept: KeptNetwork, train: Worker, train_alone: Worker) -> None:
    train({})
    assert kept._network is not None
    for tensor in kept._network.state_dict().values():
        tensor.fill_(torch.nan)
    for parameter in kept._network.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    kept._network.eval()
    assert_same(train({}), train_alone({}))


@pytest.mark.usefixtures("recorder")
def test_only_a_worker_keeps_a_network(monkeypatch: pytest.MonkeyPatch, train: Worker) -> None:
    kept = KeptNetwork()
    monkeypatch.setattr(run_module, "kept_network", kept)
    train({})
    assert kept == KeptNetwork()


# --- the weights that a run begins with


def network(*, filters: int = 8) -> Network:
    return Network(read_network(layers_of(convolution("conv1", filters, "relu"))))


def save(path: Path, value: float) -> None:
    built = network()
    for parameter in built.parameters():
        nn.init.constant_(parameter, value)
    save_checkpoint(path, built, 1)


def test_a_file_of_weights_is_read_once_until_it_or_the_network_changes(
    kept: KeptNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def count(path: Path, network: Network, really: Callable[..., object] = kept_module.read_checkpoint) -> object:
        read.append(path)
        return really(path, network)

    monkeypatch.setattr(kept_module, "read_checkpoint", count)
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    save(first, 1.0)
    save(second, 2.0)
    checkpoints = [kept.read_once(first, network()) for _ in range(2)]
    assert checkpoints[0] is checkpoints[1]
    assert read == [first]
    kept.read_once(first, network(filters=4))
    assert read == [first] * 2
    kept.read_once(second, network())
    kept.read_once(first, network())
    assert read == [first, first, second, first]
    save(first, 3.0)
    weights = {weight.name: weight.value for weight in kept.read_once(first, network()).weights}
    bias = weights["conv1.bias"]
    assert bias is not None
    assert set(bias.tolist()) == {3.0}
    first.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        kept.read_once(first, network())
    assert kept._read is None


@pytest.mark.parametrize("name", ["missing.pt", "x" * 300, "a\0b"])
def test_a_file_that_cannot_be_read_is_told_as_without_a_worker(kept: KeptNetwork, name: str) -> None:
    path = Path(name)
    messages = []
    for keeper in (KeptNetwork(), kept):
        with pytest.raises(CheckpointError) as caught:
            keeper.read_once(path, network())
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.usefixtures("kept", "recorder")
def test_runs_that_begin_with_weights_of_a_file_give_the_numbers_of_others(train: Worker, train_alone: Worker) -> None:
    train({"num_epochs": 4})
    Path("checkpoints/model_checkpoint_4.pt").replace("start.pt")
    changes: Document = {"checkpoints.load": "start.pt"}
    expected = train_alone(changes)
    for _ in range(2):
        assert_same(train(changes), expected)
