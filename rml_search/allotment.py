"""What of a machine is this process's own where others share it: a batch system says so in the environment.

(https://slurm.schedmd.com/sbatch.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES,
https://docs.nvidia.com/cuda/cuda-programming-guide/05-appendices/environment-variables.html)
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence

_VISIBLE = "CUDA_VISIBLE_DEVICES"
#: A step's own GPUs, or its job's, as nvidia-smi numbers them outside of the job.
_SLURM_GPUS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
_SLURM_CORES = "SLURM_CPUS_PER_TASK"


def visible_gpus(num_gpus: int) -> tuple[str, ...]:
    """The GPUs that this process may use, by number or unique name: as the environment says, else so many from 0 on.

    As CUDA reads them: what follows a name that cannot be one is not seen either.
    """
    text = os.environ.get(_VISIBLE)
    if text is None:
        return tuple(map(str, range(num_gpus)))
    names = (name.strip() for name in text.split(","))
    return tuple(itertools.takewhile(re.compile(r"[0-9]+|(GPU|MIG)-.+").fullmatch, names))


def own_gpus(names: Sequence[str]) -> tuple[str, ...]:
    """Of the names of a machine's GPUs, in nvidia-smi's order, those of the GPUs that this process may use."""
    seen = visible_gpus(len(names))
    if all(device.isdecimal() for device in seen):
        return tuple(names[int(device)] for device in seen if int(device) < len(names))
    return tuple(names[: len(seen)])


def gpus_of_engine(device: str | None) -> tuple[str, ...] | None:
    """The GPUs that a container shall see, as a Docker engine numbers them, which runs outside of any job.

    Args:
        device: the one GPU of the trial, as this process numbers it; None: all that are its own.

    Returns:
        None where that is all of the machine's.
    """
    visible = None if _VISIBLE not in os.environ else [*visible_gpus(0)]
    outside = next((os.environ[name].split(",") for name in _SLURM_GPUS if os.environ.get(name)), None)
    if outside is None:
        return (device,) if device is not None else None if visible is None else tuple(visible)
    if device is None:
        return tuple(outside)
    # A job that is shown no other GPUs numbers its own from 0; their order is the same.
    order = [str(number) for number in range(len(outside))] if visible is None else visible
    return (outside[order.index(device)],) if device in order and len(order) == len(outside) else (device,)


def own_cores(num_cores: int) -> int:
    """Of so many cores that the system lets this process use, those that its job was given."""
    text = os.environ.get(_SLURM_CORES, "")
    return min(num_cores, int(text)) if text.isdecimal() and int(text) else num_cores
