"""What the person asks of a cluster: validated once, and frozen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType

from rml_search.errors import OptionError
from rml_search.paths import SHARED_JOURNAL

#: The options of the submitting command that its workers do not get, with the number of values of each.
SUBMITTING_OPTIONS: Mapping[str, int] = MappingProxyType(
    {
        "--executor": 1,
        "--workers": 1,
        "--slurm-partition": 1,
        "--slurm-gpus": 1,
        "--slurm-cpus": 1,
        "--slurm-memory": 1,
        "--slurm-time": 1,
        "--slurm-account": 1,
        "--slurm-option": 1,
        "--no-wait": 0,
        "--plain": 0,
        "--quiet": 0,
        "-q": 0,
        "--json": 0,
        # What is done once for the study, and not by each worker again.
        "--fresh": 0,
        "--enqueue": 1,
        "--warm-start": 1,
        "--storage": 1,
        # The submitting command writes one for all.
        "--report": 0,
        "--no-report": 0,
    }
)

#: A worker's time where the person says none: Slurm's own default is often minutes, or none at all.
DEFAULT_MINUTES = 24 * 60

#: An array of Slurm's has at most a thousand jobs, where a cluster does not allow more.
_MAX_WORKERS = 1000

# What the search itself says to sbatch, and with what sbatch would submit elsewhere, or nothing, or not say which job.
_RESERVED = (
    *("array", "chdir", "error", "ntasks", "open-mode", "output", "requeue", "signal", "wrap"),
    *("clusters", "no-requeue", "parsable", "quiet", "test-only", "wait"),
)

# What the search must know itself: how long a worker runs, and how many cores srun gives it.
_OWN_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "account": "--slurm-account",
        "cpus-per-task": "--slurm-cpus",
        "gpus-per-node": "--slurm-gpus",
        "mem": "--slurm-memory",
        "partition": "--slurm-partition",
        "time": "--slurm-time",
    }
)

_UNITS = (24 * 60 * 60, 60 * 60, 60, 1)


class ExecutorName(str, Enum):
    """What ``--executor`` takes."""

    LOCAL = "local"
    SLURM = "slurm"


@dataclass(frozen=True)
class SlurmOptions:
    """A job array of workers, as sbatch is asked for it; None leaves a thing to the cluster's own default.

    Attributes:
        num_workers: jobs of the array; each works on the same study until that has all its trials.
        gpus: of each worker, a number with or without a type before it, as ``a100:1``.
        cpus: cores of each worker.
        memory: of each worker, as ``32G``.
        minutes: how long a worker may run before Slurm ends it.
        further: other parameters of sbatch, without their dashes; True for those without a value.
        waits: whether the command follows the array to its end.
    """

    num_workers: int = 1
    partition: str | None = None
    gpus: str | None = None
    cpus: int | None = None
    memory: str | None = None
    minutes: int = DEFAULT_MINUTES
    account: str | None = None
    further: Mapping[str, str | bool] = field(default_factory=dict)
    waits: bool = True

    def __post_init__(self) -> None:
        for option, number in (("--workers", self.num_workers), ("--slurm-cpus", self.cpus)):
            if number is not None and number < 1:
                raise OptionError(f"{option} must be at least 1, not {number}")
        if self.num_workers > _MAX_WORKERS:
            raise OptionError(f"--workers must be at most {_MAX_WORKERS}, not {self.num_workers}")
        for option, name in (("--slurm-partition", self.partition), ("--slurm-account", self.account)):
            if name is not None and not re.fullmatch(r"[^\s\x00-\x1f]+", name):
                raise OptionError(f"{option} must be a name without spaces, not {name!r}")
        if self.gpus is not None and not re.fullmatch(r"([\w.-]+:)?\d+", self.gpus):
            raise OptionError(f"--slurm-gpus must be a number, or a type and a number as a100:1, not {self.gpus!r}")
        if self.memory is not None and not re.fullmatch(r"\d+[KMGT]?", self.memory):
            raise OptionError(f"--slurm-memory must be a number with K, M, G or T, such as 32G, not {self.memory!r}")


@dataclass(frozen=True)
class SlurmChoice:
    """The options of a cluster as they were typed; None where they were not."""

    workers: int | None = None
    partition: str | None = None
    gpus: str | None = None
    cpus: int | None = None
    memory: str | None = None
    time: str | None = None
    account: str | None = None
    further: Sequence[str] | None = None
    no_wait: bool = False

    def for_executor(self, executor: ExecutorName) -> SlurmOptions | None:
        """What is asked of the cluster; None for a search on this machine.

        Raises:
            OptionError: an option is wrong, or speaks of a cluster that the search is not for.
        """
        if executor is ExecutorName.LOCAL:
            if self != SlurmChoice():
                raise OptionError(
                    "--workers, --no-wait and --slurm-... need --executor slurm: add it, or leave them out"
                )
            return None
        return SlurmOptions(
            num_workers=1 if self.workers is None else self.workers,
            partition=self.partition,
            gpus=self.gpus,
            cpus=self.cpus,
            memory=None if self.memory is None else self.memory.upper(),
            minutes=DEFAULT_MINUTES if self.time is None else parse_minutes(self.time),
            account=self.account,
            further=parse_further(self.further or ()),
            waits=not self.no_wait,
        )


def shared_with_workers(executor: ExecutorName, storage: str | None) -> str | None:
    """The storage of the study: as named, else a journal in the folder of the search where workers share it."""
    return SHARED_JOURNAL if storage is None and executor is ExecutorName.SLURM else storage


def parse_minutes(text: str) -> int:
    """The minutes, rounded up, of a time as Slurm writes it: 90, 90:00, 1:30:00, 2-12, 2-12:30 or 2-12:30:00.

    Raises:
        OptionError: it is no such time, or no time at all.
    """
    # (https://slurm.schedmd.com/sbatch.html#OPT_time)
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip(), flags=re.ASCII)
    if match is None:
        raise OptionError(f"--slurm-time must be a time such as 12:00:00 or 2-00:00:00, not {text!r}")
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:
        numbers = [int(days), *numbers]
        units = _UNITS[: len(numbers)]
    else:
        units = {1: _UNITS[2:3], 2: _UNITS[2:], 3: _UNITS[1:]}[len(numbers)]
    seconds = sum(number * unit for number, unit in zip(numbers, units, strict=True))
    if seconds == 0:
        raise OptionError("--slurm-time must be longer than nothing")
    return -(-seconds // 60)


def parse_further(texts: Sequence[str]) -> dict[str, str | bool]:
    """The parameters of sbatch in a number of ``--slurm-option``: ``NAME=VALUE``, or ``NAME`` alone.

    Raises:
        OptionError: one is no parameter, or the search itself has to say it.
    """
    parameters: dict[str, str | bool] = {}
    for text in texts:
        name, equals, value = text.strip().partition("=")
        name = name.removeprefix("--")
        if (
            not re.fullmatch(r"[a-z][a-z0-9-]*", name)
            or re.search(r"[\x00-\x1f]", value)
            or bool(equals) != bool(value)
        ):
            raise OptionError(f"--slurm-option takes a long option of sbatch, such as qos=high, not {text!r}")
        if name in _RESERVED:
            raise OptionError(f"--slurm-option: --{name} is not for a search: leave it out")
        if name in _OWN_OPTIONS:
            raise OptionError(f"--slurm-option: give {_OWN_OPTIONS[name]} instead of {name}")
        parameters[name] = value if equals else True
    return parameters


def worker_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line as typed, without what concerns nobody but the submitting command."""
    kept: list[str] = []
    num_skipped = 0
    for argument in arguments:
        if num_skipped:
            num_skipped -= 1
            continue
        name, equals, _value = argument.partition("=")
        if name not in SUBMITTING_OPTIONS:
            kept.append(argument)
        elif not equals:
            num_skipped = SUBMITTING_OPTIONS[name]
    return kept
