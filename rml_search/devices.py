"""The GPUs and cores of this machine, and how trials share them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rml_search.allotment import own_cores, own_gpus, visible_gpus
from rml_search.errors import OptionError, RuntimeUnavailableError


@dataclass(frozen=True)
class Slot:
    """What a trial gets of the machine: one GPU (None: all there are) and a number of threads (None: all cores)."""

    device: str | None = None
    num_threads: int | None = None


def plan_slots(num_jobs: int, devices: tuple[str, ...], *, num_gpus: int, num_procs: int = 1) -> tuple[Slot, ...]:
    """One slot for each of the trials that run at a time.

    Args:
        num_jobs: how many trials those are.
        devices: the GPUs to use, as nvidia-smi numbers them, or from 0 where only some are this process's own;
            empty: all.
        num_gpus: how many there are for this process; 0 for a search on the CPU.
        num_procs: processes of each trial.

    Raises:
        OptionError: a device is not there, or is asked for in ways that exclude each other.
    """
    if num_jobs < 1:
        raise OptionError(f"--jobs must be at least 1, not {num_jobs}")
    if devices and not num_gpus:
        raise OptionError("--devices names GPUs, but this search runs on the CPU")
    for device in devices:
        if not (device.isdecimal() and int(device) < num_gpus):
            raise OptionError(f"--devices: there is no GPU {device}, only {', '.join(map(str, range(num_gpus)))}")
    if num_procs > 1 and num_gpus and (num_jobs > 1 or devices):
        raise OptionError("--num-procs above 1 uses the GPUs itself: leave out --jobs and --devices")
    threads = None if num_jobs == 1 else max(1, num_cpus() // (num_jobs * num_procs))
    if not num_gpus or (num_jobs == 1 and not devices):
        return (Slot(None, threads),) * num_jobs
    own = visible_gpus(num_gpus)
    names = tuple(own[int(device)] for device in devices) or own
    return tuple(Slot(names[job % len(names)], threads) for job in range(num_jobs))


def num_cpus() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return own_cores(len(os.sched_getaffinity(0)))
    return own_cores(os.cpu_count() or 1)


def find_gpus() -> tuple[str, ...]:
    """The names of the NVIDIA GPUs that this process may use, as their driver tells them; empty without any."""
    return own_gpus(_ask_nvidia("name"))


def describe_gpus() -> tuple[str, ...]:
    """``0: NVIDIA H200, 143771 MiB, 143000 MiB free`` of each of this machine's NVIDIA GPUs."""
    answers = (line.split(", ") for line in _ask_nvidia("index,name,memory.total,memory.free"))
    return tuple(f"{index}: {', '.join(name)}, {total}, {free} free" for index, *name, total, free in answers)


def free_memory(device: str | None) -> int:
    """Bytes that are free: of the GPU of that number, else of this machine; 0 where nobody tells."""
    if device is not None:
        return _free_memory_of_gpus().get(device, 0)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)


def free_gpu_memory() -> int:
    """Bytes that are free on the GPU that has the most; 0 without a GPU, and where nobody tells."""
    return max(_free_memory_of_gpus().values(), default=0)


def _free_memory_of_gpus() -> dict[str, int]:
    answers = (line.split(", ") for line in _ask_nvidia("index,memory.free"))  # "0, 143000 MiB"
    numbers = {index: free.partition(" ")[0] for index, free in answers}  # "[N/A]" where CPU and GPU share their memory
    return {index: int(number) * 2**20 for index, number in numbers.items() if number.isdecimal()}


def _ask_nvidia(fields: str) -> tuple[str, ...]:
    """What nvidia-smi says of each GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        # A driver that does not match its kernel module: as good as none.
        return ()
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def decide_gpu(asked_for: bool | None, gpus: tuple[str, ...]) -> bool:
    """Whether to use the GPU: as asked, else where there is one.

    Raises:
        RuntimeUnavailableError: a GPU was asked for and there is none.
    """
    if asked_for and not gpus:
        raise RuntimeUnavailableError("--gpu was given, but nvidia-smi finds no GPU: leave it out to use the CPU")
    return bool(gpus) if asked_for is None else asked_for
