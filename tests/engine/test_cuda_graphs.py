"""Recorded training steps, on stand-ins for a GPU, which the machines of these tests do not have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rmldnn_contract.config import Loss
from rmldnn_torch import run as run_module
from rmldnn_torch.cuda_graphs import CudaGraphs, Recording, Work
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.losses import build_loss
from rmldnn_torch.network import Network

from .conftest import Document, convolution, layers_of
from .published_networks import published
from .test_trainer import Capture, Written, numbers_only, parameters, run

CHECKOUT = Path(__file__).resolve().parents[2]
ANNOUNCEMENT = "Recorded the step of batches of "
REFUSAL = "Training goes on without CUDA graphs: "
NORMALIZATION = {"class_name": "BatchNormalization", "config": {"name": "norm"}}
DROPOUT = {"class_name": "Dropout", "config": {"name": "drop", "rate": 0.3}}


class Repeater:
    """Does recorded work anew, and puts what it gives where the first results lay, as a graph's kernels do."""

    def __init__(self, *, has_room: bool = True, change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        self._has_room = has_room
        self._change = change
        self.num_replays = 0
        self.num_recordings = 0
        self.num_beginnings = 0

    def has_room(self) -> bool:
        return self._has_room

    def begin_anew(self) -> None:
        self.num_beginnings += 1

    def record(self, work: Work) -> Recording:
        self.num_recordings += 1
        outputs = tuple(output.clone() for output in work())

        def replay() -> None:
            self.num_replays += 1
            for output, result in zip(outputs, work(), strict=True):
                output.copy_(self._change(result))

        return Recording(outputs, replay)

    def random_state(self) -> Tensor:
        return torch.get_rng_state()

    def set_random_state(self, state: Tensor) -> None:
        torch.set_rng_state(state)


class Unable(Repeater):
    """A device that cannot record what it is given."""

    def record(self, work: Work) -> Recording:
        work()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore of it")


class UnableAtTheSecond(Repeater):
    """A device whose second recording breaks off; whoever replays the first one then is told off."""

    def __init__(self) -> None:
        super().__init__()
        self._has_failed = False

    def record(self, work: Work) -> Recording:
        recording = super().record(work)
        if self.num_recordings == 2:
            self._has_failed = True
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

        def replay() -> None:
            assert not self._has_failed, "Offset increment outside graph capture encountered unexpectedly."
            recording.replay()

        return Recording(recording.outputs, replay)


@pytest.fixture
def recording(written: Written, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Callable[..., Any]:
    """The log and the last weights of a run whose device has this recorder."""

    def execute(recorder: object, changes: Document, *options: str) -> tuple[list[str], Mapping[str, Tensor]]:
        monkeypatch.setattr(run_module, "recorder_of", lambda device: recorder)
        lines = run(written({"num_epochs": 4, **changes}), capsys, *options)
        return lines, parameters(Path("checkpoints/model_checkpoint_4.pt"))

    return execute


def without_announcements(lines: Sequence[str]) -> list[str]:
    return numbers_only([line for line in lines if not line.startswith((ANNOUNCEMENT, REFUSAL))])


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_recorded_steps_give_the_numbers_of_others(recording: Callable[..., Any], optimizer: str) -> None:
    changes = {
        "layers": layers_of(convolution("conv1", 8, "relu"), NORMALIZATION, DROPOUT),
        "optimizer": {
            "type": optimizer,
            "learning_rate": 0.01,
            "lr_scheduler": {"type": "Exponential", "gamma": 0.5, "verbose": True},
        },
        "data.batch_size": 10,  # 24 images: two batches of 10 and one of 4
        "data.transforms": [{"random_horizontal_flip": 0.5}],
    }
    recorder = Repeater()
    expected, weights = recording(recorder, changes)
    assert recorder.num_replays == 0
    lines, recorded_weights = recording(recorder, changes, "--cuda-graphs")
    assert [line for line in lines if line.startswith(ANNOUNCEMENT)] == [
        f"{ANNOUNCEMENT}10 as a CUDA graph",
        f"{ANNOUNCEMENT}4 as a CUDA graph",
    ]
    # Of each shape the first two batches come without: of 8 batches of ten images 6 are left, of 4 of four 2.
    assert recorder.num_replays == 8
    assert without_announcements(lines) == without_announcements(expected)
    assert all(torch.equal(recorded_weights[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [
        (Unable(), "CUDA error: operation not permitted when stream is capturing"),
        (Repeater(has_room=False), "the memory does not suffice"),
        (Repeater(change=lambda tensor: tensor * 1.1), "it gave other numbers"),
        (Repeater(change=lambda tensor: tensor * torch.nan), "it gave other numbers"),
    ],
)
def test_what_cannot_be_recorded_is_computed_as_ever(
    recording: Callable[..., Any], recorder: Repeater, reason: str
) -> None:
    changes = {"layers": layers_of(convolution("conv1", 8, "relu"), NORMALIZATION, DROPOUT)}
    expected, weights = recording(None, changes, "--cuda-graphs")
    lines, other_weights = recording(recorder, changes, "--cuda-graphs")
    assert [line for line in lines if line.startswith((ANNOUNCEMENT, REFUSAL))] == [REFUSAL + reason]
    assert without_announcements(lines) == without_announcements(expected)
    assert all(torch.equal(other_weights[name], weights[name]) for name in weights)


def test_a_recording_that_breaks_off_ends_the_use_of_those_before(recording: Callable[..., Any]) -> None:
    layers = layers_of(convolution("conv1", 8, "relu"), NORMALIZATION, DROPOUT)
    changes = {"layers": layers, "data.batch_size": 10}  # 24 images: two batches of 10 and one of 4
    expected, weights = recording(None, changes)
    recorder = UnableAtTheSecond()
    lines, other_weights = recording(recorder, changes, "--cuda-graphs")
    assert [line for line in lines if line.startswith((ANNOUNCEMENT, REFUSAL))] == [
        f"{ANNOUNCEMENT}10 as a CUDA graph",
        f"{REFUSAL}CUDA error: operation failed due to a previous error during capture",
    ]
    # The third of ten images is recorded in the second epoch, the third of four at the end of the third.
    assert recorder.num_replays == 4
    assert without_announcements(lines) == without_announcements(expected)
    assert all(torch.equal(other_weights[name], weights[name]) for name in weights)


def test_an_optimizer_that_searches_is_not_recorded(recording: Callable[..., Any]) -> None:
    recorder = Repeater()
    recording(recorder, {"optimizer": {"type": "Hessian", "max_iterations": 2}}, "--cuda-graphs")
    assert recorder.num_replays == 0


def test_the_variable_asks_for_graphs_and_the_option_overrules_it(
    recording: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, written: Written, capsys: Capture
) -> None:
    recorder = Repeater()
    monkeypatch.setenv("RMLDNN_CUDA_GRAPHS", "1")
    recording(recorder, {})
    assert recorder.num_replays > 0
    recorder.num_replays = 0
    recording(recorder, {}, "--no-cuda-graphs")
    assert recorder.num_replays == 0
    monkeypatch.setenv("RMLDNN_CUDA_GRAPHS", "yes")
    lines = run(written({}), capsys, status=64)
    assert lines == ["Error: RMLDNN_CUDA_GRAPHS is 'yes': set it to 1 or 0"]


def test_a_cpu_has_no_graphs() -> None:
    assert run_module.recorder_of(torch.device("cpu")) is None
    assert isinstance(run_module.recorder_of(torch.device("cuda", 0)), CudaGraphs)


@pytest.mark.parametrize(("free", "has_room"), [(15, False), (16, True)])
def test_room_is_what_a_step_needs_twice(monkeypatch: pytest.MonkeyPatch, free: int, has_room: bool) -> None:
    """Weights take 2, a step 10 more; torch holds 6 that it does not use."""
    numbers = {"memory_allocated": 2, "max_memory_allocated": 12, "memory_reserved": 6, "mem_get_info": (free, 80)}
    for name, number in numbers.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, number=number: number)
    assert CudaGraphs(torch.device("cuda", 0)).has_room() == has_room


class Generator:
    """Random numbers as torch 2.6 has them on a GPU: a recording that breaks off leaves their state without use."""

    def __init__(self, device: object = None) -> None:
        self.state = {"offset": 0, "is_usable": True}

    def get_state(self) -> int:
        return int(self.state["offset"])

    def set_state(self, offset: int) -> None:
        self.state["offset"] = offset

    def graphsafe_set_state(self, other: Generator) -> None:
        self.state = other.state


def test_a_recording_that_breaks_off_leaves_stream_and_random_numbers_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """On stand-ins for what torch does then: it stays in the stream of the recording, and its generator refuses."""
    generator, streams = Generator(), ["of the training"]
    generator.set_state(12)

    class Breaking:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> None:
            streams.append("of the recording")

        def __exit__(self, *_: object) -> None:
            generator.state["is_usable"] = False
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(CudaGraphs, "have_failed", False)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Breaking)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    with pytest.raises(RuntimeError, match="previous error"):
        CudaGraphs(torch.device("cuda", 0)).record(tuple)
    assert CudaGraphs.have_failed
    assert streams == ["of the training", "of the recording", "of the training"]
    assert generator.state == {"offset": 12, "is_usable": True}


# --- a step that can be recorded: it never waits for a number, and copies nothing from the machine's memory


class NoTransfers(TorchDispatchMode):
    """Fails where something is copied to or from the device: a graph cannot hold that."""

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), settings: Any = None) -> object:
        result = operation(*arguments, **(settings or {}))
        tensors = [leaf for leaf in tree_leaves((arguments, settings, result)) if isinstance(leaf, Tensor)]
        # Numbers of no axis come with the launch of a kernel, unless they are copied.
        is_copy = operation.overloadpacket.__name__ in {"_to_copy", "copy_"}
        devices = {tensor.device.type for tensor in tensors if tensor.ndim or is_copy}
        assert devices <= {"meta"}, f"{operation} is between {devices}"
        return result


def compute_twice(network: Network, loss: Loss, inputs: Tensor, targets: Tensor) -> None:
    """On torch's meta device, whose tensors have no numbers, so that reading one is an error."""
    network.to("meta").train()
    function = build_loss(loss, network.output_activation, network.output_channels)

    def step() -> None:
        output, _ = network.forward_logits(inputs)
        function(output.float(), targets).backward()  # type: ignore[no-untyped-call]
        for parameter in network.parameters():
            parameter.grad = None

    step()  # what lasts may come to the device now
    with NoTransfers():
        step()


def losses() -> Iterator[tuple[str, int, Document]]:
    for function in ("BCE", "MSE", "Dice", "Jaccard", "Focal", "Lovasz"):
        yield "sigmoid", 1, {"function": function}
        yield "softmax", 3, {"function": function}
    yield "linear", 1, {"function": "MSE"}
    yield "log_softmax", 3, {"function": "NLL", "weight": [1, 2, 3], "ignore_index": 0}


@pytest.mark.parametrize(("activation", "classes", "loss"), [*losses()])
def test_no_loss_waits_for_the_device(activation: str, classes: int, loss: Document) -> None:
    hidden = [convolution("conv1", 4, "relu"), NORMALIZATION, DROPOUT]
    network = Network(read_network(layers_of(*hidden, classes=classes, activation=activation)))
    inputs = torch.empty(2, 1, 16, 16, device="meta")
    targets = torch.empty(2, 1, 16, 16, device="meta")
    if classes > 1:
        targets = torch.empty(2, 16, 16, device="meta", dtype=torch.int64)
    compute_twice(network, Loss.model_validate(loss), inputs, targets)


@pytest.mark.parametrize("file", ["layers_resunet.json", "layers_small_unet.json"])
def test_no_layer_of_our_networks_waits_for_the_device(file: str) -> None:
    network = Network(read_network(json.loads((CHECKOUT / file).read_text())))
    inputs, targets = (torch.empty(2, channels, 64, 64, device="meta") for channels in (3, 1))
    compute_twice(network, Loss(function="BCE"), inputs, targets)


def test_no_layer_of_a_classifier_waits_for_the_device() -> None:
    network = Network(read_network(published("mnist")))
    inputs = torch.empty(2, *(size or 28 for size in network.input_shape), device="meta")
    labels = torch.empty(2, device="meta", dtype=torch.int64)
    compute_twice(network, Loss(function="NLL"), inputs, labels)
