"""Logs the course of a search elsewhere as well, without ever holding it up: by a thread for each place."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from rml_search.addresses import without_password
from rml_search.hyperparameters import Hyperparameters
from rml_search.observer import SearchObserver
from rml_search.paths import Workspace
from rml_search.progress import RunningTrial
from rml_search.results import TrialRecord, TrialResult
from rmldnn_contract.training_log import EpochRecord, read_epochs

#: How long a place that does not answer is left alone.
PAUSE_SECONDS = 30.0
#: How long the end of a search waits for what has not been logged yet.
PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class PastTrial:
    """A trial that an earlier part of the search has run, as its files tell.

    Attributes:
        ended: when, in seconds since 1970.
    """

    record: TrialRecord
    epochs: tuple[EpochRecord, ...]
    ended: float


class TrialLog(Protocol):
    """A place that keeps trials. A step that has failed is taken again: it may do its work twice, with one effect.

    Times are seconds since 1970.
    """

    def begin(self, number: int, hyperparameters: Hyperparameters, when: float) -> None:
        """A trial has begun."""

    def add_epoch(self, number: int, epoch: EpochRecord, when: float) -> None:
        """An epoch of it has been evaluated."""

    def end(self, record: TrialRecord, when: float) -> None:
        """It has ended."""

    def catch_up(self, trials: Sequence[PastTrial]) -> None:
        """Logs, of trials that have ended before, what is not there yet."""

    def close(self) -> None:
        """Nothing more comes."""


Step = Callable[[TrialLog], None]


class Tracker:
    """Takes steps in one place, in a thread of its own; what fails is tried again later, and told once.

    Attributes:
        name: of the place, to be shown.
    """

    def __init__(self, name: str, open_log: Callable[[], TrialLog]) -> None:
        self.name = name
        self._open_log = open_log
        self._steps: deque[Step] = deque()
        self._problem: str | None = None
        self._is_told = False
        self._changed = threading.Condition()
        self._is_ending = False
        # The end of the program does not wait for a server.
        self._thread = threading.Thread(target=self._work, name=f"tracking {name}", daemon=True)
        self._thread.start()

    def put(self, step: Step) -> None:
        """Lets a step be taken after those before it."""
        with self._changed:
            self._steps.append(step)
            self._changed.notify()

    def problem(self) -> str | None:
        """What a person should know, once; None most of the time."""
        with self._changed:
            if self._problem is None or self._is_told:
                return None
            self._is_told = True
            return f"{self.name} is unavailable, the search continues without it: {self._problem}"

    def close(self, patience_seconds: float) -> int:
        """Waits for the last steps, but not for ever; how many were not taken."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()
        self._thread.join(patience_seconds)
        with self._changed:
            return len(self._steps)

    def _work(self) -> None:
        log: TrialLog | None = None
        for step in self._due():
            try:
                log = log or self._open_log()
                step(log)
            except Exception as error:  # noqa: BLE001 - a search does not end because nobody listens
                with self._changed:
                    self._problem = first_line(error)
                    if self._is_ending:
                        return
                    self._changed.wait_for(lambda: self._is_ending, PAUSE_SECONDS)
                continue
            with self._changed:
                self._steps.popleft()
        if log is not None:
            with suppress(Exception):
                log.close()

    def _due(self) -> Iterator[Step]:
        """The first of the steps, again and again until it was taken; ends when there will be no more."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._steps or self._is_ending)
                if not self._steps:
                    return
                step = self._steps[0]
            yield step


class TrackedObserver:
    """An observer whose search is logged elsewhere too; all its methods are called by the thread of the search."""

    def __init__(self, observer: SearchObserver, trackers: Sequence[Tracker]) -> None:
        self._observer = observer
        self._trackers = trackers

    def trial_started(self, number: int, place: int, hyperparameters: Hyperparameters) -> None:
        """As the observer, and logs the hyperparameters."""
        self._observer.trial_started(number, place, hyperparameters)
        now = time.time()
        self._put(lambda log: log.begin(number, hyperparameters, now))

    def trials_advanced(self, shares: Mapping[int, float]) -> None:
        """As the observer."""
        self._observer.trials_advanced(shares)

    def epoch_finished(self, number: int, epoch: EpochRecord) -> None:
        """As the observer, and logs accuracy and losses."""
        self._observer.epoch_finished(number, epoch)
        now = time.time()
        self._put(lambda log: log.add_epoch(number, epoch, now))

    def trial_finished(self, result: TrialResult, best: TrialRecord | None) -> None:
        """As the observer, and logs how the trial has ended."""
        self._observer.trial_finished(result, best)
        record, now = result.to_record(), time.time()
        self._put(lambda log: log.end(record, now))

    def others_seen(self, records: Sequence[TrialRecord], running: Sequence[RunningTrial]) -> None:
        """As the observer: each driver logs its own trials."""
        self._observer.others_seen(records, running)

    def note(self, text: str) -> None:
        """As the observer."""
        self._observer.note(text)

    def catch_up(self, trials: Callable[[], Sequence[PastTrial]]) -> None:
        """Logs what earlier parts of the search have brought; ``trials`` is called by another thread."""
        self._put(lambda log: log.catch_up(trials()))

    def close(self) -> None:
        """Waits a while for what has not been logged yet, and tells what was not."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for tracker in self._trackers:
            num_left = tracker.close(max(0.0, deadline - time.monotonic()))
            self._tell_problems()
            if num_left:
                self.note(f"Not everything was logged to {tracker.name}: run the same command again to log the rest")

    def _put(self, step: Step) -> None:
        for tracker in self._trackers:
            tracker.put(step)
        self._tell_problems()

    def _tell_problems(self) -> None:
        for tracker in self._trackers:
            problem = tracker.problem()
            if problem is not None:
                self.note(problem)


def past_trials(records: Sequence[TrialRecord], workspace: Workspace) -> list[PastTrial]:
    """Those of the trials that have run in this folder, with what their logs say of epochs."""
    found = []
    for record in records:
        log = workspace.trial(record.number).log
        with suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            epochs = tuple(epoch for epoch in read_epochs(lines) if epoch.accuracy is not None)
            found.append(PastTrial(record, epochs, log.stat().st_mtime))
    return found


def first_line(error: BaseException) -> str:
    """What an error says, or the system's error behind it, as one line of a reasonable length."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return without_password(text or type(error).__name__)[:200]
