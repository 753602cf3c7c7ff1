"""What every runtime offers, and what a run of the engine looks like to the search."""

from __future__ import annotations

import codecs
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rml_search.mounts import Mount
from rml_search.options import ENGINE_VARIABLES
from rmldnn_contract.exit_status import ExitStatus

#: Where a container sees the working directory.
CONTAINER_DIRECTORY = "/home/ubuntu"

#: The environment variable by which our engine is told its seed.
SEED_VARIABLE = "RMLDNN_SEED"

#: How long an engine may take to end after it was asked to, before it is killed.
STOP_SECONDS = 5


@dataclass(frozen=True)
class EngineRun:
    """One start of the engine.

    ``config`` is relative to the working directory; ``labels`` tell which search and trial it serves. ``device`` is the
    one GPU that it shall see, as nvidia-smi numbers them (None: all), ``num_threads`` its share of the cores.
    """

    config: Path
    num_procs: int = 1
    seed: int | None = None
    mounts: tuple[Mount, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    num_threads: int | None = None

    def environment(self) -> dict[str, str]:
        """What our engine reads from its environment; RocketML's has no keys for it and ignores it.

        What the driver's own environment says of them holds in containers too.
        """
        variables = {name: os.environ[name] for name in ENGINE_VARIABLES if name in os.environ}
        if self.seed is not None:
            variables[SEED_VARIABLE] = str(self.seed)
        if self.num_threads is not None:
            variables["OMP_NUM_THREADS"] = str(self.num_threads)
        return variables

    def process_environment(self, *, gpu: bool) -> dict[str, str]:
        """The same for an engine that sees this machine's devices unless it is told not to."""
        visible = {} if gpu else {"CUDA_VISIBLE_DEVICES": ""}
        if gpu and self.device is not None:
            visible["CUDA_VISIBLE_DEVICES"] = self.device
            if "CUDA_VISIBLE_DEVICES" not in os.environ and "CUDA_DEVICE_ORDER" not in os.environ:
                # As it comes, CUDA counts the fastest first, and nvidia-smi, whose number this is, by place.
                visible["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        return {**self.environment(), **mpi_environment(self.num_procs), **visible}


@dataclass(frozen=True)
class EngineExit:
    """How a run ended: its exit code (negative: the signal that killed it), and what the runtime knows beyond it.

    ``is_machines_fault``: something killed it that has nothing to do with what it computed.
    """

    code: int
    note: str | None = None
    is_machines_fault: bool = False

    @property
    def status(self) -> ExitStatus | None:
        """The exit code as one of our engine's, if it is one."""
        return ExitStatus(self.code) if self.code in ExitStatus.__members__.values() else None


def was_killed(code: int) -> bool:
    """Whether the exit code is that of SIGKILL or SIGTERM: from a system short of memory, or a person."""
    return code in {code for number in (signal.SIGKILL, signal.SIGTERM) for code in (-number, 128 + number)}


class RunningEngine(Protocol):
    """An engine at work."""

    def lines(self) -> Iterator[str]:
        """What it prints, line by line, as it comes; ends with the engine."""

    def stop(self) -> None:
        """Ends it; returns when it has ended. May be called from another thread."""

    def wait(self) -> EngineExit:
        """Waits for its end, and tells how it was."""


class Runtime(Protocol):
    """A way to start the engine."""

    name: str
    in_container: bool

    def describe(self) -> str:
        """What stands in the table of settings, such as ``docker (image rocketml/rmldnn:latest)``."""

    def prepare(self, show: Callable[[str], None], /) -> None:
        """Makes sure that an engine can be started; ``show`` is told of what takes long.

        Raises:
            RuntimeUnavailableError: what is missing, and what to do about it.
        """

    def remove_leftovers(self, is_gone: Callable[[str], bool] = lambda _: True, /) -> None:
        """Removes what searches in this working directory have left that were killed.

        ``is_gone`` tells of a driver's name whether it has ended; as it comes it holds for all, in no other's time.
        """

    def start(self, run: EngineRun) -> AbstractContextManager[RunningEngine]:
        """Starts the engine; leaving the context leaves nothing of it behind, however it is left."""


def engine_command(
    run: EngineRun, *, gpu: bool, program: tuple[str, ...] = ("rmldnn",), devices: Sequence[str] = ()
) -> list[str]:
    """The command line, with mpirun before it for several processes (contract, section 1).

    ``devices`` are the GPUs that an engine outside of a container may use; none: as many as processes, from 0 on.
    """
    return [*_mpirun(run.num_procs, gpu=gpu, devices=devices), *program, *engine_arguments(run)]


def engine_arguments(run: EngineRun) -> list[str]:
    """What follows the program's name."""
    return [f"--config=./{run.config.as_posix()}"]


def _mpirun(num_procs: int, *, gpu: bool, devices: Sequence[str]) -> list[str]:
    if num_procs == 1:
        return []
    if gpu:
        visible = ",".join(devices[:num_procs] or map(str, range(num_procs)))
        return ["mpirun", "-np", str(num_procs), "-x", f"CUDA_VISIBLE_DEVICES={visible}"]
    return ["mpirun", "-np", str(num_procs), "--bind-to", "none", "-x", f"OMP_NUM_THREADS={2 * num_procs}"]


def mpi_environment(num_procs: int) -> dict[str, str]:
    """Lets mpirun start as root, as containers often do, and start more processes than there are cores."""
    if num_procs == 1:
        return {}
    return {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    }


def split_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Whole lines, without their ends, from pieces of output cut anywhere, also within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in lines:
            yield line.rstrip("\r")
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest
