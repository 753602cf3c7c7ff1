"""What trials have brought: ``list_acc.json`` and the best model."""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from rml_search.errors import NoResultsError, WriteError
from rml_search.hyperparameters import Hyperparameters
from rml_search.interruption import Interrupted, uninterrupted
from rml_search.paths import TrialPaths, Workspace, shown
from rml_search.search_space import LEARNING_RATE, LOSS, OPTIMIZER, Value
from rml_search.whole_files import write_atomically
from rmldnn_contract.exit_status import ExitStatus
from rmldnn_contract.training_log import EpochRecord

#: So long a reason may be: of all databases MySQL takes the least, and a progress bar may be one line.
_REASON_LENGTH = 2000

_PARTIAL = ".partial"  #: ends the name of a folder into which results are just being moved


class TrialState(str, Enum):
    """How a trial has ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"  #: stopped early, with the accuracy that it had by then
    FAILED = "failed"


@dataclass(frozen=True)
class TrialResult:
    """A finished trial.

    Attributes:
        reason: why it failed, or was stopped early.
        exit_status: the engine's, where it is one of ours.
        is_machines_fault: whether the same hyperparameters may well work at another time: memory that others took,
            a container that was killed, an engine that hung.
        is_broken_off: whether the search ended it for a reason that has nothing to do with the trial.
        is_tried_again: whether its hyperparameters get another trial, so that this one does not count.
    """

    number: int
    hyperparameters: Hyperparameters
    state: TrialState
    epochs: tuple[EpochRecord, ...]
    seconds: float
    reason: str | None = None
    exit_status: ExitStatus | None = None
    is_machines_fault: bool = False
    is_broken_off: bool = False
    is_tried_again: bool = False

    @property
    def best_epoch(self) -> EpochRecord | None:
        """The first epoch of the highest accuracy; None where no epoch has one."""
        return best_epoch(self.epochs)

    @property
    def max_accuracy(self) -> float | None:
        """The trial's value: the accuracy of its best epoch; None for a failed trial."""
        best = None if self.state is TrialState.FAILED else self.best_epoch
        return None if best is None else best.accuracy

    def to_record(self, *, checkpoint_sha256: str | None = None, tried_again: bool = False) -> TrialRecord:
        """What stands of the trial in ``list_acc.json``."""
        best = None if self.state is TrialState.FAILED else self.best_epoch
        return TrialRecord(
            max_acc=self.max_accuracy,
            optimizer=self.hyperparameters.optimizer,
            lr=self.hyperparameters.learning_rate,
            loss=self.hyperparameters.loss,
            epoch_max_acc=None if best is None else best.epoch,
            number=self.number,
            state=self.state,
            seconds=round(self.seconds, 3),
            reason=None if self.reason is None else self.reason[:_REASON_LENGTH],
            checkpoint_sha256=checkpoint_sha256,
            tried_again=tried_again,
            hyperparameters=self.hyperparameters.point,
        )


@dataclass(frozen=True)
class TrialRecord:
    """One object of ``list_acc.json``; its first five names are those of the tutorial.

    ``max_acc`` is the accuracy (0 to 1) of the best epoch ``epoch_max_acc`` (from 1); both are None for a
    trial that failed, and ``reason`` says why. ``checkpoint_sha256`` is that of the best epoch's checkpoint, where the
    trial was one of those to keep when it ended. A trial that was broken off and whose hyperparameters got another
    trial is ``tried_again``: it does not count. ``hyperparameters`` names all that it was tried with, as the study
    does. ``checkpoint`` is where the checkpoint lies, relative to the folder of the search, None where it is not kept;
    the study does not know it.
    """

    max_acc: Annotated[float, Field(ge=0, le=1)] | None
    optimizer: str
    lr: float
    loss: str
    epoch_max_acc: int | None
    number: int
    state: TrialState
    seconds: float
    reason: str | None
    checkpoint_sha256: str | None = None
    tried_again: bool = False
    hyperparameters: dict[str, Value] = field(default_factory=dict)
    checkpoint: str | None = None

    @property
    def point(self) -> dict[str, Value]:
        """All hyperparameters by name; the tutorial's records hold no others than these three."""
        usual: dict[str, Value] = {OPTIMIZER: self.optimizer, LOSS: self.loss, LEARNING_RATE: self.lr}
        return {**usual, **self.hyperparameters}


def best_epoch(epochs: Iterable[EpochRecord]) -> EpochRecord | None:
    """The first of the epochs with the highest accuracy."""
    measured = [epoch for epoch in epochs if epoch.accuracy is not None and math.isfinite(epoch.accuracy)]
    return max(measured, key=lambda epoch: (epoch.accuracy or 0.0, -epoch.epoch), default=None)


def best_record(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The first of the records with the highest accuracy; None where there is none."""
    return next(iter(best_records(records, 1)), None)


def best_records(records: Iterable[TrialRecord], count: int) -> list[TrialRecord]:
    """The ``count`` records of the highest accuracies, the best first, of equals the first; fewer where there are."""
    complete = [record for record in records if record.max_acc is not None]
    return sorted(complete, key=lambda record: (-(record.max_acc or 0.0), record.number))[:count]


def pareto_front(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records that no other one beats in accuracy and in seconds, the most accurate first."""
    measured = [record for record in records if record.max_acc is not None]
    ordered = sorted(measured, key=lambda record: (-(record.max_acc or 0.0), record.seconds, record.number))
    front: list[TrialRecord] = []
    for record in ordered:
        if not front or record.seconds < front[-1].seconds:
            front.append(record)
    return front


def write_list_acc(
    workspace: Workspace, records: Iterable[TrialRecord], checkpoints: Mapping[int, str] = MappingProxyType({})
) -> None:
    """Rewrites ``list_acc.json``, which the next search would make anew from the study.

    ``checkpoints`` tells where those of trials lie, by number.
    """
    entries = [asdict(replace(record, checkpoint=checkpoints.get(record.number))) for record in records]
    text = json.dumps(entries, indent=4, allow_nan=False)
    write_atomically(workspace.list_acc, text + "\n", durably=False)


def read_list_acc(workspace: Workspace) -> list[TrialRecord]:
    """The records of ``list_acc.json``, also of one that holds only the tutorial's five keys.

    Raises:
        NoResultsError: there is none, for lack of a search or of a trial that has ended, or it is no list of trials.
    """
    path = shown(workspace.list_acc)
    try:
        entries = json.loads(workspace.list_acc.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if workspace.study_database.exists():
            raise NoResultsError("no trial of the search in this folder has finished yet: see status") from None
        raise NoResultsError(f"there is no {path}: run a search in this folder first") from None
    except (OSError, ValueError, RecursionError) as error:
        raise NoResultsError(f"{path} cannot be read: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise NoResultsError(f"{path} does not contain a list of trials")
    return [_read_record(path, number, entry) for number, entry in enumerate(entries)]


def _read_record(path: str, number: int, entry: object) -> TrialRecord:
    ours = {"number": number, "state": TrialState.COMPLETE, "seconds": 0.0, "reason": None}
    try:
        return TypeAdapter(TrialRecord).validate_python({**ours, **entry} if isinstance(entry, dict) else entry)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        raise NoResultsError(f"{path}, trial {number}: {key}: {fault['msg']}") from None


def drop_checkpoints(trial: TrialPaths, *, keep: Iterable[int] = (), before: float = math.inf) -> None:
    """Deletes a trial's checkpoints of the epochs ``before`` one, but those of the epochs to ``keep``."""
    kept = set(keep)
    for epoch, path in list(trial.saved_checkpoints()):
        if epoch < before and epoch not in kept:
            path.unlink(missing_ok=True)


@contextmanager
def earlier_results_aside(workspace: Workspace, show: Callable[[str], None]) -> Iterator[None]:
    """Moves what an earlier search has left aside, and back if this one ends in an error without any success.

    ``show`` is told of both. Raises ``WriteError`` if the system refuses it.
    """
    earlier: Path | None = None
    try:
        with uninterrupted():
            earlier = move_aside(workspace, datetime.now())
        if earlier is not None:
            show(f"The results of an earlier search were moved to {shown(earlier)}")
        yield
    except BaseException as error:
        if earlier is not None and not workspace.best_checkpoint.exists():
            if isinstance(error, Interrupted):
                error.advice = None  # the same command would not go on with this search
            with uninterrupted():
                failed = move_aside(workspace, datetime.now())
                move_back(workspace, earlier)
            where = "" if failed is None else f"; the files of this one are in {shown(failed)}"
            show(f"The results of the earlier search were restored{where}")
        raise


def _close_journal(workspace: Workspace) -> None:
    """Lets SQLite fold a journal that a killed search has left into ``study.db``: each alone would be worth nothing."""
    if workspace.study_database.exists():
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(workspace.study_database)) as study:
            study.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def move_aside(workspace: Workspace, when: datetime) -> Path | None:
    """Moves what an earlier search has left into a dated folder, all or nothing; None where there is nothing.

    Raises:
        WriteError: the system refuses it.
    """
    _close_journal(workspace)
    there = [path for path in workspace.results() if path.exists()]
    if not there:
        return None
    folder = workspace.earlier(when)
    partial = folder.with_name(f".{folder.name}{_PARTIAL}")
    partial.mkdir(parents=True)
    try:
        for path in there:
            path.rename(partial / path.name)
        partial.rename(folder)
    except OSError as error:
        move_back(workspace, partial)
        raise WriteError(f"cannot move {shown(Path(error.filename))} aside: {error.strerror}") from None
    return folder


def finish_move_back(workspace: Workspace) -> None:
    """Brings back what a search had begun to move aside when it was killed, so that all of it is in one place."""
    for partial in workspace.root.glob(f"earlier/.*{_PARTIAL}"):
        move_back(workspace, partial)


def move_back(workspace: Workspace, folder: Path) -> None:
    """Brings back what :func:`move_aside` has moved into ``folder``."""
    for path in folder.iterdir():
        path.rename(workspace.root / path.name)
    folder.rmdir()
