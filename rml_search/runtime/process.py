"""An engine as a process of this machine, with all that it starts in a group of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rml_search.errors import RuntimeUnavailableError
from rml_search.interruption import uninterrupted
from rml_search.runtime.base import STOP_SECONDS, EngineExit, split_lines, was_killed


class ProcessEngine:
    """A running process; stdout and stderr are one stream, in the order in which they were written."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def lines(self) -> Iterator[str]:
        """What it prints, line by line."""
        output = self._process.stdout
        if output is None:
            raise ValueError("the process was started without a pipe for its output")
        yield from split_lines(iter(lambda: os.read(output.fileno(), 65536), b""))

    def stop(self) -> None:
        """Asks the whole group to end, and kills it when it does not."""
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def wait(self) -> EngineExit:
        """Waits for the process to end."""
        return exit_of_process(self._process.wait())

    def kill_group(self) -> None:
        """Kills what is left of the group, such as ranks that outlive mpirun."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def exit_of_process(code: int) -> EngineExit:
    """What the exit code of a process says, negative for the signal that ended it."""
    note = None if code >= 0 else f"the engine was stopped by {signal.Signals(-code).name}"
    return EngineExit(code, note, is_machines_fault=was_killed(code))


@contextmanager
def start_process(
    command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None
) -> Iterator[ProcessEngine]:
    """Runs ``command`` in ``directory``; whatever is left of it when the context ends is killed.

    Raises:
        RuntimeUnavailableError: the program is not there, or may not be started.
    """
    process: subprocess.Popen[bytes] | None = None
    try:
        with uninterrupted():
            process = _start(command, directory, {**os.environ, **(environment or {})})
        yield ProcessEngine(process)
    finally:
        if process is not None:
            with uninterrupted():
                ProcessEngine(process).kill_group()


def _start(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise RuntimeUnavailableError(f"cannot start {command[0]}: {error.strerror}") from None
