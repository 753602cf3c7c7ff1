"""Ending a running trial from outside."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from rml_search.results import TrialState
from rml_search.runtime.base import RunningEngine


@dataclass(frozen=True)
class Verdict:
    """Why a trial is ended, and as what it counts (see :class:`~rml_search.results.TrialResult`).

    Attributes:
        needs_checkpoint: whether a trial has failed that was ended before its best checkpoint was there.
    """

    state: TrialState
    reason: str
    is_machines_fault: bool = False
    is_broken_off: bool = False
    needs_checkpoint: bool = False


class TrialControl:
    """What the search and the thread of a trial share: the engine, its signs of life, and a verdict on the trial."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engine: RunningEngine | None = None
        self._verdict: Verdict | None = None
        self.started = time.monotonic()
        self.last_sign = self.started
        self.share_of_training = 0.0  #: that is done by what the engine has printed, 0 to 1

    @property
    def verdict(self) -> Verdict | None:
        """The first verdict, if there is one."""
        return self._verdict

    def attach(self, engine: RunningEngine) -> None:
        """The engine has started; it is stopped at once where the verdict came before it."""
        with self._lock:
            self._engine = engine
            stop = self._verdict is not None
        if stop:
            engine.stop()

    def note_sign_of_life(self) -> None:
        """The engine has printed something."""
        self.last_sign = time.monotonic()

    def end(self, verdict: Verdict) -> None:
        """Ends the trial, unless a verdict has ended it before; returns when its engine has ended."""
        with self._lock:
            if self._verdict is not None:
                return
            self._verdict = verdict
            engine = self._engine
        if engine is not None:
            engine.stop()
