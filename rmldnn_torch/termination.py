"""How a run ends on a signal: in order where it can, within two seconds in any case."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from rmldnn_torch.files import remove_unfinished_files

GRACE_SECONDS = 1.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(BaseException):
    """A signal asked the run to end. No ``Exception``, so that no handler for errors takes it for one."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)

    @property
    def exit_status(self) -> int:
        """The shell's code for a process that a signal ended: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signal


def end_on_signals() -> Callable[[], None]:
    """From now on SIGTERM and SIGINT raise :class:`Terminated` in the main thread; gives a function that undoes it.

    A step of a large network is one long call into torch, in which Python delivers no signal. A second thread,
    woken by the C-level handler, therefore ends the process when the grace is over, unless it is undone by then.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    is_over = threading.Event()
    handlers = {number: signal.signal(number, _raise) for number in _SIGNALS}
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    arguments = (read_end, is_over)
    thread = threading.Thread(target=_end_after_grace, args=arguments, name="termination", daemon=True)
    thread.start()

    def undo() -> None:
        is_over.set()
        signal.set_wakeup_fd(-1)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(write_end)
        thread.join()

    return undo


def _raise(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: a second one would interrupt the cleaning up
    raise Terminated(number)


def _end_after_grace(read_end: int, is_over: threading.Event) -> None:
    signals = os.read(read_end, 1)
    os.close(read_end)
    if is_over.wait(GRACE_SECONDS if signals else 0):
        return
    remove_unfinished_files()
    os._exit(128 + signals[0])


def leave(status: int) -> NoReturn:
    """Ends the process without tearing down its libraries.

    By now all files are written and closed. Of several processes one in ten aborted in that teardown ("terminate
    called without an active exception"), when a thread of gloo was still there, and with it the whole run failed.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 1
    os._exit(status)
