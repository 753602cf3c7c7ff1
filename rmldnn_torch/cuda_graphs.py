"""The gradients of a batch by one launch instead of hundreds: CUDA graphs, recorded once for each shape of batches.

A training step of a U-Net is some five hundred kernels, each of which Python and torch take microseconds to launch.
With small images the kernels themselves take less. A graph holds the kernels with their arguments and launches them
all (https://docs.nvidia.com/cuda/cuda-programming-guide/, CUDA Graphs): the next batch is copied to where the recorded
one lay, and the gradients come to where the recorded ones came. What is recorded is the forward and the backward pass.
The optimizer, of which there are a dozen kernels at most, stays as it is, and with it learning rates that change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from rmldnn_torch.data import Batch

#: Batches of a shape that are computed as ever before one is recorded: libraries load and choose kernels at the first.
WARM_UP_BATCHES = 2

# Sums of the same numbers in another order differ by less, and a graph that lacks a kernel differs by far more.
_LOSS_TOLERANCE = 1e-3
_GRADIENT_TOLERANCE = 1e-2

Work: TypeAlias = Callable[[], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Recording:
    """Work that can be done again.

    Attributes:
        outputs: what it gives, always in the same memory; without meaning before the first ``replay``.
        replay: does the work with what its inputs hold now.
    """

    outputs: tuple[Tensor, ...]
    replay: Callable[[], None]


class Recorder(Protocol):
    """What a device records work with."""

    def has_room(self) -> bool:
        """Whether the memory suffices for the step's values twice: a recording keeps what it needs to itself."""

    def record(self, work: Work) -> Recording:
        """Notes what ``work`` does, without doing it.

        Raises RuntimeError where that cannot be recorded; then what was recorded before cannot be replayed any more.
        """

    def begin_anew(self) -> None:
        """What follows shares no memory with earlier recordings, of which none may be left."""

    def random_state(self) -> Tensor:
        """The state of the device's random numbers."""

    def set_random_state(self, state: Tensor) -> None:
        """Goes back, or forward, to that state."""


class CudaGraphs:
    """The recorder of a GPU. All recordings share one pool of memory: they are never replayed at the same time.

    Attributes:
        have_failed: of this process. A recording that broke off may leave torch unable to give memory back.
    """

    have_failed = False

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None  # torch's name for its type is private

    def has_room(self) -> bool:
        """By the peak of the steps until now."""
        allocated = torch.cuda.memory_allocated(self._device)
        of_a_step = torch.cuda.max_memory_allocated(self._device) - allocated
        free = torch.cuda.mem_get_info(self._device)[0] + torch.cuda.memory_reserved(self._device) - allocated
        return bool(free >= 2 * of_a_step)

    def record(self, work: Work) -> Recording:
        """A graph of the work's kernels. One that breaks off ends the use of all that were made before it."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            # The thread that writes checkpoints copies from the device whenever it likes, also while this one records.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = work()
        except BaseException:
            CudaGraphs.have_failed = True
            # torch would go on in the stream of the recording, for which other threads do not wait.
            torch.cuda.set_stream(stream)
            self._renew_random_numbers()
            raise
        self._pool = graph.pool()
        return Recording(outputs, graph.replay)

    def begin_anew(self) -> None:
        """A pool of which no graph is left cannot take another one."""
        self._pool = None

    def random_state(self) -> Tensor:
        """Of this device."""
        return torch.cuda.get_rng_state(self._device)

    def set_random_state(self, state: Tensor) -> None:
        """Of this device."""
        torch.cuda.set_rng_state(state, self._device)

    def _renew_random_numbers(self) -> None:
        """Lets random numbers go on where they are.

        After a recording that broke off, torch 2.6 still takes its generator for one that is recorded, and refuses to
        draw from it ("Offset increment outside graph capture").
        """
        generator = torch.cuda.default_generators[self._device.index]
        fresh = torch.Generator(self._device)
        fresh.set_state(generator.get_state())
        generator.graphsafe_set_state(fresh)


@dataclass(frozen=True)
class Step:
    """A recorded step: a batch in fixed memory, and the parameters whose gradients follow the loss in the outputs.

    Attributes:
        addresses: where the parameters lay.
    """

    batch: Batch
    parameters: Sequence[nn.Parameter]
    addresses: Sequence[int]
    recording: Recording

    @property
    def holds(self) -> bool:
        """Whether the parameters are still where the recording looks for them."""
        return _addresses(self.parameters) == self.addresses

    def compute(self, batch: Batch) -> Tensor:
        """Leaves the gradients of a batch of the recorded shape in the parameters, and gives its loss."""
        self.batch.inputs.copy_(batch.inputs)
        if self.batch.targets is not None and batch.targets is not None:
            self.batch.targets.copy_(batch.targets)
        self.recording.replay()
        loss, *gradients = self.recording.outputs
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss


def _addresses(parameters: Sequence[nn.Parameter]) -> Sequence[int]:
    return [parameter.data_ptr() for parameter in parameters]


@dataclass(frozen=True)
class Recordings:
    """What records the steps of one network and one loss.

    Attributes:
        steps: those that there are, by the shape of their batches; of earlier runs too, where a worker keeps them.
        make_room: is told of the first batch of a shape of which there is none.
    """

    recorder: Recorder
    steps: dict[object, Step] = field(default_factory=dict)
    make_room: Callable[[Batch], None] = lambda _batch: None


@dataclass(frozen=True)
class _State:
    """What a step changes beside gradients: BatchNormalization's moving averages, and random numbers."""

    buffers: Sequence[Tensor]
    random_numbers: Tensor


class RecordedGradients:
    """Computes the gradients of batches, by a recording where there is one for the batch's shape.

    The first batches of a shape are computed without one; then one is recorded. It is used only if it gives the loss
    and the gradients of the next batch as they come without it; if it does not, or if the step cannot be recorded,
    all batches are computed as ever. Recordings of earlier runs are held against the first batch of their shape in
    the same way.

    Args:
        compute: leaves the gradients of a batch in the parameters, which have none before, and gives its loss.
        network: whose parameters and buffers these are.
        recordings: of the network's device.
        tell: is told in a sentence what has become of a recording.
    """

    def __init__(
        self,
        compute: Callable[[Batch], Tensor],
        network: nn.Module,
        recordings: Recordings,
        tell: Callable[[str], None],
    ) -> None:
        self._compute = compute
        self._network = network
        self._recordings = recordings
        self._recorder = recordings.recorder
        self._tell = tell
        self._may_record = True
        self._seen: Counter[object] = Counter()
        self._steps = recordings.steps
        self._trusted: set[object] = set()

    def __call__(self, batch: Batch) -> Tensor:
        """The loss, a scalar that holds until the next call; likewise the gradients that it leaves."""
        shape = _shape(batch)
        step = self._steps.get(shape)
        if step is not None and not step.holds:
            self._drop_all()
            step = None
            self._give_up("the weights have moved")
        if step is not None and shape in self._trusted:
            return step.compute(batch)
        if not self._seen[shape]:
            self._recordings.make_room(batch)
        self._seen[shape] += 1
        if step is not None:
            return self._compute_and_compare(batch, step)
        if not self._may_record or self._seen[shape] <= WARM_UP_BATCHES:
            return self._compute(batch)
        return self._compute_and_compare(batch, None)

    def _compute_and_compare(self, batch: Batch, kept: Step | None) -> Tensor:
        """Computes a batch, and does so again with the step that an earlier run has kept, or with a new one."""
        before = self._state()
        loss = self._compute(batch)
        gradients = self._gradients()
        after = self._state()
        step = kept or self._record(batch, list(gradients))
        if step is not None:
            self._restore(before)
            recorded_loss = step.compute(batch)
            if _agree(loss, recorded_loss, gradients):
                self._tell(
                    f"{'Recorded' if kept is None else 'Found'} the step of batches of {len(batch)} as a CUDA graph"
                )
                self._steps[_shape(batch)] = step
                self._trusted.add(_shape(batch))
                return recorded_loss
            if kept is None:
                self._give_up("it gave other numbers")
            else:  # new ones may do better
                self._drop_all()
        self._restore(after)
        for parameter in self._network.parameters():
            parameter.grad = gradients.get(parameter)
        return loss

    def _record(self, batch: Batch, parameters: Sequence[nn.Parameter]) -> Step | None:
        """Not the batch itself is recorded: numbers that come from it and not from its place would go unnoticed."""
        targets = None if batch.targets is None else torch.zeros_like(batch.targets)
        blank = replace(batch, inputs=torch.zeros_like(batch.inputs), targets=targets)

        def work() -> tuple[Tensor, ...]:
            for parameter in parameters:
                parameter.grad = None
            loss = self._compute(blank)
            return (loss, *(parameter.grad for parameter in parameters if parameter.grad is not None))

        if not self._recorder.has_room():
            self._give_up("the memory does not suffice")
            return None
        try:
            return Step(blank, parameters, _addresses(parameters), self._recorder.record(work))
        except RuntimeError as error:
            self._drop_all()
            self._give_up(str(error).strip().partition("\n")[0])
            return None

    def _drop_all(self) -> None:
        self._steps.clear()
        self._recorder.begin_anew()

    def _give_up(self, reason: str) -> None:
        self._may_record = False
        self._tell(f"Training goes on without CUDA graphs: {reason}")

    def _gradients(self) -> dict[nn.Parameter, Tensor]:
        return {parameter: parameter.grad for parameter in self._network.parameters() if parameter.grad is not None}

    def _state(self) -> _State:
        return _State([buffer.clone() for buffer in self._network.buffers()], self._recorder.random_state())

    def _restore(self, state: _State) -> None:
        for buffer, value in zip(self._network.buffers(), state.buffers, strict=True):
            buffer.copy_(value)
        self._recorder.set_random_state(state.random_numbers)


def _shape(batch: Batch) -> object:
    tensors = [batch.inputs, *([] if batch.targets is None else [batch.targets])]
    return tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in tensors)


def _agree(loss: Tensor, recorded_loss: Tensor, gradients: dict[nn.Parameter, Tensor]) -> bool:
    """Whether the loss, and the gradients that the parameters have now, are those of the step without a recording."""
    differences = [
        gradient - (torch.full_like(gradient, torch.nan) if parameter.grad is None else parameter.grad)
        for parameter, gradient in gradients.items()
    ]
    difference = nn.utils.get_total_norm(differences)
    norm = nn.utils.get_total_norm(list(gradients.values()))
    # Comparisons with what is no number are false: a training that diverges is not recorded.
    agrees = ((loss - recorded_loss).abs() <= _LOSS_TOLERANCE * loss.abs()) & (difference <= _GRADIENT_TOLERANCE * norm)
    return bool(agrees)
