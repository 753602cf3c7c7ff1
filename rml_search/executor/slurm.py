"""The job array of a search: submitted by submitit, watched and cancelled by Slurm's own programs.

What a job is doing comes from squeue alone: many clusters keep no accounts, which is what submitit asks.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from rml_search.errors import OptionError, RuntimeUnavailableError
from rml_search.executor.options import SlurmOptions
from rml_search.executor.submission import JobArray
from rml_search.paths import Workspace

#: How long a program of Slurm's may take to answer.
_ANSWER_SECONDS = 60

#: A time limit ends a worker at most so often; then the array ends, and the same command goes on.
_MAX_TIME_LIMITS = 3

#: How long before its end a worker is told of it: a trial needs some of it to stop.
_NOTICE_SECONDS = 90


@dataclass(frozen=True)
class WorkerState:
    """A worker that waits, runs or is about to end; ``state`` and ``reason`` are Slurm's own words."""

    index: int
    state: str
    reason: str


class ClusterSilentError(RuntimeUnavailableError):
    """Slurm's controller does not answer; it may well do so later."""


def check_slurm(workspace: Workspace) -> None:
    """Raises RuntimeUnavailableError or OptionError where no array can be submitted from here."""
    for program in ("sbatch", "squeue", "scancel", "srun"):
        if shutil.which(program) is None:
            raise RuntimeUnavailableError(
                f"there is no {program} here: --executor slurm needs Slurm's programs, which a login node has"
            )
    try:
        import submitit  # noqa: F401 - whether it is there
    except ImportError:
        raise RuntimeUnavailableError("--executor slurm needs submitit: pip install '.[slurm]'") from None
    if "%" in str(workspace.root):
        raise OptionError(f"Slurm would put something else for % in {workspace.root}: search in a folder without one")


def submit(
    command: Sequence[str],
    options: SlurmOptions,
    workspace: Workspace,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> JobArray:
    """Submits the workers, each of which runs ``command`` in the working directory.

    Args:
        variables: what the workers find in their environment beside this process's own, and what no file beside the
            results shall hold: Slurm keeps it.

    Raises:
        RuntimeUnavailableError: Slurm does not take the array; the message is sbatch's own.
    """
    import cloudpickle
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    from rml_search.executor import worker

    cloudpickle.register_pickle_by_value(worker)
    folder = workspace.cluster_jobs
    folder.mkdir(exist_ok=True)
    before = set(folder.iterdir())
    executor = SlurmExecutor(folder, max_num_timeout=_MAX_TIME_LIMITS)
    executor.update_parameters(**_parameters(options, workspace))
    # submitit writes on stderr what sbatch has said, which stands in the error as well.
    try:
        with contextlib.redirect_stderr(io.StringIO()), _environment(variables):
            jobs = executor.submit_array([worker.Worker(command, list(variables)) for _ in range(options.num_workers)])
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        for path in set(folder.iterdir()) - before:
            path.unlink()
        raise RuntimeUnavailableError(f"Slurm does not take the job: {_sbatch_words(str(error))}") from None
    return JobArray(jobs[0].job_id.partition("_")[0], options.num_workers, folder)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _parameters(options: SlurmOptions, workspace: Workspace) -> dict[str, object]:
    """What submitit is told; None leaves a parameter out."""
    in_step = [] if options.cpus is None else [f"--cpus-per-task={options.cpus}"]  # srun does not take it from sbatch
    # As submitit spells them, so that they take the place of its own.
    further = {name.replace("-", "_"): value for name, value in options.further.items()}
    return {
        "job_name": "rml-optimization",
        "partition": options.partition,
        "gpus_per_node": options.gpus,
        "cpus_per_task": options.cpus,
        "mem": options.memory,
        "time": options.minutes,
        "account": options.account,
        "wckey": None,
        "signal_delay_s": min(_NOTICE_SECONDS, options.minutes * 60 // 4),
        "array_parallelism": options.num_workers,
        "stderr_to_stdout": True,
        "srun_args": in_step,
        "additional_parameters": {"requeue": True, "chdir": str(workspace.root), **further},
    }


def _sbatch_words(text: str) -> str:
    """What sbatch has said, on one line and without its name before each sentence."""
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in text.splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line)) or "sbatch has said nothing"


def workers_at_work(array: JobArray) -> list[WorkerState]:
    """The workers that have not ended; none where all have.

    Raises:
        ClusterSilentError: Slurm does not answer.
    """
    # All jobs of the person: asked for a job that has been forgotten, squeue fails as if Slurm were gone.
    question = ["--user", str(os.getuid()), "--array", "--noheader", "--format=%F|%K|%T|%r"]
    lines = _ask("squeue", *question).splitlines()
    rows = [line.split("|", maxsplit=3) for line in lines if line.count("|") >= 3]
    return [
        WorkerState(int(index) if index.isdecimal() else 0, state, reason)
        for job, index, state, reason in rows
        if job == array.job_id
    ]


def cancel_waiting(array: JobArray) -> None:
    """Takes the workers out of the queue that do not run. Raises ClusterSilentError."""
    _ask("scancel", "--state=PENDING", array.job_id)


def cancel(array: JobArray) -> None:
    """Ends all workers. Raises ClusterSilentError."""
    _ask("scancel", array.job_id)


def _ask(program: str, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterSilentError(f"{program} does not answer: {error}") from None
    if answer.returncode != 0:
        raise ClusterSilentError(f"{program} fails: {' '.join(answer.stderr.split())}")
    return answer.stdout


def exit_code_of(array: JobArray, index: int) -> int | None:
    """With what the driver of a worker has ended; None where the worker was ended before it could say so."""
    from submitit import SlurmJob
    from submitit.core.utils import FailedJobError, UncompletedJobError

    job: SlurmJob[int] = SlurmJob(array.folder, array.name_of(index))
    if not job.paths.result_pickle.exists():
        return None
    try:
        return job.result()
    except (FailedJobError, UncompletedJobError):
        return None


def log_of(array: JobArray, index: int) -> Path:
    """What a worker has printed."""
    from submitit.core.utils import JobPaths

    return JobPaths(array.folder, array.name_of(index)).stdout
