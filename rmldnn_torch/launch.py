"""What ``mpirun`` told this process: which of how many it is. Read from the environment, without MPI itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rmldnn_contract.exit_status import UsageError

# (rank, size, processes on this machine) as Open MPI names them, and MPICH and its kin.
_VARIABLES = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),
)
_JOB_VARIABLES = ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_KVSNAME", "PMI_JOBID")


class OtherProcessEnded(Exception):  # noqa: N818 - an event of another process, whose error is told there
    """Another process of this run is gone, so this one cannot go on."""


@dataclass(frozen=True)
class Launch:
    """This process is the ``rank``-th (from 0) of ``num_processes``; ``job`` is the same text in all of them."""

    rank: int = 0
    num_processes: int = 1
    job: str = ""


def read_launch(environment: Mapping[str, str] | None = None) -> Launch:
    """What the environment says; one process where it says nothing.

    Raises:
        UsageError: it contradicts itself, or the processes are spread over several machines.
    """
    variables = os.environ if environment is None else environment
    for rank_name, size_name, local_size_name in _VARIABLES:
        if rank_name not in variables or size_name not in variables:
            continue
        rank, num_processes = _number(variables, rank_name), _number(variables, size_name)
        if not 0 <= rank < num_processes:
            raise UsageError(f"{rank_name} is {rank} and {size_name} {num_processes}: start the processes with mpirun")
        if local_size_name in variables and _number(variables, local_size_name) != num_processes:
            raise UsageError("the processes run on several machines: this engine runs them on one (mpirun --host)")
        return Launch(rank, num_processes, _job(variables))
    return Launch()


def _number(variables: Mapping[str, str], name: str) -> int:
    try:
        return int(variables[name])
    except ValueError:
        raise UsageError(
            f"{name} is {variables[name]!r}, which is no number: start the processes with mpirun"
        ) from None


def _job(variables: Mapping[str, str]) -> str:
    """The launcher's name for the job, and its process with that one's start: no earlier job had both."""
    names = [variables[name] for name in _JOB_VARIABLES if name in variables]
    parent = os.getppid()
    try:
        # proc(5): field 22 is the start time; the command name, which may hold blanks, ends with the last bracket.
        started = Path(f"/proc/{parent}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        started = "0"
    return "-".join([*names, str(parent), started])
