"""How a search is shown: as lines, as good as not at all, live on a terminal, or to another program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from rml_search.confirmation import Confirmed
from rml_search.display_name import DisplayName
from rml_search.inference import InferenceResult
from rml_search.observer import SearchObserver, SilentObserver
from rml_search.options import SearchOptions
from rml_search.paths import Workspace, shown
from rml_search.plain_output import (
    PlainObserver,
    best_table,
    confirmation_table,
    pareto_table,
    settings_table,
    test_accuracy_table,
)
from rml_search.results import TrialRecord

Show = Callable[[str], None]


@dataclass(frozen=True)
class SearchPart:
    """Trials that are about to run: those of the search, or the best ones once more.

    Attributes:
        records: the trials of it that have ended before.
        is_again: whether the best trials are trained again with other seeds.
    """

    options: SearchOptions
    records: Sequence[TrialRecord]
    is_again: bool = False

    @property
    def noun(self) -> str:
        """What one of its trials is called."""
        return "run" if self.is_again else "trial"


@dataclass(frozen=True)
class SearchEnd:
    """How the trials of a search have ended.

    Attributes:
        ended_early: why there are fewer trials than were asked for.
        error: what ended them, and is told elsewhere.
    """

    options: SearchOptions
    records: Sequence[TrialRecord]
    ended_early: str | None = None
    error: str | None = None


class Display(Protocol):
    """What a person, or a program, gets to see of a search; the methods in the order in which they are called."""

    def say(self, text: str) -> None:
        """Something that a person should know; at any time."""

    def settings(self, rows: Sequence[tuple[str, str]]) -> None:
        """What the search is about to do, as (name, value)."""

    def watching(self, part: SearchPart) -> AbstractContextManager[SearchObserver]:
        """Trials run in this block, and are told to what it gives."""

    def searched(self, end: SearchEnd) -> None:
        """The trials of the search have ended."""

    def confirmed(self, ranked: Sequence[Confirmed]) -> None:
        """The best ones have been trained again."""

    def tested(self, result: InferenceResult) -> None:
        """The best model has seen the test images, which had no part in choosing it."""

    def results(self, workspace: Workspace, *, has_best_model: bool) -> None:
        """All is done, and there; the best model may be with another driver alone."""


class PlainDisplay:
    """One line for each epoch and each trial, between tables."""

    def __init__(self, show: Show) -> None:
        self._show = show

    def say(self, text: str) -> None:
        """The text, as it is."""
        self._show(text)

    def settings(self, rows: Sequence[tuple[str, str]]) -> None:
        """A table."""
        self._show(settings_table(rows))

    @contextmanager
    def watching(self, part: SearchPart) -> Iterator[SearchObserver]:
        """The lines come by themselves."""
        yield PlainObserver(part.options, self._show, part.noun)

    def searched(self, end: SearchEnd) -> None:
        """The best trial, as a table, and those of the Pareto front where there is one."""
        self._show(best_table(end.records, by_validation=end.options.validation_fraction is not None))
        if len(end.options.objectives) > 1:
            self._show(pareto_table(end.records))
        if end.ended_early is not None and end.error is None:
            self.say(f"The search ended before {end.options.num_trials} trials: {end.ended_early}")

    def confirmed(self, ranked: Sequence[Confirmed]) -> None:
        """A table."""
        self._show(confirmation_table(ranked))

    def tested(self, result: InferenceResult) -> None:
        """A table."""
        self._show(test_accuracy_table(result))

    def results(self, workspace: Workspace, *, has_best_model: bool) -> None:
        """Where they are."""
        confirmed = workspace.confirmed_model.checkpoint
        folder = confirmed.parent if confirmed.is_file() else workspace.best_model
        model = f"best model is in {shown(folder)}, the history" if has_best_model else "history is"
        self.say(f"The {model} in {shown(workspace.list_acc)}")


class QuietDisplay(PlainDisplay):
    """The last tables only; errors are told anyway."""

    def say(self, text: str) -> None:
        """Nothing."""

    def settings(self, rows: Sequence[tuple[str, str]]) -> None:
        """Nothing."""

    @contextmanager
    def watching(self, part: SearchPart) -> Iterator[SearchObserver]:  # noqa: ARG002 - other displays show it
        """Nothing is shown of trials."""
        yield SilentObserver()


def open_display(name: DisplayName, show: Show) -> Display:
    """The display of this name; ``show`` prints a line of it."""
    match name:
        case DisplayName.JSON:
            from rml_search.json_output import JsonDisplay

            return JsonDisplay(show)
        case DisplayName.QUIET:
            return QuietDisplay(show)
        case DisplayName.AUTO if _is_lively():
            from rml_search.live_display import LiveDisplay

            return LiveDisplay(show)
        case _:
            return PlainDisplay(show)


def _is_lively() -> bool:
    """Whether standard output is a terminal on which a cursor can be moved."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
