"""Keeps the state of a search for a view that another thread draws."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rml_search.hyperparameters import Hyperparameters
from rml_search.options import SearchOptions
from rml_search.plain_output import PlainObserver
from rml_search.progress import NUM_LAST, BestTrial, Progress, RunningTrial, best_so_far, summary
from rml_search.results import TrialRecord, TrialResult
from rmldnn_contract.training_log import EpochRecord


@dataclass
class _Trial:
    """A trial that runs."""

    hyperparameters: str
    started: float
    epochs: list[EpochRecord] = field(default_factory=list)


class LiveObserver:
    """Takes in what happens; :meth:`progress` may be called by any thread, and never waits for a terminal.

    Attributes:
        lines: what a person should still be able to read when the view has gone: the ends of trials, and notes.
        version: another one after every change.
    """

    def __init__(
        self,
        options: SearchOptions,
        settings: str,
        records: Sequence[TrialRecord],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lines: list[str] = []
        self.version = 0
        self._options = options
        self._settings = settings
        self._records = [*records]
        self._notes: list[str] = []
        self._running: dict[int, _Trial] = {}
        self._hyperparameters: dict[int, str] = {}
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()
        self._plain = PlainObserver(options, self.lines.append)

    def trial_started(self, number: int, place: int, hyperparameters: Hyperparameters) -> None:  # noqa: ARG002 - counted here anyway
        """Another trial runs."""
        with self._lock:
            self._running[number] = _Trial(str(hyperparameters), self._clock())
            self._hyperparameters[number] = str(hyperparameters)
            self.version += 1

    def epoch_finished(self, number: int, epoch: EpochRecord) -> None:
        """Its curve grows."""
        with self._lock:
            self._running[number].epochs.append(epoch)
            self.version += 1

    def trial_finished(self, result: TrialResult, best: TrialRecord | None) -> None:
        """It is one of those that have ended; broken off, it does not count."""
        with self._lock:
            self._running.pop(result.number, None)
            self._records.append(result.to_record(tried_again=result.is_tried_again))
            self._plain.trial_finished(result, best)
            self.version += 1

    def note(self, text: str) -> None:
        """The text stays in sight for a while, and among the lines."""
        with self._lock:
            self._notes = [*self._notes, text][-NUM_LAST:]
            self.lines.append(text)
            self.version += 1

    def progress(self) -> Progress:
        """The search as it is now."""
        with self._lock:
            now = self._clock()
            running = tuple(self._shown(number, trial, now) for number, trial in sorted(self._running.items()))
            num_counted, num_pruned, num_failed, best, failures, mean_seconds = summary(self._records)
            return Progress(
                self._settings,
                self._options.num_trials,
                num_counted,
                num_pruned,
                num_failed,
                running,
                best_so_far(self._with_hyperparameters(best), running),
                failures,
                now - self._started,
                mean_seconds,
                notes=tuple(self._notes),
            )

    def _shown(self, number: int, trial: _Trial, now: float) -> RunningTrial:
        epochs, num_epochs = tuple(trial.epochs), self._options.num_epochs
        fraction = min(1.0, epochs[-1].epoch / num_epochs) if epochs else 0.0
        return RunningTrial(number, trial.hyperparameters, epochs, num_epochs, now - trial.started, fraction)

    def _with_hyperparameters(self, best: BestTrial | None) -> BestTrial | None:
        """As the study drew them, where this part of the search has: the record may know them less well."""
        if best is None or best.number not in self._hyperparameters:
            return best
        return BestTrial(best.number, best.accuracy, best.epoch, self._hyperparameters[best.number])
