"""Workers as processes of this machine: ``rmldnn_torch/worker.py`` at the other end of a pair of sockets."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from rml_search.errors import RuntimeUnavailableError
from rml_search.runtime.base import SEED_VARIABLE, EngineExit, EngineRun, engine_arguments
from rml_search.runtime.local import LocalRuntime, engine_module
from rml_search.runtime.process import exit_of_process
from rml_search.runtime.warm_engine import exit_without_answer

_MESSAGE_BYTES = 4096
_POLL_SECONDS = 0.1


class LocalWorkplace:
    """Makes workers that have what the runtime's processes have. On a GPU a worker runs its trials itself."""

    def __init__(self, cold: LocalRuntime, *, in_process: bool) -> None:
        self._cold = cold
        self._in_process = in_process

    def needs(self, run: EngineRun) -> object:
        """The environment, without what each run has for itself."""
        return _common_environment(self._cold.environment(run))

    def hire(self, run: EngineRun) -> LocalWorker:
        """A worker that starts with its first run."""
        environment = _common_environment(self._cold.environment(run))
        return LocalWorker(self._cold.root, environment, in_process=self._in_process)


def _common_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != SEED_VARIABLE}


def own_environment(run: EngineRun) -> dict[str, str]:
    """What a run has for itself."""
    return {name: value for name, value in run.environment().items() if name == SEED_VARIABLE}


class LocalWorker:
    """A process that runs the engine again and again, one run at a time."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *, in_process: bool) -> None:
        self._options = ["--in-process"] if in_process else []
        self._environment = dict(environment)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._socket, self._its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @property
    def is_alive(self) -> bool:
        """Whether it can take another run."""
        return self._process is not None and self._process.poll() is None

    def begin(self, run: EngineRun) -> PipeOutput:
        """Starts a run. Raises OSError where the worker has died."""
        request = {"arguments": engine_arguments(run), "environment": own_environment(run)}
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
        return PipeOutput(output)

    def ask_to_stop(self) -> None:
        """Asks the run at work to end."""
        with contextlib.suppress(OSError):
            self._socket.send(json.dumps({"stop": True}).encode())

    def answer(self) -> EngineExit | None:
        """How the run has ended, or the worker if that has; None if a moment has brought neither."""
        try:
            if not select.select([self._socket], [], [], _POLL_SECONDS)[0]:
                return None
            message = self._socket.recv(_MESSAGE_BYTES)
        except (OSError, ValueError):  # the worker has died, or was buried in another thread
            message = b""
        if message:
            return exit_of_process(int(json.loads(message)["status"]))
        return exit_without_answer(exit_of_process(-signal.SIGKILL if self._process is None else self._process.wait()))

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
                env={**os.environ, **self._environment},
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


class PipeOutput:
    """What a run writes into a pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def chunks(self) -> Iterator[bytes]:
        """The bytes as they come."""
        descriptor = self._descriptor
        if descriptor is None:
            raise ValueError("the output of this run has been closed")
        yield from iter(lambda: os.read(descriptor, 65536), b"")

    def close(self) -> None:
        """Nobody reads on."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
