"""Keeps the state of a search for a view that another thread draws."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rml_search.display import SearchPart
from rml_search.hyperparameters import Hyperparameters
from rml_search.plain_output import PlainObserver
from rml_search.progress import NUM_LAST, Progress, RunningTrial, tally
from rml_search.results import TrialRecord, TrialResult
from rmldnn_contract.training_log import EpochRecord


@dataclass
class _Trial:
    """A trial that runs."""

    hyperparameters: Hyperparameters
    started: float
    last_advance: float
    share: float = 0.0
    epochs: list[EpochRecord] = field(default_factory=list)


class LiveObserver:
    """Takes in what happens; any thread may call its methods, and none waits for a terminal.

    Args:
        part: the trials that are about to run, and those of them that have ended before.
        settings: of the search, in one line.
        keep_line: told what a person should still be able to read when the view has gone: the ends of trials, and
            notes.

    Attributes:
        version: another one after every change.
    """

    def __init__(
        self,
        part: SearchPart,
        settings: str,
        keep_line: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.version = 0
        self._options = part.options
        self._noun = part.noun
        self._settings = settings
        self._records = [*part.records]
        self._notes: list[str] = []
        self._running: dict[int, _Trial] = {}
        self._elsewhere: tuple[RunningTrial, ...] = ()
        self._keep_line = keep_line
        self._clock = clock
        self._lock = threading.RLock()  # a warning becomes a note, and may come while something else is taken in
        self._plain = PlainObserver(part.options, keep_line, part.noun)

    def trial_started(self, number: int, place: int, hyperparameters: Hyperparameters) -> None:  # noqa: ARG002 - counted here anyway
        """Another trial runs."""
        with self._lock:
            now = self._clock()
            self._running[number] = _Trial(hyperparameters, now, now)
            self.version += 1

    def trials_advanced(self, shares: Mapping[int, float]) -> None:
        """Bars grow, and the time left is known better: no change of its own, the clocks are drawn anew as well."""
        with self._lock:
            for number, share in shares.items():
                trial = self._running.get(number)
                if trial is not None and share > trial.share:
                    trial.share, trial.last_advance = share, self._clock()

    def epoch_finished(self, number: int, epoch: EpochRecord) -> None:
        """Its curve grows."""
        with self._lock:
            trial = self._running[number]
            trial.epochs.append(epoch)
            trial.share = max(trial.share, epoch.epoch / self._options.num_epochs)
            trial.last_advance = self._clock()
            self.version += 1

    def trial_finished(self, result: TrialResult, best: TrialRecord | None) -> None:
        """It is one of those that have ended; broken off, it does not count."""
        with self._lock:
            self._running.pop(result.number, None)
            self._records.append(result.to_record(tried_again=result.is_tried_again))
            self._plain.trial_finished(result, best)
            self.version += 1

    def others_seen(self, records: Sequence[TrialRecord], running: Sequence[RunningTrial]) -> None:
        """The trials of all drivers count, and those of others are in sight too."""
        with self._lock:
            self._records = [*records]
            self._elsewhere = tuple(running)
            self.version += 1

    def note(self, text: str) -> None:
        """The text stays in sight for a while, and among the lines."""
        with self._lock:
            self._notes = [*self._notes, text][-NUM_LAST:]
            self._keep_line(text)
            self.version += 1

    def progress(self) -> Progress:
        """The search as it is now."""
        with self._lock:
            now = self._clock()
            own = [self._shown(number, trial, now) for number, trial in self._running.items()]
            return Progress(
                settings=self._settings,
                num_trials=self._options.num_trials,
                tally=tally(self._records),
                running=tuple(sorted((*own, *self._elsewhere), key=lambda trial: trial.number)),
                has_front=len(self._options.objectives) > 1,
                notes=tuple(self._notes),
                noun=self._noun,
            )

    def _shown(self, number: int, trial: _Trial, now: float) -> RunningTrial:
        epochs, num_epochs = tuple(trial.epochs), self._options.num_epochs
        seconds, known = now - trial.started, trial.last_advance - trial.started
        return RunningTrial(number, trial.hyperparameters, epochs, num_epochs, seconds, min(1.0, trial.share), known)
