"""The terminal while a live view stands on it: taken, drawn on by a thread, and given back however the search ends.

The view has the terminal's second screen, which is drawn anew from the top each time: a terminal that is resized
reflows the first screen, and a view there would leave its old lines behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleDimensions, RenderableType
from rich.live import Live

from rml_search.interruption import interruptions_allowed, uninterrupted

#: The least time between two drawings, and how often something new is looked for.
TICK_SECONDS = 0.25

#: After so long the clocks on the view are wrong, even where nothing has happened.
_STALE_SECONDS = 1.0

#: A terminal that takes no more characters (Ctrl-S) is not waited for when the search ends.
_PATIENCE_SECONDS = 2.0


class Terminal(Console):
    """The terminal on standard output, with the size that it has now, whatever COLUMNS and LINES once were."""

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and rows."""
        try:
            columns, rows = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return super().size
        return ConsoleDimensions(columns, rows) if columns and rows else super().size

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        raise AttributeError(f"the person sets the size of the terminal, not {new_size}")


class LiveScreen:
    """Draws what ``frame(height)`` gives, when ``version()`` has changed, when the size has, or the time is up.

    An error of a frame is told to ``on_failure``, and ends the view alone.
    """

    def __init__(
        self,
        console: Console,
        frame: Callable[[int], RenderableType],
        version: Callable[[], int],
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._console = console
        self._frame = frame
        self._version = version
        self._on_failure = on_failure
        self._live: Live | None = None
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._suspended = False

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The view is there in this block, and gone after it."""
        with uninterrupted():
            thread = threading.Thread(target=self._draw_until_ended, name="live view", daemon=True)
            with self._stop_and_continue():
                thread.start()
                try:
                    with interruptions_allowed():
                        yield
                finally:
                    self._ended.set()
                    thread.join(_PATIENCE_SECONDS)
                    self._leave()

    def _draw_until_ended(self) -> None:
        try:
            self._draw_what_is_new()
        except Exception as error:  # noqa: BLE001 - the search must not end because it cannot be shown
            self._ended.set()
            self._leave()
            self._on_failure(error)

    def _draw_what_is_new(self) -> None:
        drawn: tuple[object, ...] = ()
        drawn_at = 0.0
        while not self._ended.wait(TICK_SECONDS):
            now = time.monotonic()
            state = (self._version(), self._console.size, self._live is None)
            if state != drawn or now - drawn_at >= _STALE_SECONDS:
                # The terminal is gone where it cannot be written to; the search goes on until it is told.
                with contextlib.suppress(OSError), self._lock:
                    self._draw()
                drawn, drawn_at = (*state[:2], self._live is None), now

    def _draw(self) -> None:
        """Draws a frame; takes the terminal first where that was given back, or was another program's."""
        if self._suspended or self._ended.is_set() or not _is_in_foreground():
            return
        if self._live is None:
            self._live = Live(
                get_renderable=lambda: self._frame(self._console.size.height),
                console=self._console,
                screen=True,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.refresh()

    def _leave(self) -> None:
        if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            return  # the thread waits for the terminal
        try:
            live, self._live = self._live, None
            if live is not None:
                with contextlib.suppress(OSError):
                    live.stop()
        finally:
            self._lock.release()

    # --- Ctrl-Z ----------------------------------------------------------------------------------------

    @contextmanager
    def _stop_and_continue(self) -> Iterator[None]:
        """Gives the terminal back before the shell gets it; the thread takes it again in the foreground."""
        is_ours = threading.current_thread() is threading.main_thread()
        if not is_ours or signal.getsignal(signal.SIGTSTP) != signal.SIG_DFL:
            yield
            return
        signal.signal(signal.SIGTSTP, self._stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)

    def _stop(self, number: int, _frame: Any) -> None:
        self._suspended = True
        self._leave()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # returns when the shell continues the program
        signal.signal(number, self._stop)
        self._suspended = False


def _is_in_foreground() -> bool:
    """Whether the terminal is the program's at this time, and not the shell's that runs it in the background."""
    try:
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()
    except OSError:
        return True  # no terminal that controls programs
