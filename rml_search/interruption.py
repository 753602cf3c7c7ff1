"""Ending early on request: a signal unwinds the program instead of breaking it off."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Ctrl-C; the request of a batch system; a terminal that is gone.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The person or the system wants the program to end.

    No ``Exception``, so that nothing mistakes it for a failure, and no ``KeyboardInterrupt``, which libraries
    catch and reword.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name}; what had finished is kept")

    @property
    def exit_code(self) -> int:
        """What a shell reports of a program that the signal has ended."""
        return 128 + self.signal


@dataclass
class _Deferral:
    """How many blocks want to end first, and the signal that waits for them."""

    depth: int = 0
    waiting: int | None = None

    def raise_waiting(self) -> None:
        """Raises for the signal that waits, unless a block is still open."""
        if self.depth == 0 and self.waiting is not None:
            number, self.waiting = self.waiting, None
            raise Interrupted(number)


_deferral = _Deferral()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A block that a signal does not break off: it is raised at the end of the block.

    For steps that belong together, and for starting what must be stopped again.
    """
    _deferral.depth += 1
    try:
        yield
    finally:
        _deferral.depth -= 1
        _deferral.raise_waiting()


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes these signals raise :class:`Interrupted`, so that containers and processes are stopped on the way.

    Further signals are ignored: they would break off the cleaning up.
    """

    def interrupt(number: int, _frame: object) -> None:
        for each in handlers:
            signal.signal(each, signal.SIG_IGN)
        _deferral.waiting = number
        _deferral.raise_waiting()

    # What is ignored stays ignored: nohup and shells that start a program in the background want it so.
    heeded = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
