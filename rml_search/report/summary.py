"""What a report is made of: the trials of a study as they stood at one moment, and what follows from them.

Hyperparameters have any names, and a trial need not have all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property

from rml_search.run_record import RunRecord

#: What a hyperparameter may be; None only in studies of other programs.
Value = str | int | float | bool | None


class State(str, Enum):
    """How a trial stands; the first three as ``list_acc.json`` has them, but for those that it calls tried again."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  #: broken off, and its hyperparameters get another trial: it does not count
    RUNNING = "running"


@dataclass(frozen=True)
class Dimension:
    """One hyperparameter of the search space: a choice of values, or a range of numbers.

    Attributes:
        choices: the values that it may have; None for a range.
        low, high: the ends of the range; 0 where there are choices.
        is_log: whether the range is searched, and is best drawn, by orders of magnitude.
    """

    name: str
    choices: tuple[Value, ...] | None = None
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False


@dataclass(frozen=True)
class TrialSummary:
    """One trial.

    Attributes:
        accuracies: (epoch from 1, accuracy 0 to 1) of each epoch that was evaluated.
        accuracy: that of its best epoch; None where it failed or has reached none yet.
        reason: why it failed, or was stopped early.
        known_epochs: those that it trained, where that is known without its accuracies.
    """

    number: int
    hyperparameters: Mapping[str, Value]
    state: State
    accuracies: tuple[tuple[int, float], ...] = ()
    accuracy: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0
    reason: str | None = None
    started: datetime | None = None
    known_epochs: int | None = None

    @property
    def num_epochs(self) -> int:
        """The epochs that it trained, as far as is known."""
        if self.known_epochs is not None:
            return self.known_epochs
        return max((epoch for epoch, _ in self.accuracies), default=self.best_epoch or 0)

    @property
    def is_judged(self) -> bool:
        """Whether it has ended with an accuracy: those that the study compares."""
        return self.state in {State.COMPLETE, State.PRUNED} and self.accuracy is not None


@dataclass(frozen=True)
class Confirmation:
    """A trial that was trained again with other seeds; ``accuracies`` are those runs' best ones, 0 to 1."""

    number: int
    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the runs."""
        return statistics.fmean(self.accuracies)


@dataclass(frozen=True)
class StudySummary:
    """A search as it stood when it was read.

    Attributes:
        name: of the folder that holds the search.
        dimensions: the search space, by name.
        num_epochs: those of a whole trial; None where it is not known.
        settings: what makes the study this one, by option; files by their SHA-256.
        runs: each time that the search was begun or went on, oldest first.
        confirmations: the best trials trained again with other seeds, by their mean, best first.
        identity: tells the study from all others, where drivers share it.
    """

    name: str
    trials: tuple[TrialSummary, ...]
    dimensions: tuple[Dimension, ...]
    read_at: datetime
    num_epochs: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    runs: tuple[RunRecord, ...] = ()
    confirmations: tuple[Confirmation, ...] = ()
    identity: str | None = None

    @property
    def is_chosen_by_validation(self) -> bool:
        """Whether epoch and trial were chosen on images held out of the training images."""
        return "--validation-fraction" in self.settings

    @property
    def front(self) -> list[TrialSummary]:
        """The trials that no other one beats in accuracy and in seconds, the most accurate first."""
        found: list[TrialSummary] = []
        for trial in sorted(self.ranked, key=lambda trial: (-accuracy_of(trial), trial.seconds)):
            if not found or trial.seconds < found[-1].seconds:
                found.append(trial)
        return found

    @cached_property
    def ranked(self) -> list[TrialSummary]:
        """The trials that ended with an accuracy, best first; of equals the earlier one."""
        judged = (trial for trial in self.trials if trial.is_judged)
        return sorted(judged, key=lambda trial: (-accuracy_of(trial), trial.number))

    @property
    def best(self) -> TrialSummary | None:
        """The best trial; None where none has worked."""
        return self.ranked[0] if self.ranked else None

    def of_state(self, state: State) -> list[TrialSummary]:
        """The trials in this state, by number."""
        return [trial for trial in self.trials if trial.state is state]


def accuracy_of(trial: TrialSummary) -> float:
    """The accuracy of a trial that has one. Raises ValueError for any other."""
    if trial.accuracy is None:
        raise ValueError(f"trial {trial.number} has no accuracy")
    return trial.accuracy


@dataclass(frozen=True)
class CostShare:
    """What the trials that ended in one way took; ``share`` is their part (0 to 1) of the seconds of all trials."""

    state: State
    num_trials: int
    num_epochs: int
    seconds: float
    share: float


@dataclass(frozen=True)
class Cost:
    """Where the time of the trials that have ended went.

    How long those have worked that have not, nobody knows: a killed search may have left them days ago.

    Attributes:
        seconds: of these trials, added up.
        wall_seconds: from the first trial's start to the last one's end, pauses included; None if not known.
        saved_epochs: those that trials would have trained that were stopped early.
        saved_seconds: what these would have taken, at the mean time of an epoch of the whole search.
    """

    shares: tuple[CostShare, ...]
    seconds: float
    num_epochs: int
    wall_seconds: float | None
    saved_epochs: int
    saved_seconds: float

    @property
    def num_trials(self) -> int:
        """Those that have ended."""
        return sum(share.num_trials for share in self.shares)

    @property
    def num_finished(self) -> int:
        """Those that have ended and count, as ``status`` counts them."""
        return sum(share.num_trials for share in self.shares if share.state is not State.INTERRUPTED)

    @property
    def seconds_of_an_epoch(self) -> float:
        """The mean, start-up and failures included; 0 where no epoch was trained."""
        return self.seconds / self.num_epochs if self.num_epochs else 0.0


def cost_of(study: StudySummary) -> Cost:
    """Adds up what the trials of a study took that have ended."""
    ended = [trial for trial in study.trials if trial.state is not State.RUNNING]
    seconds = sum(trial.seconds for trial in ended)
    num_epochs = sum(trial.num_epochs for trial in ended)
    saved = 0
    if study.num_epochs is not None:
        saved = sum(max(0, study.num_epochs - trial.num_epochs) for trial in study.of_state(State.PRUNED))
    states = [state for state in State if state is not State.RUNNING and study.of_state(state)]
    return Cost(
        shares=tuple(_share(state, study.of_state(state), seconds) for state in states),
        seconds=seconds,
        num_epochs=num_epochs,
        wall_seconds=_wall_seconds(ended),
        saved_epochs=saved,
        saved_seconds=saved * seconds / num_epochs if num_epochs else 0.0,
    )


def _share(state: State, trials: Sequence[TrialSummary], total: float) -> CostShare:
    seconds = sum(trial.seconds for trial in trials)
    num_epochs = sum(trial.num_epochs for trial in trials)
    return CostShare(state, len(trials), num_epochs, seconds, seconds / total if total else 0.0)


def _wall_seconds(trials: Sequence[TrialSummary]) -> float | None:
    spans = [(trial.started, trial.started + timedelta(seconds=trial.seconds)) for trial in trials if trial.started]
    if not spans:
        return None
    return (max(end for _, end in spans) - min(start for start, _ in spans)).total_seconds()
