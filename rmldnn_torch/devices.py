"""The device of a run, and the cores of the machine."""

from __future__ import annotations

import os

import torch


def num_cpus() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def select_device(local_rank: int = 0) -> torch.device:
    """A CUDA device where there is one, else the CPU; several processes are dealt out over the devices.

    ``CUDA_VISIBLE_DEVICES`` says which devices there are; empty, it keeps a run on the CPU.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cpu")


def describe_device(device: torch.device) -> str:
    """The device in words, for the log."""
    if device.type == "cuda":
        return f"GPU {device.index or 0} ({torch.cuda.get_device_name(device)})"
    return f"CPU ({torch.get_num_threads()} threads)"
