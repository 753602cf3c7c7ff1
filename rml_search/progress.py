"""How far a search has come: what a live view, ``status`` and other programs show, as one frozen object."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rml_search.hyperparameters import Hyperparameters
from rml_search.results import TrialRecord, TrialState, best_epoch, best_record
from rmldnn_contract.training_log import EpochRecord

#: How many of the last failures and notes are kept in sight.
NUM_LAST = 5


@dataclass(frozen=True)
class RunningTrial:
    """A trial that runs, or ran when its search was killed.

    Attributes:
        hyperparameters: as a person reads them.
        seconds: since it began.
        fraction: of its training that is done, 0 to 1.
    """

    number: int
    hyperparameters: str
    epochs: tuple[EpochRecord, ...]
    num_epochs: int
    seconds: float
    fraction: float = 0.0

    @property
    def num_done(self) -> int:
        """The last epoch that has been evaluated; 0 before the first."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Of the epochs that have one, in their order."""
        return tuple(epoch.accuracy for epoch in self.epochs if epoch.accuracy is not None)

    @property
    def best(self) -> EpochRecord | None:
        """The epoch of the highest accuracy so far."""
        return best_epoch(self.epochs)

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before the first epoch."""
        done = max(self.fraction, self.num_done / self.num_epochs)
        return self.seconds * (1 - done) / done if self.num_done else None


@dataclass(frozen=True)
class BestTrial:
    """The best trial so far: ``accuracy`` (0 to 1) of its best ``epoch`` (from 1)."""

    number: int
    accuracy: float
    epoch: int | None
    hyperparameters: str


@dataclass(frozen=True)
class Failure:
    """A trial that has failed, and why."""

    number: int
    reason: str


@dataclass(frozen=True)
class Progress:
    """A search at one moment.

    Attributes:
        settings: in one line.
        num_trials: that the search shall have; None where nobody has said so.
        num_counted: of those that have ended and count, pruned and failed ones included.
        seconds: since this part of the search began; None where that is not known.
        mean_trial_seconds: of the trials that have ended well; None before the first.
        is_running: whether a search is at work; None where that cannot be known.
        notes: what else a person should know, the last ones.
    """

    settings: str
    num_trials: int | None
    num_counted: int
    num_pruned: int
    num_failed: int
    running: tuple[RunningTrial, ...]
    best: BestTrial | None
    failures: tuple[Failure, ...]
    seconds: float | None
    mean_trial_seconds: float | None
    is_running: bool | None = True
    notes: tuple[str, ...] = ()

    @property
    def trials_done(self) -> float:
        """Trials that have ended, and the parts that are done of those that run."""
        return self.num_counted + sum(trial.fraction for trial in self.running)

    @property
    def seconds_left(self) -> float | None:
        """Until all trials have run, if they take as long as those before; None where nothing is known yet."""
        if self.num_trials is None:
            return None
        paces = [trial.seconds / trial.fraction for trial in self.running if trial.fraction > 0]
        pace = self.mean_trial_seconds or (sum(paces) / len(paces) if paces else None)
        if pace is None:
            return None
        return max(0.0, self.num_trials - self.trials_done) * pace / max(1, len(self.running))

    def to_json(self) -> dict[str, Any]:
        """For other programs: the attributes by name, with the times left; ``status --json`` prints it."""
        document = asdict(self)
        document["seconds_left"] = self.seconds_left
        for entry, trial in zip(document["running"], self.running, strict=True):
            entry["seconds_left"] = trial.seconds_left
        return document


def summary(
    records: Sequence[TrialRecord],
) -> tuple[int, int, int, BestTrial | None, tuple[Failure, ...], float | None]:
    """What ended trials say: how many count, were pruned, failed; the best; the last failures; their mean seconds."""
    counted = [record for record in records if not record.tried_again]
    failed = [record for record in counted if record.state is TrialState.FAILED]
    pruned = sum(record.state is TrialState.PRUNED for record in counted)
    seconds = [record.seconds for record in counted if record.state is not TrialState.FAILED and record.seconds > 0]
    best = best_record(records)
    return (
        len(counted),
        pruned,
        len(failed),
        None if best is None else as_best(best),
        tuple(Failure(record.number, record.reason or "for no known reason") for record in failed[-NUM_LAST:]),
        sum(seconds) / len(seconds) if seconds else None,
    )


def best_so_far(best: BestTrial | None, running: Iterable[RunningTrial]) -> BestTrial | None:
    """The best of the ended trials, or a running one that is better by now."""
    for trial in running:
        epoch = trial.best
        accuracy = None if epoch is None else epoch.accuracy
        if epoch is not None and accuracy is not None and (best is None or accuracy > best.accuracy):
            best = BestTrial(trial.number, accuracy, epoch.epoch, trial.hyperparameters)
    return best


def as_best(record: TrialRecord) -> BestTrial:
    """A record with an accuracy, as the best one."""
    hyperparameters = Hyperparameters.from_point(record.point)
    return BestTrial(record.number, record.max_acc or 0.0, record.epoch_max_acc, str(hyperparameters))


def settings_line(num_trials: int | None, settings: Mapping[str, Any]) -> str:
    """What tells one search from another, in one line; ``settings`` by option, as the study keeps them."""
    low, high = settings.get("--lr-range-min"), settings.get("--lr-range-max")
    parts = [
        f"{'?' if num_trials is None else num_trials} trials of {settings.get('--num-epochs', '?')} epochs",
        "|".join(settings.get("--optimizers", ())),
        "|".join(settings.get("--loss", ())),
        "" if low is None or high is None else f"learning rate {low:g} to {high:g}",
        "x".join(map(str, settings.get("--image-size") or ())),
        f"batch {settings['--batch-size']}" if "--batch-size" in settings else "",
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
