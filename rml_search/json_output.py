"""Output for other programs: one JSON object per line on standard output, and nothing else.

Every object has ``event``, and ``time`` in seconds since 1970. The other keys by event, in the order of the events:

======================== ======================================================================================
``settings``             ``settings``: an object of names and values for people to read
``search_started``       ``num_trials``, ``num_epochs``, ``num_finished`` (before it was resumed)
``trial_started``        ``trial`` (number, from 0), ``place`` (from 1, among trials that count),
                         ``hyperparameters`` (an object)
``epoch``                ``trial``, ``epoch`` (from 1), ``num_epochs``, ``accuracy`` (0 to 1), ``test_loss``,
                         ``train_loss``; null if the engine does not report it
``trial_finished``       ``trial``, ``state`` (complete, pruned, failed), ``tried_again`` (it does not count),
                         ``seconds``, ``accuracy`` and ``epoch`` of its best epoch, ``reason``, ``best`` so far
``others``               with ``--storage``, after a change: ``num_finished`` and ``best`` over all drivers, and
                         ``running``, the numbers of the trials that other drivers run
``search_finished``      ``num_finished``, ``best``, ``front``, ``ended_early`` and ``error``: the reason, or null
``confirmation_started`` like ``search_started``; until ``confirmed``, trials are those of ``--confirm``
``confirmed``            ``trials``, best first: ``trial``, ``accuracy`` in the search, ``mean``, ``deviation``
                         (standard), ``accuracies`` of its runs, ``num_failed``
``tested``               ``loss`` and ``accuracy`` of the best model on the test images
                         (``--validation-fraction``)
``results``              ``best_model``, ``history``: paths; null if only another driver has the model
``note``                 ``text``; at any time
======================== ======================================================================================

``best`` is null, or an object with ``trial``, ``accuracy``, ``epoch``, ``seconds`` and ``hyperparameters``. ``front``
is a list of such objects, the Pareto front of accuracy and seconds; null with one objective.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rml_search.confirmation import Confirmed
from rml_search.display import SearchEnd, SearchPart
from rml_search.hyperparameters import Hyperparameters
from rml_search.inference import InferenceResult
from rml_search.observer import SearchObserver
from rml_search.paths import Workspace
from rml_search.progress import RunningTrial
from rml_search.results import TrialRecord, TrialResult, TrialState, best_record, pareto_front
from rmldnn_contract.training_log import EpochRecord


class JsonDisplay:
    """Prints the events of a search; it is the observer of its trials itself."""

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._show = show
        self._clock = clock
        self._told_of_others: dict[str, Any] = {}

    def say(self, text: str) -> None:
        """``note``."""
        self.note(text)

    def settings(self, rows: Sequence[tuple[str, str]]) -> None:
        """``settings``."""
        self._tell("settings", settings=dict(rows))

    @contextmanager
    def watching(self, part: SearchPart) -> Iterator[SearchObserver]:
        """``search_started`` or ``confirmation_started``; the events of trials come by themselves."""
        self._tell(
            "confirmation_started" if part.is_again else "search_started",
            num_trials=part.options.num_trials,
            num_epochs=part.options.num_epochs,
            num_finished=_num_finished(part.records),
        )
        yield self

    def searched(self, end: SearchEnd) -> None:
        """``search_finished``."""
        has_front = len(end.options.objectives) > 1
        self._tell(
            "search_finished",
            num_finished=_num_finished(end.records),
            best=best_document(best_record(end.records)),
            front=[best_document(record) for record in pareto_front(end.records)] if has_front else None,
            ended_early=end.ended_early,
            error=end.error,
        )

    def confirmed(self, ranked: Sequence[Confirmed]) -> None:
        """``confirmed``."""
        trials = [
            {
                "trial": confirmed.trial.number,
                "accuracy": confirmed.trial.max_acc,
                "mean": confirmed.mean if confirmed.runs else None,
                "deviation": confirmed.deviation,
                "accuracies": [run.max_acc for run in confirmed.runs],
                "num_failed": confirmed.num_failed,
            }
            for confirmed in ranked
        ]
        self._tell("confirmed", trials=trials)

    def tested(self, result: InferenceResult) -> None:
        """``tested``."""
        self._tell("tested", loss=result.loss, accuracy=result.accuracy)

    def results(self, workspace: Workspace, *, has_best_model: bool) -> None:
        """``results``."""
        model = str(workspace.best_model) if has_best_model else None
        self._tell("results", best_model=model, history=str(workspace.list_acc))

    # --- what happens to trials ------------------------------------------------------------------------

    def trial_started(self, number: int, place: int, hyperparameters: Hyperparameters) -> None:
        """``trial_started``."""
        self._tell("trial_started", trial=number, place=place, hyperparameters=hyperparameters.point)

    def trials_advanced(self, shares: Mapping[int, float]) -> None:
        """Nothing: the next epoch tells."""

    def epoch_finished(self, number: int, epoch: EpochRecord) -> None:
        """``epoch``."""
        self._tell("epoch", trial=number, **asdict(epoch))

    def trial_finished(self, result: TrialResult, best: TrialRecord | None) -> None:
        """``trial_finished``."""
        epoch = None if result.state is TrialState.FAILED else result.best_epoch
        self._tell(
            "trial_finished",
            trial=result.number,
            state=result.state.value,
            tried_again=result.is_tried_again,
            seconds=round(result.seconds, 3),
            accuracy=result.max_accuracy,
            epoch=None if epoch is None else epoch.epoch,
            reason=result.reason,
            best=best_document(best),
        )

    def others_seen(self, records: Sequence[TrialRecord], running: Sequence[RunningTrial]) -> None:
        """``others``, unless that was told already."""
        fields = {
            "num_finished": _num_finished(records),
            "best": best_document(best_record(records)),
            "running": sorted(trial.number for trial in running),
        }
        if fields != self._told_of_others:
            self._told_of_others = fields
            self._tell("others", **fields)

    def note(self, text: str) -> None:
        """``note``."""
        self._tell("note", text=text)

    def _tell(self, event: str, **fields: Any) -> None:
        document = {"event": event, "time": round(self._clock(), 3), **fields}
        self._show(json_line(document))


def json_line(document: dict[str, Any]) -> str:
    """A document in one line, with null for numbers that JSON does not know."""
    return json.dumps(_finite(document), allow_nan=False)


def best_document(record: TrialRecord | None) -> dict[str, Any] | None:
    """A trial that has an accuracy, as an object."""
    if record is None:
        return None
    return {
        "trial": record.number,
        "accuracy": record.max_acc,
        "epoch": record.epoch_max_acc,
        "seconds": record.seconds,
        "hyperparameters": record.point,
    }


def _num_finished(records: Sequence[TrialRecord]) -> int:
    return sum(not record.tried_again for record in records)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return value
