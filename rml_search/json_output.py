"""A search for other programs: one JSON object a line, and nothing else, on standard output.

Every object has ``event``, and ``time`` as seconds since 1970. The others by event:

========================= =================================================================================
``search_started``        ``num_trials``, ``num_epochs``, ``num_finished`` (of earlier parts of the search),
                          ``settings`` (names and values as people read them)
``trial_started``         ``trial`` (its number, from 0), ``place`` (from 1, of those that count),
                          ``hyperparameters`` (an object)
``epoch``                 ``trial``, ``epoch`` (from 1), ``num_epochs``, ``accuracy`` (0 to 1), ``test_loss``,
                          ``train_loss``; null for what the engine does not say
``trial_finished``        ``trial``, ``state`` (complete, pruned, failed), ``tried_again`` (it does not count),
                          ``seconds``, ``accuracy`` and ``epoch`` of its best epoch, ``reason``, ``best`` so far
``note``                  ``text``
``search_finished``       ``num_finished``, ``best``, ``ended_early`` and ``error``: why, or null
========================= =================================================================================

``best`` is null, or an object with ``trial``, ``accuracy``, ``epoch`` and ``hyperparameters``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rml_search.display import SearchEnd, SearchFacts
from rml_search.hyperparameters import Hyperparameters
from rml_search.observer import SearchObserver
from rml_search.results import TrialRecord, TrialResult, TrialState, best_record
from rmldnn_contract.training_log import EpochRecord


class JsonDisplay:
    """Prints the events of a search; it is the observer of its trials itself."""

    def __init__(self, show: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._show = show
        self._clock = clock

    def say(self, text: str) -> None:
        """A ``note``."""
        self.note(text)

    def begin(self, facts: SearchFacts) -> SearchObserver:
        """``search_started``."""
        self._tell(
            "search_started",
            num_trials=facts.options.num_trials,
            num_epochs=facts.options.num_epochs,
            num_finished=sum(not record.tried_again for record in facts.records),
            settings=dict(facts.settings),
        )
        return self

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The events come by themselves."""
        yield

    def end(self, end: SearchEnd) -> None:
        """``search_finished``."""
        self._tell(
            "search_finished",
            num_finished=sum(not record.tried_again for record in end.records),
            best=best_document(best_record(end.records)),
            ended_early=end.ended_early,
            error=end.error,
        )

    def trial_started(self, number: int, place: int, hyperparameters: Hyperparameters) -> None:
        """``trial_started``."""
        self._tell("trial_started", trial=number, place=place, hyperparameters=hyperparameters.point)

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

    def note(self, text: str) -> None:
        """``note``."""
        self._tell("note", text=text)

    def _tell(self, event: str, **fields: Any) -> None:
        document = {"event": event, "time": round(self._clock(), 3), **fields}
        self._show(json.dumps(finite(document), allow_nan=False))


def best_document(record: TrialRecord | None) -> dict[str, Any] | None:
    """The best trial, as an object."""
    if record is None:
        return None
    return {
        "trial": record.number,
        "accuracy": record.max_acc,
        "epoch": record.epoch_max_acc,
        "hyperparameters": record.point,
    }


def finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not know."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: finite(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return value
