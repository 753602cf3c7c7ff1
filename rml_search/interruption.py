"""Ending early on request: by Ctrl-C, or by SIGTERM as a batch system sends it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from rml_search.errors import StoppedError

# What the shell reports of a program that SIGINT or SIGTERM has ended.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


class _Terminated(KeyboardInterrupt):
    """The program was asked to end (SIGTERM)."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Lets SIGTERM unwind the program as Ctrl-C does, so that containers and processes are stopped.

    Raises:
        StoppedError: one of the two has come.
    """

    def terminate(*_: object) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except _Terminated:
        raise StoppedError("terminated", TERMINATED) from None
    except KeyboardInterrupt:
        raise StoppedError("interrupted", INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)
