"""How a run ends on a signal: in order where it can, within two seconds in any case."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
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


def end_on_signals() -> None:
    """From now on SIGTERM and SIGINT raise :class:`Terminated` in the main thread.

    A step of a large network is one long call into torch, in which Python delivers no signal. A second thread,
    woken by the C-level handler, therefore ends the process when the grace is over.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    for number in _SIGNALS:
        signal.signal(number, _raise)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    threading.Thread(target=_end_after_grace, args=(read_end,), name="termination", daemon=True).start()


def _raise(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: a second one would interrupt the cleaning up
    raise Terminated(number)


def _end_after_grace(read_end: int) -> None:
    number = os.read(read_end, 1)[0]
    time.sleep(GRACE_SECONDS)
    remove_unfinished_files()
    os._exit(128 + number)


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
