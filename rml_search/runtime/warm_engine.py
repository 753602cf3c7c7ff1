"""What outlives a trial, whatever it is made of, and one run of it as the search sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Protocol

from rml_search.runtime.base import STOP_SECONDS, EngineExit, EngineRun, split_lines


class Output(Protocol):
    """What one run prints."""

    def chunks(self) -> Iterator[bytes]:
        """The bytes as they come; ends with the run."""

    def close(self) -> None:
        """Nobody reads on."""


class Worker(Protocol):
    """A process or container that runs the engine again and again, one run at a time."""

    @property
    def is_alive(self) -> bool:
        """Whether it can take another run."""

    def begin(self, run: EngineRun) -> Output:
        """Starts a run. Raises OSError where the worker has died."""

    def ask_to_stop(self) -> None:
        """Asks the run at work to end."""

    def answer(self) -> EngineExit | None:
        """How the run has ended, or the worker if that has; None if a moment has brought neither."""

    def kill(self) -> None:
        """Kills the worker, and with it the run."""

    def hang_up(self) -> None:
        """Lets the worker end by itself."""

    def bury(self, seconds: float = 0.0) -> None:
        """Hangs up, kills what has not ended by itself after so many seconds, and removes what is left."""


class Workplace(Protocol):
    """Where workers of one kind are made."""

    def needs(self, run: EngineRun) -> object:
        """What a worker must have been made for, so that it can take the run; equal for those that can share one."""

    def hire(self, run: EngineRun) -> Worker:
        """Makes a worker for runs like this one.

        Raises:
            RuntimeUnavailableError: there can be none.
        """


#: How long one thread waits for another that asks for the end of the same run.
_SECONDS_FOR_ANOTHER = 0.2


def exit_without_answer(worker: EngineExit) -> EngineExit:
    """How a run has ended of whose end its worker said nothing before its own: not well, even if the worker has."""
    return worker if worker.code != 0 else EngineExit(-1, "the engine's worker ended before its run did", True)


class WarmEngine:
    """One run of a worker; stdout and stderr are one stream, in the order in which they were written."""

    def __init__(self, worker: Worker, output: Output) -> None:
        self.worker = worker
        self._output = output
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
        yield from split_lines(self._output.chunks())

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
        self._output.close()

    def _look(self) -> EngineExit | None:
        """How it has ended, if it has; waits for a moment. Several threads may ask."""
        # Not for ever: who asks may wait for the worker's own end, and this thread may have to bring it about.
        if not self._reading.acquire(timeout=_SECONDS_FOR_ANOTHER):
            return self._exit
        try:
            ended = self.worker.answer() if self._exit is None else None
            if ended is not None:
                with self._ending:
                    self._exit = ended
            return self._exit
        finally:
            self._reading.release()
