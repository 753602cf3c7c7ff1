"""The built-in engine in processes that outlive their trials.

What such a worker is told and what it answers is described in ``rmldnn_torch/worker.py``, which runs each trial in a
child of its own: a trial is to the search what it is in a process started for it, but need not import anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rml_search.errors import RuntimeUnavailableError
from rml_search.interruption import uninterrupted
from rml_search.runtime.base import (
    SEED_VARIABLE,
    STOP_SECONDS,
    EngineExit,
    EngineRun,
    RunningEngine,
    Runtime,
    engine_arguments,
    split_lines,
)
from rml_search.runtime.local import LocalRuntime, engine_module
from rml_search.runtime.process import exit_of_process

#: With this variable set to 1 each trial gets a process of its own, which starts from nothing; with 0 none does.
COLD_VARIABLE = "RML_COLD"

_MESSAGE_BYTES = 4096
_POLL_SECONDS = 0.1
_SECONDS_TO_LEAVE = 5.0


@contextmanager
def kept_warm(runtime: Runtime) -> Iterator[Runtime]:
    """The same runtime with workers that outlive a trial, where it can have such; they end with the context."""
    if not isinstance(runtime, LocalRuntime) or _starts_cold(runtime):
        yield runtime
        return
    warm = WarmRuntime(runtime, in_process=runtime.uses_gpu)
    try:
        yield warm
    finally:
        with uninterrupted():
            warm.close()


def _starts_cold(runtime: LocalRuntime) -> bool:
    """As the environment says, else on a GPU: trials in one process were not tried on any."""
    return os.environ.get(COLD_VARIABLE) != "0" if runtime.uses_gpu else os.environ.get(COLD_VARIABLE) == "1"


class WarmRuntime:
    """Gives each trial a worker that is free and has the environment that the trial needs, or a new one.

    ``in_process``: the worker itself runs the trials, as a GPU wants it, instead of a child for each.
    """

    name = "local"
    in_container = False

    def __init__(self, cold: LocalRuntime, *, in_process: bool = False) -> None:
        self._cold = cold
        self._in_process = in_process
        self._lock = threading.Lock()
        self._free: list[_Worker] = []

    def describe(self) -> str:
        """As the runtime that starts a process for each trial."""
        return self._cold.describe()

    def prepare(self, show: Callable[[str], None]) -> None:
        """As the runtime that starts a process for each trial."""
        self._cold.prepare(show)

    def remove_leftovers(self, _is_gone: Callable[[str], bool] = lambda _: True, /) -> None:
        """Nothing is left: a worker ends when the search at the other end of its socket does."""

    @contextmanager
    def start(self, run: EngineRun) -> Iterator[RunningEngine]:
        """Hands the run to a worker; one of several processes is started cold."""
        if run.num_procs > 1:
            with self._cold.start(run) as cold_engine:
                yield cold_engine
            return
        engine: _WarmEngine | None = None
        try:
            with uninterrupted():
                engine = self._begin(run)
            yield engine
        finally:
            if engine is not None:
                with uninterrupted():
                    self._take_back(engine)

    def close(self) -> None:
        """Ends all workers that are free."""
        with self._lock:
            free, self._free = self._free, []
        for worker in free:
            worker.hang_up()
        for worker in free:
            worker.bury(_SECONDS_TO_LEAVE)

    def _begin(self, run: EngineRun) -> _WarmEngine:
        environment = self._cold.environment(run)
        own = {name: environment.pop(name) for name in (SEED_VARIABLE,) if name in environment}
        request = {"arguments": engine_arguments(run), "environment": own}
        while (worker := self._find_free(environment)) is not None:
            # It may have died while it had nothing to do.
            with contextlib.suppress(OSError):
                if worker.is_alive:
                    return worker.begin(request)
            worker.bury()
        worker = _Worker(self._cold.root, environment, in_process=self._in_process)
        try:
            return worker.begin(request)
        except OSError as error:
            worker.bury()
            raise RuntimeUnavailableError(f"the engine has ended as it was started: {error.strerror}") from None

    def _find_free(self, environment: Mapping[str, str]) -> _Worker | None:
        with self._lock:
            for worker in self._free:
                if worker.environment == environment:
                    self._free.remove(worker)
                    return worker
        return None

    def _take_back(self, engine: _WarmEngine) -> None:
        engine.close_output()
        if not engine.has_ended or not engine.worker.is_alive:
            engine.worker.bury()
            return
        with self._lock:
            self._free.append(engine.worker)


class _Worker:
    """A process that runs the engine again and again, one run at a time."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *, in_process: bool) -> None:
        self._options = ["--in-process"] if in_process else []
        self.environment = dict(environment)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._socket, self._its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @property
    def is_alive(self) -> bool:
        """Whether it can take another run."""
        return self._process is not None and self._process.poll() is None

    def begin(self, request: Mapping[str, object]) -> _WarmEngine:
        """Starts a run. Raises OSError where the worker has died."""
        output, write_end = os.pipe()
        try:
            if self._process is None:
                self._process = self._start(write_end)
            socket.send_fds(self._socket, [json.dumps(request).encode()], [write_end])
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(write_end)
        return _WarmEngine(self, output)

    def ask_to_stop(self) -> None:
        """Asks the run at work to end."""
        with contextlib.suppress(OSError):
            self._socket.send(json.dumps({"stop": True}).encode())

    def answer(self) -> int | None:
        """The exit code of the run, or of the worker if that has ended; None if a moment has brought neither."""
        if not select.select([self._socket], [], [], _POLL_SECONDS)[0]:
            return None
        try:
            message = self._socket.recv(_MESSAGE_BYTES)
        except ConnectionResetError:
            message = b""
        if message:
            return int(json.loads(message)["status"])
        return -signal.SIGKILL if self._process is None else self._process.wait()

    def hang_up(self) -> None:
        """Lets the worker end by itself."""
        self._its_end.close()
        self._socket.close()

    def bury(self, seconds: float = 0.0) -> None:
        """Hangs up, and kills what has not ended by itself after so many seconds."""
        self.hang_up()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        """Kills the worker, and with it the run: both are of its group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self, output: int) -> subprocess.Popen[bytes]:
        command = [*engine_module("rmldnn_torch.worker"), str(self._its_end.fileno()), *self._options]
        try:
            process = subprocess.Popen(
                command,
                cwd=self._directory,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[self._its_end.fileno()],
            )
        except OSError as error:
            self.hang_up()
            raise RuntimeUnavailableError(f"cannot start {command[0]}: {error.strerror}") from None
        self._its_end.close()
        return process


class _WarmEngine:
    """One run of a worker; stdout and stderr are one stream, in the order in which they were written."""

    def __init__(self, worker: _Worker, output: int) -> None:
        self.worker = worker
        self._output: int | None = output
        self._reading = threading.Lock()
        # Held where the end is noted and where the worker is told to stop: else that could meet its next run.
        self._ending = threading.Lock()
        self._exit: EngineExit | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its end is known."""
        return self._exit is not None

    def lines(self) -> Iterator[str]:
        """What it prints, line by line."""
        output = self._output
        if output is None:
            raise ValueError("the output of this run has been closed")
        yield from split_lines(iter(lambda: os.read(output, 65536), b""))

    def stop(self) -> None:
        """Asks it to end, and kills it with its worker when it does not."""
        with self._ending:
            if self._exit is None:
                self.worker.ask_to_stop()
        deadline = time.monotonic() + STOP_SECONDS
        while self._look() is None:
            if time.monotonic() > deadline:
                self.worker.kill()

    def wait(self) -> EngineExit:
        """Waits for its end."""
        while (ended := self._look()) is None:
            pass
        return ended

    def close_output(self) -> None:
        """Nobody reads on."""
        output, self._output = self._output, None
        if output is not None:
            os.close(output)

    def _look(self) -> EngineExit | None:
        """How it has ended, if it has; waits for a moment. Several threads may ask."""
        with self._reading:
            if self._exit is not None:
                return self._exit
            code = self.worker.answer()
            if code is not None:
                with self._ending:
                    self._exit = exit_of_process(code)
            return self._exit
