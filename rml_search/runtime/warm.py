"""Our engine in processes and containers that outlive their trials.

What a worker is told and what it answers is described in ``rmldnn_torch/worker.py``, which runs each trial in a child
of its own: a trial is to the search what it is in a process started for it, but need not import anything.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rml_search.errors import RuntimeUnavailableError
from rml_search.interruption import uninterrupted
from rml_search.runtime.base import EngineRun, RunningEngine, Runtime
from rml_search.runtime.warm_engine import WarmEngine, Worker, Workplace

#: With this variable set to 1 each trial gets a process or container of its own, which starts from nothing.
COLD_VARIABLE = "RML_COLD"

_SECONDS_TO_LEAVE = 5.0


@runtime_checkable
class MayKeepWorkers(Protocol):
    """A runtime whose engine may outlive its trials."""

    uses_gpu: bool

    def workplace(self, *, in_process: bool) -> Workplace | None:
        """Where its workers are made; None where its engine is none of ours.

        ``in_process``: the worker itself runs the trials, as a GPU wants it, instead of a child for each.
        """


@contextmanager
def kept_warm(runtime: Runtime) -> Iterator[Runtime]:
    """The same runtime with workers that outlive a trial, where it can have such; they end with the context."""
    workplace = None
    if isinstance(runtime, MayKeepWorkers) and os.environ.get(COLD_VARIABLE) != "1":
        workplace = runtime.workplace(in_process=runtime.uses_gpu)
    if workplace is None:
        yield runtime
        return
    warm = WarmRuntime(runtime, workplace)
    try:
        yield warm
    finally:
        with uninterrupted():
            warm.close()


class WarmRuntime:
    """Gives each trial a worker that is free and was made for trials like it, or a new one."""

    def __init__(self, cold: Runtime, workplace: Workplace) -> None:
        self.name = cold.name
        self.in_container = cold.in_container
        self._cold = cold
        self._workplace = workplace
        self._lock = threading.Lock()
        self._free: list[tuple[object, Worker]] = []
        self._is_closed = False

    def describe(self) -> str:
        """As the runtime that starts an engine for each trial."""
        return self._cold.describe()

    def prepare(self, show: Callable[[str], None]) -> None:
        """As the runtime that starts an engine for each trial."""
        self._cold.prepare(show)

    def remove_leftovers(self, is_gone: Callable[[str], bool] = lambda _: True, /) -> None:
        """As the runtime that starts an engine for each trial."""
        self._cold.remove_leftovers(is_gone)

    @contextmanager
    def start(self, run: EngineRun) -> Iterator[RunningEngine]:
        """Hands the run to a worker; one of several processes is started cold."""
        if run.num_procs > 1:
            with self._cold.start(run) as cold_engine:
                yield cold_engine
            return
        needs = self._workplace.needs(run)
        engine: WarmEngine | None = None
        try:
            with uninterrupted():
                engine = self._begin(run, needs)
            yield engine
        finally:
            if engine is not None:
                with uninterrupted():
                    self._take_back(engine, needs)

    def close(self) -> None:
        """Ends all workers that are free, and each other one when it becomes so."""
        with self._lock:
            self._is_closed = True
        self.end_free_workers()

    def end_free_workers(self) -> None:
        """Ends those that nothing runs on: what runs next may need their memory."""
        with uninterrupted():
            with self._lock:
                free, self._free = self._free, []
            for _, worker in free:
                worker.hang_up()
            for _, worker in free:
                worker.bury(_SECONDS_TO_LEAVE)

    def _begin(self, run: EngineRun, needs: object) -> WarmEngine:
        while (worker := self._find_free(needs)) is not None:
            # It may have died while it had nothing to do.
            with contextlib.suppress(OSError):
                if worker.is_alive:
                    return WarmEngine(worker, worker.begin(run))
            worker.bury()
        worker = self._workplace.hire(run)
        try:
            return WarmEngine(worker, worker.begin(run))
        except OSError as error:
            worker.bury()
            reason = error.strerror or str(error)
            raise RuntimeUnavailableError(f"the engine exited at startup: {reason}") from None

    def _find_free(self, needs: object) -> Worker | None:
        with self._lock:
            for place, (made_for, worker) in enumerate(self._free):
                if made_for == needs:
                    del self._free[place]
                    return worker
        return None

    def _take_back(self, engine: WarmEngine, needs: object) -> None:
        engine.close_output()
        with self._lock:
            if engine.has_ended and engine.worker.is_alive and not self._is_closed:
                self._free.append((needs, engine.worker))
                return
        engine.worker.bury()
