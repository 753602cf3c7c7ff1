"""How a search is shown: live on a terminal, as lines, as good as not at all, or to another program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from enum import Enum
from io import TextIOBase
from typing import Protocol

from rml_search.errors import OptionError
from rml_search.observer import SearchObserver
from rml_search.options import SearchOptions
from rml_search.paths import Workspace, shown
from rml_search.results import TrialRecord

Show = Callable[[str], None]


class DisplayName(str, Enum):
    """What ``--plain``, ``--quiet`` and ``--json`` choose between."""

    AUTO = "auto"  #: live on a terminal that can move its cursor, else plain
    PLAIN = "plain"
    QUIET = "quiet"
    JSON = "json"


def display_name(*, plain: bool, quiet: bool, as_json: bool) -> DisplayName:
    """The one that was asked for. Raises OptionError for two."""
    chosen = [
        (option, name)
        for option, name, is_given in (
            ("--plain", DisplayName.PLAIN, plain),
            ("--quiet", DisplayName.QUIET, quiet),
            ("--json", DisplayName.JSON, as_json),
        )
        if is_given
    ]
    if len(chosen) > 1:
        raise OptionError(f"{chosen[0][0]} and {chosen[1][0]} exclude each other")
    return chosen[0][1] if chosen else DisplayName.AUTO


@dataclass(frozen=True)
class SearchFacts:
    """What there is to say of a search before its first trial.

    Attributes:
        settings: names and values, for people.
        records: the trials that earlier parts of the search have left.
    """

    options: SearchOptions
    workspace: Workspace
    settings: Sequence[tuple[str, str]]
    records: Sequence[TrialRecord]


@dataclass(frozen=True)
class SearchEnd:
    """How a search has ended.

    Attributes:
        ended_early: why there are fewer trials than were asked for.
        error: what ended it, and is told elsewhere.
    """

    records: Sequence[TrialRecord]
    ended_early: str | None = None
    error: str | None = None


class Display(Protocol):
    """What a person, or a program, gets to see of a search."""

    def say(self, text: str) -> None:
        """Something happens before or after the trials."""

    def begin(self, facts: SearchFacts) -> SearchObserver:
        """The search is about to run its trials, and tells them to what this returns."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The trials run in this block."""

    def end(self, end: SearchEnd) -> None:
        """The search has ended."""


class PlainDisplay:
    """One line for each epoch and each trial, between two tables."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._facts: SearchFacts | None = None

    def say(self, text: str) -> None:
        """The text, as it is."""
        self._show(text)

    def begin(self, facts: SearchFacts) -> SearchObserver:
        """The settings, as a table."""
        from rml_search.plain_output import PlainObserver, settings_table

        self._facts = facts
        self._show(settings_table(facts.settings))
        return PlainObserver(facts.options, self._show)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The lines come by themselves."""
        yield

    def end(self, end: SearchEnd) -> None:
        """The best trial, as a table, and where its model is."""
        from rml_search.plain_output import best_table, pareto_table

        self._show(best_table(end.records))
        if self._facts is None:
            return
        options, workspace = self._facts.options, self._facts.workspace
        if len(options.objectives) > 1:
            self._show(pareto_table(end.records))
        if end.error is not None:
            return
        if end.ended_early is not None:
            self._show(f"The search has ended before {options.num_trials} trials: {end.ended_early}")
        self._show(f"The best model is in {shown(workspace.best_model)}, the history in {shown(workspace.list_acc)}")


class QuietDisplay(PlainDisplay):
    """The last table only; errors are told anyway."""

    def say(self, text: str) -> None:
        """Nothing."""

    def begin(self, facts: SearchFacts) -> SearchObserver:
        """Nothing is shown of trials."""
        from rml_search.plain_output import PlainObserver

        return PlainObserver(facts.options, self.say)


class LiveDisplay(PlainDisplay):
    """The tables of :class:`PlainDisplay`, and between them a view that changes in its place.

    When it has gone, a line for each trial that has ended stands where it was.
    """

    def begin(self, facts: SearchFacts) -> SearchObserver:
        """The settings stay above, to be read later."""
        from rml_search.live_observer import LiveObserver

        super().begin(facts)
        self._observer = LiveObserver(facts.options, _settings_line(facts.options), facts.records)
        return self._observer

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The view is on the terminal; what libraries complain about meanwhile is a note on it."""
        from rml_search.live_screen import LiveScreen, Terminal
        from rml_search.live_view import SearchView

        observer = self._observer
        screen = LiveScreen(
            Terminal(), lambda height: SearchView(observer.progress(), height), lambda: observer.version
        )
        try:
            with redirect_stderr(_Notes(observer.note)), screen.shown():
                yield
        finally:
            for line in observer.lines:
                self.say(line)


class _Notes(TextIOBase):
    """A file whose lines become notes."""

    def __init__(self, note: Show) -> None:
        self._note = note

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                self._note(line)
        return len(text)


def _settings_line(options: SearchOptions) -> str:
    from rml_search.progress import settings_line

    low, high = options.lr_range
    settings = {
        "--num-epochs": options.num_epochs,
        "--optimizers": options.optimizers,
        "--loss": options.losses,
        "--lr-range-min": low,
        "--lr-range-max": high,
        "--image-size": options.image_size,
        "--batch-size": options.batch_size,
    }
    return ", ".join((settings_line(options.num_trials, settings), *(path.name for path in options.layers)))


def open_display(name: DisplayName, show: Show) -> Display:
    """The display of this name; ``show`` prints a line of it."""
    match name:
        case DisplayName.JSON:
            from rml_search.json_output import JsonDisplay

            return JsonDisplay(show)
        case DisplayName.QUIET:
            return QuietDisplay(show)
        case DisplayName.AUTO if _is_lively():
            return LiveDisplay(show)
        case _:
            return PlainDisplay(show)


def _is_lively() -> bool:
    """Whether standard output is a terminal on which a cursor can be moved."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
