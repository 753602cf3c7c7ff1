"""Following a job array to its end, and telling how it has ended."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rml_search.errors import EngineFailedError, RuntimeUnavailableError
from rml_search.executor.slurm import (
    ClusterSilentError,
    WorkerState,
    cancel_waiting,
    exit_code_of,
    log_of,
    workers_at_work,
)
from rml_search.executor.submission import JobArray
from rml_search.interruption import STOPPED, how_to_resume
from rml_search.paths import shown
from rml_search.results import TrialRecord, TrialState, best_record

#: Slurm is asked often in the beginning, and a busy controller is spared later.
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0
#: The results are a small file, which is looked at in the meantime.
_LOOK_SECONDS = 1.0

#: Of a long log only the end is read.
_LOG_END_BYTES = 1 << 16

#: What submitit prints each time that a job starts.
_START_OF_A_RUN = "Starting with "

#: What it prints when a job goes back into the queue at its time limit.
_BACK_IN_LINE = "Requeued job "

#: What Slurm writes into the log of a job that it ends.
_CANCELLED = " CANCELLED AT "

_STOPS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_STOPPED_CODES = {code for number in _STOPS for code in (-number, 128 + number)}

_SUBMITIT = "submitit "
_ERROR = "Error: "
_ENDED_EARLY = "The search ended before "


@dataclass
class Progress:
    """Tells of trials that have ended since it was asked last.

    Attributes:
        read: the trials that have ended so far.
        num_trials: how many the search shall have.
    """

    read: Callable[[], Sequence[TrialRecord]]
    num_trials: int
    show: Callable[[str], None]
    _told: set[int] | None = field(default=None, repr=False)

    def num_counted(self, records: Sequence[TrialRecord]) -> int:
        """The trials that count: those whose hyperparameters were not tried again."""
        return sum(not record.tried_again for record in records)

    def tell_news(self) -> bool:
        """One line for each trial that has ended meanwhile, earlier ones in one; whether there are enough trials."""
        records = self.read()
        best = best_record(records)
        num_counted = self.num_counted(records)
        if self._told is None:
            self._told = {record.number for record in records}
            if best is not None:
                self.show(f"{num_counted} of {self.num_trials} trials have run, {_best_so_far(best)}")
        for record in records:
            if record.number not in self._told:
                self._told.add(record.number)
                self.show(_line(record, best, f"{num_counted} of {self.num_trials}"))
        return num_counted >= self.num_trials


def _best_so_far(best: TrialRecord) -> str:
    return f"best {best.max_acc:.3f}, trial {best.number}"


def _line(record: TrialRecord, best: TrialRecord | None, place: str) -> str:
    """``Trial 3 complete after 12 s: accuracy 0.851 in epoch 5 (best 0.904, trial 1); 4 of 50``."""
    if record.tried_again:
        return f"Trial {record.number} interrupted, to be retried: {record.reason}"
    head = f"Trial {record.number} {record.state.value} after {record.seconds:.0f} s: "
    if record.state is TrialState.FAILED or record.max_acc is None:
        return f"{head}{record.reason or 'for an unknown reason'}; {place}"
    text = f"{head}accuracy {record.max_acc:.3f} in epoch {record.epoch_max_acc}"
    text += ", the best so far" if best is None or best.number == record.number else f" ({_best_so_far(best)})"
    told = record.reason if record.state is TrialState.COMPLETE else None
    return "; ".join(filter(None, (text, told, place)))


def follow(array: JobArray, progress: Progress, show: Callable[[str], None]) -> None:
    """Shows what happens until all workers have ended; while Slurm does not answer it is asked again."""
    pause, told, has_enough = _FIRST_PAUSE_SECONDS, "", False
    while True:
        workers = None
        try:
            workers = workers_at_work(array)
            state = f"Job {array.job_id}: {describe(workers, array.num_workers)}"
        except ClusterSilentError as error:
            state = f"{error}; retrying until it responds"
        had_enough, has_enough = has_enough, progress.tell_news()
        if state != told:
            show(state)
            told = state
        if workers is not None and has_enough:
            workers = _without_waiting(array, workers, show)
        if workers == []:
            return
        if has_enough and not had_enough:  # the end is near
            pause = _FIRST_PAUSE_SECONDS
        _wait(pause, progress, has_enough=has_enough)
        pause = min(1.2 * pause, _LONGEST_PAUSE_SECONDS)


def _wait(seconds: float, progress: Progress, *, has_enough: bool) -> None:
    """Waits, and tells of trials meanwhile, at the longest until there are enough."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, _LOOK_SECONDS))
        if progress.tell_news() and not has_enough:
            return


def _without_waiting(
    array: JobArray, workers: list[WorkerState], show: Callable[[str], None]
) -> list[WorkerState] | None:
    """The workers but those that wait for a place though nothing is left to do: they are taken out of the queue."""
    waiting = [worker for worker in workers if worker.state == "PENDING"]
    if not waiting:
        return workers
    try:
        cancel_waiting(array)
    except ClusterSilentError:
        return None
    show(f"All trials have run: cancelling {len(waiting)} pending worker{'s' * (len(waiting) > 1)}")
    return [worker for worker in workers if worker not in waiting]


def describe(workers: Sequence[WorkerState], num_workers: int) -> str:
    """``2 running, 30 pending (Resources)``: what the workers are doing, in Slurm's words."""
    counts = Counter((worker.state.lower(), _reason(worker)) for worker in workers)
    parts = [f"{count} {state}{reason}" for (state, reason), count in counts.items()]
    num_ended = num_workers - len(workers)
    return ", ".join([*parts, *([f"{num_ended} ended"] if num_ended else [])])


def _reason(worker: WorkerState) -> str:
    return "" if worker.reason in ("None", "") or worker.state == "RUNNING" else f" ({worker.reason})"


# --- how it has ended ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerFailure:
    """A worker that has not ended as it should; ``exit_code`` is None where it could not even say so."""

    index: int
    exit_code: int | None
    words: str
    log: Path

    @property
    def was_stopped(self) -> bool:
        """Whether a person, a time limit or another job has ended it, and no error of its own."""
        if self.exit_code is not None:
            return self.exit_code in _STOPPED_CODES
        lines = _last_run(self.log)
        return not lines or any(line.startswith(STOPPED) or _CANCELLED in line for line in lines)

    def __str__(self) -> str:
        return f"{self.words} (log: {shown(self.log)})"


def failures(array: JobArray) -> list[WorkerFailure]:
    """The workers that have ended with an error, or were ended; not those that have never begun."""
    found = []
    for index in range(array.num_workers):
        code, log = exit_code_of(array, index), log_of(array, index)
        if code != 0 and log.exists():
            found.append(WorkerFailure(index, code, last_words(log) or _how_ended(code), log))
    return found


def last_words(log: Path) -> str | None:
    """What a worker's log ends with: its error, else the last line that is not submitit's; None without one."""
    lines = [line for line in _last_run(log) if not line.startswith(_SUBMITIT)]
    errors = [_reason_to_end(line) for line in lines if line.startswith((_ERROR, STOPPED))]
    return next(reversed(errors or lines), None)


def _reason_to_end(line: str) -> str:
    """What stands after ``Error: ``, or what a signal made of the driver, to be put into a sentence."""
    if line.startswith(_ERROR):
        return line.removeprefix(_ERROR)
    ending, _, _ = line.partition(". ")  # what to do now is for whoever runs the driver
    return ending[0].lower() + ending[1:]


def _how_ended(code: int | None) -> str:
    if code is None:
        return "it was stopped before it printed anything"
    return f"it was stopped by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"


def _last_run(log: Path) -> list[str]:
    """The lines of the last run of a job that may have been started several times; none that are empty."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_END_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith(_SUBMITIT) and _START_OF_A_RUN in line]
    return lines[starts[-1] + 1 if starts else 0 :]


def tell_end(array: JobArray, *, has_enough: bool, is_fresh: bool, show: Callable[[str], None]) -> None:
    """Says which workers have failed, and why others have ended before there were enough trials.

    Args:
        is_fresh: the command has ``--fresh``, with which it does not go on.

    Raises:
        SearchError: all have failed, and there are not enough trials; the exit code is that of the last one.
    """
    failed = [failure for failure in failures(array) if not (has_enough and _waited_again(failure))]
    if len(failed) == array.num_workers and not has_enough:
        which = "the worker" if len(failed) == 1 else f"all {len(failed)} workers"
        message = f"{which} failed{', the last one' if len(failed) > 1 else ''}: {failed[-1]}"
        if all(failure.was_stopped for failure in failed):
            message += f". {how_to_resume(is_fresh=is_fresh)}"
        code = failed[-1].exit_code
        raise EngineFailedError(message, RuntimeUnavailableError.exit_code if code is None else abs(code))
    for failure in failed:
        show(f"Worker {failure.index} failed: {failure}")
    if not has_enough:
        for line in dict.fromkeys(_early_ends(array)):
            show(line)


def _waited_again(failure: WorkerFailure) -> bool:
    """Whether it was ended while it waited to go on after a time limit."""
    lines = _last_run(failure.log)
    return failure.exit_code is None and any(line.startswith(_SUBMITIT) and _BACK_IN_LINE in line for line in lines)


def _early_ends(array: JobArray) -> list[str]:
    logs = [log_of(array, index) for index in range(array.num_workers)]
    return [line for log in logs if log.exists() for line in _last_run(log) if line.startswith(_ENDED_EARLY)]
