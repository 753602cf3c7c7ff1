"""How far a search has come: what a live view, ``status`` and other programs show, as one frozen object."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rml_search.hyperparameters import Hyperparameters
from rml_search.results import TrialRecord, TrialState, best_epoch, best_record, pareto_front
from rmldnn_contract.training_log import EpochRecord

#: How many of the last failures and notes are kept in sight.
NUM_LAST = 5


@dataclass(frozen=True)
class RunningTrial:
    """A trial that runs, or ran when its driver was killed.

    Attributes:
        seconds: since it began.
        fraction: of its training that is known to be done, 0 to 1.
        known_seconds: after which that was so; None: it is so now.
        place: who runs it, where that is another driver of the same study.
        is_left: whether its driver has been killed, and the next one tries it again.
    """

    number: int
    hyperparameters: Hyperparameters
    epochs: tuple[EpochRecord, ...]
    num_epochs: int
    seconds: float
    fraction: float = 0.0
    known_seconds: float | None = None
    place: str | None = None
    is_left: bool = False

    @property
    def num_done(self) -> int:
        """The last epoch that has been evaluated; 0 before the first."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Of the epochs that have one, in their order; not-a-number, which ends a trial, is none."""
        known = (epoch.accuracy for epoch in self.epochs if epoch.accuracy is not None)
        return tuple(accuracy for accuracy in known if math.isfinite(accuracy))

    @property
    def best(self) -> EpochRecord | None:
        """The epoch of the highest accuracy so far."""
        return best_epoch(self.epochs)

    @property
    def whole_seconds(self) -> float | None:
        """What the whole training takes at the pace so far; None before the first batch."""
        fraction = max(self.fraction, self.num_done / self.num_epochs)
        known = self.seconds if self.known_seconds is None else self.known_seconds
        return known / fraction if fraction > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before the first batch, and where nobody runs it any more."""
        whole = self.whole_seconds
        return None if self.is_left or whole is None else max(0.0, whole - self.seconds)


@dataclass(frozen=True)
class BestTrial:
    """A good trial: ``accuracy`` (0 to 1) of its best ``epoch`` (from 1), and its ``seconds``, so far if it runs."""

    number: int
    accuracy: float
    epoch: int | None
    hyperparameters: Hyperparameters
    seconds: float


@dataclass(frozen=True)
class Failure:
    """A trial that has failed, and why."""

    number: int
    reason: str


@dataclass(frozen=True)
class Tally:
    """What the trials that have ended say together; those that are tried again do not count.

    Attributes:
        num_counted: that have ended, ``num_pruned`` and ``num_failed`` of them.
        failures: the last ones.
        front: those that no other one beats in accuracy and in seconds.
        mean_seconds: of a trial that has not failed; None before the first.
    """

    num_counted: int
    num_pruned: int
    num_failed: int
    best: BestTrial | None
    failures: tuple[Failure, ...]
    front: tuple[BestTrial, ...]
    mean_seconds: float | None


@dataclass(frozen=True)
class Progress:
    """A search at one moment.

    Attributes:
        settings: in one line.
        num_trials: that the search shall have; None where nobody has said so.
        running: trials that have begun and not ended.
        has_front: whether seconds are an objective besides accuracy.
        is_running: whether somebody is at work on it; None where nobody can say.
        notes: what a person should know.
        again: the best trials trained again with other seeds, once the search has come to that.
        noun: what a trial is called: those of a confirmation are runs, with numbers of their own.
    """

    settings: str
    num_trials: int | None
    tally: Tally
    running: tuple[RunningTrial, ...]
    has_front: bool = False
    is_running: bool | None = True
    notes: tuple[str, ...] = ()
    again: Progress | None = None
    noun: str = "trial"

    @property
    def at_work(self) -> list[RunningTrial]:
        """The running trials that somebody still runs."""
        return [trial for trial in self.running if not trial.is_left]

    @property
    def trials_done(self) -> float:
        """Trials that have ended, and the parts that are done of those that run."""
        return self.tally.num_counted + sum(trial.fraction for trial in self.at_work)

    @property
    def best(self) -> BestTrial | None:
        """The best of the ended trials, or a running one that is better by now."""
        best = self.tally.best
        for trial in self.at_work:
            epoch = trial.best
            accuracy = None if epoch is None else epoch.accuracy
            if epoch is not None and accuracy is not None and (best is None or accuracy > best.accuracy):
                best = BestTrial(trial.number, accuracy, epoch.epoch, trial.hyperparameters, trial.seconds)
        return best

    @property
    def seconds_left(self) -> float | None:
        """Until all trials have run, if they take as long as those before and as many run at a time as now.

        None where that is not known yet, or nobody is at work.
        """
        if self.num_trials is None or self.is_running is False:
            return None
        paces = [whole for trial in self.at_work if (whole := trial.whole_seconds) is not None]
        pace = self.tally.mean_seconds or (sum(paces) / len(paces) if paces else None)
        if pace is None:
            return None
        num_to_begin = max(0, self.num_trials - self.tally.num_counted - len(self.at_work))
        left = [trial.seconds_left for trial in self.at_work]
        begun = [max(0.0, pace - trial.seconds) for trial in self.at_work if trial.seconds_left is None]
        seconds = num_to_begin * pace + sum(begun) + sum(value for value in left if value is not None)
        return seconds / max(1, len(self.at_work))


def tally(records: Sequence[TrialRecord]) -> Tally:
    """What ended trials say together."""
    counted = [record for record in records if not record.tried_again]
    failed = [record for record in counted if record.state is TrialState.FAILED]
    seconds = [record.seconds for record in counted if record.state is not TrialState.FAILED and record.seconds > 0]
    best = best_record(records)
    return Tally(
        num_counted=len(counted),
        num_pruned=sum(record.state is TrialState.PRUNED for record in counted),
        num_failed=len(failed),
        best=None if best is None else _as_best(best),
        failures=tuple(
            Failure(record.number, record.reason or "for an unknown reason") for record in failed[-NUM_LAST:]
        ),
        front=tuple(_as_best(record) for record in pareto_front(records)),
        mean_seconds=sum(seconds) / len(seconds) if seconds else None,
    )


def _as_best(record: TrialRecord) -> BestTrial:
    point = Hyperparameters.from_point(record.point)
    return BestTrial(record.number, record.max_acc or 0.0, record.epoch_max_acc, point, record.seconds)


def settings_line(num_trials: int | None, settings: Mapping[str, Any]) -> str:
    """What tells one search from another, in one line; ``settings`` by option, as the study keeps them."""
    low, high = settings.get("--lr-range-min"), settings.get("--lr-range-max")
    fraction = settings.get("--validation-fraction")
    parts = [
        f"{'?' if num_trials is None else num_trials} trials of {settings.get('--num-epochs', '?')} epochs",
        "|".join(settings.get("--optimizers") or ()),
        "|".join(settings.get("--loss") or ()),
        "" if low is None or high is None else f"lr {low:g}-{high:g}",
        "x".join(map(str, settings.get("--image-size") or ())),
        "" if settings.get("--batch-size") is None else f"batch {settings['--batch-size']}",
        "" if fraction is None else f"chosen on {fraction:.0%} of the training images",
    ]
    return ", ".join(part for part in parts if part)


def duration(seconds: float | None) -> str:
    """``0:42``, ``1:02:03`` or ``2 d 03:04``; ``-:--`` for None."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    if days:
        return f"{days} d {hours_of_day:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*#@"


def sparkline(values: Sequence[float], width: int, low: float, high: float, *, ascii_only: bool = False) -> str:
    """A curve of one line: each character the last of its share of the values, from ``low`` to ``high``."""
    bars = _ASCII_BARS if ascii_only else _BARS
    if not values or width < 1:
        return ""
    if len(values) > width:
        values = [values[(column + 1) * len(values) // width - 1] for column in range(width)]
    span = high - low
    levels = ((value - low) / span if span > 0 else 0.5 for value in values)
    return "".join(bars[min(len(bars) - 1, max(0, int(level * len(bars))))] for level in levels)


def accuracy_range(trials: Iterable[RunningTrial]) -> tuple[float, float]:
    """The lowest and the highest accuracy of these trials, so that their curves can be compared."""
    values = [value for trial in trials for value in trial.accuracies]
    return (min(values), max(values)) if values else (0.0, 1.0)
