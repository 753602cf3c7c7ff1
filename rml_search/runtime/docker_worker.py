"""Workers in containers of our image: ``rmldnn_torch/worker_on_streams.py`` at the other end of an attached connection.

The container's standard input ends with that connection, so a worker ends by itself when its driver is gone, however
that was; what is left of its container goes with the next start, as that of any other.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from docker.models.containers import Container
from docker.types import LogConfig
from docker.utils.socket import SocketError, frames_iter

from rml_search.runtime.base import SEED_VARIABLE, EngineExit, EngineRun, engine_arguments
from rml_search.runtime.docker import (
    LABEL,
    SDK_ERRORS,
    DockerRuntime,
    exit_of_code,
    exit_of_container,
    remove,
    start_error,
)
from rml_search.runtime.local_worker import own_environment
from rml_search.runtime.warm_engine import exit_without_answer
from rmldnn_contract.worker_stream import (
    WORKER_COMMAND,
    Begin,
    Ended,
    Message,
    MessageReader,
    Printed,
    Stop,
    format_message,
)

_POLL_SECONDS = 0.1

# The SDK has no types for it: (number of the stream, bytes) as they come, until the connection ends.
_frames: Callable[..., Iterator[tuple[int, bytes]]] = frames_iter
_STDOUT = 1

#: It tells of one trial, so not of a container that serves several.
_LABEL_OF_A_TRIAL = f"{LABEL}.trial"


class DockerWorkplace:
    """Makes workers that see what the runtime's containers see. On a GPU a worker runs its trials itself."""

    def __init__(self, cold: DockerRuntime, *, in_process: bool) -> None:
        self._cold = cold
        self._command = [WORKER_COMMAND, *(["--in-process"] if in_process else [])]

    def needs(self, run: EngineRun) -> object:
        """All settings of the container but its labels, which bind it to no trial."""
        return {name: value for name, value in self._worker_settings(run).items() if name != "labels"}

    def hire(self, run: EngineRun) -> ContainerWorker:
        """A worker in a container that has started."""
        worker = ContainerWorker(self._cold.create(self._worker_settings(run)))
        try:
            worker.start()
        except SDK_ERRORS as error:
            worker.bury()
            raise start_error(error, self._cold.image, WORKER_COMMAND) from None
        return worker

    def _worker_settings(self, run: EngineRun) -> dict[str, Any]:
        settings = self._cold.settings(run)
        environment = {name: value for name, value in settings["environment"].items() if name != SEED_VARIABLE}
        labels = {name: value for name, value in settings["labels"].items() if name != _LABEL_OF_A_TRIAL}
        return {
            **settings,
            "command": self._command,
            "environment": environment,
            "labels": labels,
            "stdin_open": True,
            # What it says is read as it comes: a copy on the disk would grow with the search.
            "log_config": LogConfig(type="none"),
        }


class ContainerWorker:
    """A container that runs the engine again and again, one run at a time."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._connection: Any = None
        self._socket: Any = None
        self._output = QueueOutput()
        self._answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # None: the worker has ended
        self._has_ended = False
        self._thread = threading.Thread(target=self._listen, name="worker in a container", daemon=True)

    def start(self) -> None:
        """Starts the container, attached before so that nothing that it says is lost. Raises one of SDK_ERRORS."""
        self._connection = self._container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        # The SDK gives what it reads from; what can be written to, and has no time limit, lies below.
        self._socket = getattr(self._connection, "_sock", self._connection)
        self._socket.settimeout(None)
        self._thread.start()
        self._container.start()

    @property
    def is_alive(self) -> bool:
        """Whether it can take another run."""
        return not self._has_ended

    def begin(self, run: EngineRun) -> QueueOutput:
        """Starts a run. Raises OSError where the worker has died."""
        self._output = output = QueueOutput()
        self._send(Begin(tuple(engine_arguments(run)), own_environment(run)))
        if self._has_ended:  # perhaps before this output was there to be told of it
            raise BrokenPipeError("the container has ended")
        return output

    def ask_to_stop(self) -> None:
        """Asks the run at work to end."""
        with contextlib.suppress(OSError):
            self._send(Stop())

    def answer(self) -> EngineExit | None:
        """How the run has ended, or the container if that has; None if a moment has brought neither."""
        try:
            status = self._answers.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            return None
        if status is None:
            return exit_without_answer(exit_of_container(self._container))
        # A container tells of a signal as a shell does.
        return exit_of_code(status if status >= 0 else 128 - status)

    def kill(self) -> None:
        """Kills the container, and with it the run."""
        with contextlib.suppress(*SDK_ERRORS):
            self._container.kill()

    def hang_up(self) -> None:
        """Lets the worker end by itself."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def bury(self, _seconds: float = 0.0) -> None:
        """Hangs up, and removes the container: one that has nothing to do needs no time to end."""
        self.hang_up()
        remove(self._container)
        if self._connection is not None:
            self._thread.join()
            self._connection.close()

    def _send(self, message: Message) -> None:
        self._socket.sendall(format_message(message))

    def _listen(self) -> None:
        """What the thread does that reads what the container says."""
        reader = MessageReader()
        with contextlib.suppress(OSError, SocketError, ValueError):
            for stream, chunk in _frames(self._connection, tty=False):
                if stream != _STDOUT:  # errors of the worker itself
                    self._output.put(chunk)
                    continue
                for message in reader.feed(chunk):
                    self._take(message)
        self.hang_up()  # of one that talks nonsense the end is waited for too
        self._has_ended = True
        self._output.put(b"")
        self._answers.put(None)

    def _take(self, message: Message) -> None:
        match message:
            case Printed(output):
                self._output.put(output)
            case Ended(status):
                self._output.put(b"")
                self._answers.put(status)
            case _:
                raise ValueError(f"a worker does not say {message}")


class QueueOutput:
    """What a run prints, as a thread that reads it hands it on."""

    def __init__(self) -> None:
        self._chunks: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def put(self, chunk: bytes) -> None:
        """The next bytes; none at the end."""
        self._chunks.put(chunk)

    def chunks(self) -> Iterator[bytes]:
        """The bytes as they come."""
        yield from iter(self._chunks.get, b"")

    def close(self) -> None:
        """Nobody reads on: what still comes is dropped with the queue."""
