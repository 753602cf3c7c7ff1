"""Data parallel training: what several processes must agree on, and nothing of it for one.

Each process computes the gradient of its part of a batch; the sum, weighted by samples, is the gradient of the whole
batch for losses that are means over samples. Dice and Jaccard, whose sums go over the samples of a process, become the
mean over processes. BatchNormalization takes the statistics of its own process's samples; its moving averages are
those of the first process, in checkpoints and in evaluations.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, distributed, nn

from rmldnn_contract.exit_status import DeviceError
from rmldnn_torch.data import Share
from rmldnn_torch.devices import num_cpus
from rmldnn_torch.launch import Launch, OtherProcessEnded


class Processes(Protocol):
    """How the processes of a run work together."""

    @property
    def share(self) -> Share:
        """Which of them this one is."""

    def average_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor, num_samples: int, /) -> Tensor:
        """Replaces the gradients by those of the whole batch, and gives the loss of the whole batch.

        ``loss`` (a scalar) and the gradients are means over this process's ``num_samples``, which may be none.
        """

    def sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""

    def copy_buffers(self, network: nn.Module) -> None:
        """Gives all processes the moving averages of the first."""


class SingleProcess:
    """One process has nothing to agree on."""

    share = Share()

    def average_gradients(self, _parameters: Sequence[nn.Parameter], loss: Tensor, _num_samples: int, /) -> Tensor:
        """The loss as it is; gradients stay as they are."""
        return loss

    def sum(self, values: Tensor) -> Tensor:
        """The values as they are."""
        return values

    def copy_buffers(self, network: nn.Module) -> None:
        """Nothing to copy."""


class ProcessGroup:
    """Several processes on one machine, connected by gloo, or by NCCL where each has a GPU of its own."""

    def __init__(self, share: Share) -> None:
        self.share = share

    def average_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor, num_samples: int, /) -> Tensor:
        """One message for all gradients, the loss and the number of samples."""
        parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in parameters]
        message = torch.cat([*parts, loss.reshape(1), loss.new_ones(1)]) * num_samples
        with _talking():
            distributed.all_reduce(message)
        averages = message / message[-1]
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            # A gradient must lie in memory as its parameter does (channels_last): fused optimizers go through both.
            parameter.grad = torch.empty_like(parameter).copy_(averages[start:end].view(parameter.shape))
            start = end
        return averages[start]

    def sum(self, values: Tensor) -> Tensor:
        """The sum of ``values`` over all processes."""
        total = values.clone()
        with _talking():
            distributed.all_reduce(total)
        return total

    def copy_buffers(self, network: nn.Module) -> None:
        """Gives all processes the moving averages of the first."""
        with _talking():
            for buffer in network.buffers():
                distributed.broadcast(buffer, src=0)


@contextlib.contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # all that gloo and NCCL raise when a connection breaks
        raise OtherProcessEnded(str(error)) from error


def gradient_reducer(num_processes: int) -> Literal["gloo", "nccl"]:
    """What adds the gradients of several processes: NCCL where each has a GPU of its own, which it needs."""
    has_gpu_for_each = torch.cuda.is_available() and torch.cuda.device_count() >= num_processes
    return "nccl" if has_gpu_for_each and distributed.is_nccl_available() else "gloo"


@contextlib.contextmanager
def join_processes(launch: Launch) -> Iterator[Processes]:
    """The processes that ``mpirun`` started, connected for the length of the block.

    They meet at a file in the folder for temporary files, named after the launcher's job, so that
    jobs beside each other never meet. The cores are divided among them.
    """
    if launch.num_processes == 1:
        yield SingleProcess()
        return
    # Whatever OMP_NUM_THREADS asks for (the tutorials' mpirun asks for twice the number of processes): threads beyond
    # the cores wait for each other in busy loops, and a step takes ten times as long.
    torch.set_num_threads(max(1, min(torch.get_num_threads(), num_cpus() // launch.num_processes)))
    # All are on one machine, whose own name need not lead anywhere: containers without a network have none that does.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    name = hashlib.sha256(f"{os.getuid()} {launch.job}".encode()).hexdigest()[:32]
    meeting_point = Path(tempfile.gettempdir(), f"rmldnn-{name}")
    backend = "gloo"
    if gradient_reducer(launch.num_processes) == "nccl":
        torch.cuda.set_device(launch.rank)
        backend = "cpu:gloo,cuda:nccl"  # slices are put together in the memory of the machine
    distributed.init_process_group(
        backend, init_method=meeting_point.as_uri(), rank=launch.rank, world_size=launch.num_processes
    )
    _meet_on_the_gpu(backend)
    # After an error the group is left as it is: NCCL would wait for the other processes before this one could tell.
    yield ProcessGroup(Share(launch.rank, launch.num_processes))
    distributed.destroy_process_group()
    meeting_point.unlink(missing_ok=True)


def _meet_on_the_gpu(backend: str) -> None:
    """NCCL connects at the first message, and what it lacks (shared memory, mostly) is its own error, not another's."""
    if "nccl" not in backend:
        return
    try:
        distributed.all_reduce(torch.zeros(1, device="cuda"))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DeviceError(f"NCCL cannot connect the processes of this run: {reason}") from error
