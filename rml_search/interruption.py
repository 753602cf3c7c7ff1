"""Ending early on request: a signal unwinds the program instead of breaking it off."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Ctrl-C; the request of a batch system; a terminal that is gone.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


#: How the line begins that a stopped program ends with.
STOPPED = "Stopped by "


class Interrupted(BaseException):
    """The person or the system wants the program to end.

    No ``Exception``, so that nothing mistakes it for a failure, and no ``KeyboardInterrupt``, which libraries
    catch and reword.

    Attributes:
        advice: how to go on, as a sentence; None where there is nothing to go on with.
    """

    advice: str | None = None

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name}; finished work is kept")

    @property
    def exit_code(self) -> int:
        """What a shell reports of a program that the signal has ended."""
        return 128 + self.signal

    @property
    def line(self) -> str:
        """What a person is told, who has made no error."""
        key = "Ctrl-C" if self.signal == signal.SIGINT else self.signal.name
        return f"{STOPPED}{key}; finished work is kept" + ("" if self.advice is None else f". {self.advice}")


@dataclass
class _State:
    """How many blocks want to end first, and the first signal that came."""

    depth: int = 0
    pending: int | None = None

    def raise_pending(self) -> None:
        """Raises for the signal that came, unless a block is still open or the program is unwinding already.

        Raised again each time, since an exception can get lost: Python swallows those of ``__del__``, of a weak
        reference's callback and of a garbage collector's hook, and a library may catch all there are.
        """
        if self.depth == 0 and self.pending is not None and not _is_unwinding():
            raise Interrupted(self.pending)


_state = _State()


def is_interrupted() -> bool:
    """Whether a signal has come, and the program is about to end, or ending."""
    return _state.pending is not None


def raise_if_interrupted() -> None:
    """For long loops: a signal whose exception was lost on the way ends them all the same. Raises Interrupted."""
    if threading.current_thread() is threading.main_thread():
        _state.raise_pending()


def _is_unwinding() -> bool:
    """Whether some ``except`` or ``finally`` is at work because of an :class:`Interrupted`."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, Interrupted):
        error = error.__context__
    return error is not None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that a signal does not break off: it is raised at the end of the block.

    For steps that belong together, and for starting what must be stopped again. In a thread other than the main one
    there is nothing to do: signals never interrupt it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    depth = _state.depth
    _state.depth = depth + 1
    try:
        yield
    finally:
        _state.depth = depth
        _state.raise_pending()


@contextmanager
def interruptions_allowed() -> Iterator[None]:
    """The part of an :func:`uninterrupted` block that a signal may break off all the same.

    What lies around it is done on any account: no signal comes between the beginning of a thing, the work on
    it, and its end.
    """
    depth = _state.depth
    _state.depth = 0
    try:
        _state.raise_pending()
        yield
    finally:
        _state.depth = depth


def how_to_resume(*, is_fresh: bool) -> str:
    """What a person is told who has stopped a search; ``is_fresh``: with ``--fresh``, which would begin anew."""
    return f"Run the same command again{' without --fresh' if is_fresh else ''} to resume"


@contextmanager
def resumable(*, is_fresh: bool = False) -> Iterator[None]:
    """A block that the same command goes on with where a signal has broken it off, which the person is told."""
    try:
        yield
    except Interrupted as error:
        error.advice = how_to_resume(is_fresh=is_fresh)
        raise


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes these signals raise :class:`Interrupted`, so that containers and processes are stopped on the way.

    Further signals are ignored while that goes on: they would break off the cleaning up.
    """

    def interrupt(number: int, _frame: object) -> None:
        if _state.pending is None:
            _state.pending = number
        _state.raise_pending()

    # What is ignored stays ignored: nohup and shells that start a program in the background want it so.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    except Exception as error:
        if _state.pending is not None:  # a library has caught the interruption, and reworded it
            raise Interrupted(_state.pending) from error
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _state.pending = None
