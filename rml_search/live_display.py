"""A search on a terminal: the plain tables, and between them a view that changes in its place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import TextIOBase

from rml_search.display import PlainDisplay, SearchPart
from rml_search.live_observer import LiveObserver
from rml_search.live_screen import LiveScreen, Terminal
from rml_search.live_view import SearchView
from rml_search.observer import SearchObserver
from rml_search.progress import settings_line

_TELL_OF_PLAIN = "the search continues without it; --plain disables it from the start"


class LiveDisplay(PlainDisplay):
    """The tables of :class:`PlainDisplay`, and while trials run a view of them.

    When it has gone, a line for each trial that has ended stands where it was.
    """

    _observer: LiveObserver | None = None

    def say(self, text: str) -> None:
        """A note on the view while there is one."""
        observer = self._observer
        if observer is None:
            super().say(text)
        else:
            observer.note(text)

    @contextmanager
    def watching(self, part: SearchPart) -> Iterator[SearchObserver]:
        """The view is on the terminal; what libraries complain about meanwhile is a note on it."""
        held = HeldLines(self._show)
        observer = self._observer = LiveObserver(part, _settings(part), held)

        def fail(error: Exception) -> None:
            observer.note(f"The live view failed ({type(error).__name__}: {error}): {_TELL_OF_PLAIN}")
            held.release()

        screen = LiveScreen(
            Terminal(), lambda height: SearchView(observer.progress(), height), lambda: observer.version, fail
        )
        try:
            with redirect_stderr(Notes(observer.note)), screen.shown():
                yield observer
        finally:
            self._observer = None
            held.release()


class HeldLines:
    """Keeps lines until the terminal is free for them; from then on they are shown as they come."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._lines: list[str] = []
        self._is_released = False
        self._lock = threading.RLock()

    def __call__(self, line: str) -> None:
        """Takes a line."""
        with self._lock:
            if self._is_released:
                self._show(line)
            else:
                self._lines.append(line)

    def release(self) -> None:
        """Shows what was kept."""
        with self._lock:
            self._is_released = True
            while self._lines:
                self._show(self._lines.pop(0))


class Notes(TextIOBase):
    """A file whose lines become notes."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._begun = ""

    def write(self, text: str) -> int:
        """Takes a piece of a line, or several lines."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if line.strip():
                self._note(line)
        return len(text)


def _settings(part: SearchPart) -> str:
    options = part.options
    low, high = options.lr_range
    settings = {
        "--num-epochs": options.num_epochs,
        "--optimizers": options.optimizers,
        "--loss": options.losses,
        "--lr-range-min": low,
        "--lr-range-max": high,
        "--validation-fraction": options.validation_fraction,
        "--image-size": options.image_size,
        "--batch-size": options.batch_size,
    }
    line = ", ".join((settings_line(options.num_trials, settings), *(path.name for path in options.layers)))
    return f"Best trials, retrained: {line}" if part.is_again else line
