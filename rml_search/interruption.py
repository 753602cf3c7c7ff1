"""Ending early on request: by Ctrl-C, or by SIGTERM as batch systems send it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


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


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes SIGINT and SIGTERM raise :class:`Interrupted`, so that containers and processes are stopped on the way.

    Further signals are ignored: they would break off the cleaning up.
    """

    def interrupt(number: int, _frame: object) -> NoReturn:
        for each in handlers:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    handlers = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
