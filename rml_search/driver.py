"""Who a driver is, so that others can tell whether it is still at work."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SEPARATOR = "/"


@dataclass(frozen=True)
class Driver:
    """A process that runs trials of a study.

    Attributes:
        kernel: which start of which kernel, and which of its tables of processes, ``process`` belongs to; empty where
            the system does not tell.
        started: when the process began, in clock ticks after that start: numbers of processes are used again.
        token: tells apart what one process opens several times.
    """

    host: str
    kernel: str
    process: int
    started: int
    token: str

    @property
    def name(self) -> str:
        """All of it in one text, for labels and databases."""
        return _SEPARATOR.join((self.host, self.kernel, str(self.process), str(self.started), self.token))

    @property
    def is_gone(self) -> bool:
        """Whether the process has certainly ended; of one on another machine, or in a container, nobody can say."""
        if not self.is_here:
            return False
        started = _started(self.process)
        return not _is_another_persons(self.process) if started is None else started != self.started

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process that this one can see."""
        return bool(self.kernel) and self.kernel == _kernel()

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def this_driver() -> Driver:
    """This process, with a new token."""
    process = os.getpid()
    host = socket.gethostname().replace(_SEPARATOR, "-")
    return Driver(host, _kernel(), process, _started(process) or 0, secrets.token_hex(4))


def parse_driver(name: str) -> Driver | None:
    """The driver of that name; None for a text that is none."""
    match name.split(_SEPARATOR):
        case [host, kernel, process, started, token] if process.isdecimal() and started.isdecimal():
            return Driver(host, kernel, int(process), int(started), token)
    return None


def is_gone(name: str) -> bool:
    """Whether the driver of that name has certainly ended."""
    driver = parse_driver(name)
    return driver is not None and driver.is_gone


@cache
def _kernel() -> str:
    """The start of this kernel and the name space of our processes, as proc(5) tells them; empty where it does not."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}:{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_another_persons(process: int) -> bool:
    """Whether there is such a process of another user's, which the system may hide (the option hidepid of proc(5))."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


def _started(process: int) -> int | None:
    """When a process began; None where there is none, or one that only waits for its parent to take note of its end."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name before it may hold anything, brackets and blanks too: fields 3 (state) and 22 (start time) come after.
    state, *fields = text.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else int(fields[18])
