"""Runs of workers that do not do what they should, or not at the best moment; stand-ins take the workers' places."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from rml_search.runtime import local_worker, warm_engine
from rml_search.runtime.base import EngineExit, EngineRun
from rml_search.runtime.docker_worker import ContainerWorker
from rml_search.runtime.local_worker import LocalWorker
from rml_search.runtime.warm import WarmRuntime
from rml_search.runtime.warm_engine import WarmEngine

RUN = EngineRun(Path("config.json"))
KILLED = EngineExit(137, "the engine was ended by SIGKILL", is_machines_fault=True)


class StubbornWorker:
    """Its run ends when it is killed, and not before; ``poll`` is how long it waits for that each time."""

    is_alive = True

    def __init__(self, poll=None):
        self.poll = poll
        self.killed, self.buried = threading.Event(), threading.Event()

    def begin(self, run):
        return self

    def close(self):
        """Of its output."""

    def ask_to_stop(self):
        """It does not listen."""

    def answer(self):
        return KILLED if self.killed.wait(self.poll) else None

    def kill(self):
        self.killed.set()

    def bury(self, seconds=0.0):
        self.buried.set()


@pytest.mark.parametrize("poll", [0.05, None], ids=["asked again and again", "waits for the worker's own end"])
def test_a_run_that_is_waited_for_can_be_killed(monkeypatch, poll):
    monkeypatch.setattr(warm_engine, "STOP_SECONDS", 0.3)
    worker = StubbornWorker(poll)
    engine = WarmEngine(worker, worker)
    waiting = threading.Thread(target=engine.wait, daemon=True)
    waiting.start()
    time.sleep(0.1)
    stopping = threading.Thread(target=engine.stop, daemon=True)
    started = time.monotonic()
    stopping.start()
    stopping.join(5)
    waiting.join(5)
    assert not stopping.is_alive()
    assert not waiting.is_alive()
    assert 0.3 < time.monotonic() - started < 2
    assert engine.wait() == KILLED


def test_a_worker_that_was_buried_in_another_thread_has_ended(tmp_path):
    worker = LocalWorker(tmp_path, {}, in_process=False)
    engine = WarmEngine(worker, StubbornWorker())
    worker.bury()
    engine.stop()
    assert engine.wait() == EngineExit(-signal.SIGKILL, "the engine was ended by SIGKILL", is_machines_fault=True)


def test_a_worker_that_ends_well_without_a_word_about_its_run_has_lost_it(tmp_path, monkeypatch):
    program = (sys.executable, "-c", "import time; time.sleep(0.2)")
    monkeypatch.setattr(local_worker, "engine_module", lambda name: program)
    worker = LocalWorker(tmp_path, {}, in_process=False)
    engine = WarmEngine(worker, worker.begin(RUN))
    assert list(engine.lines()) == []
    assert engine.wait() == EngineExit(-1, "the engine's worker ended before its run did", is_machines_fault=True)
    worker.bury()


class EndedContainer:
    """One whose process has ended with 0, as when its standard input had ended."""

    def __init__(self):
        self.attrs = {"State": {}}

    def wait(self):
        return {"StatusCode": 0}

    def reload(self):
        """Nothing new."""

    def sendall(self, message):
        """Of its connection, which the other end has not closed yet."""

    def shutdown(self, how):
        """As of a socket."""


def test_a_container_that_ends_well_without_a_word_about_its_run_has_lost_it(monkeypatch):
    worker = ContainerWorker(EndedContainer())
    worker._connection = worker._socket = EndedContainer()
    monkeypatch.setattr("rml_search.runtime.docker_worker._frames", lambda connection, tty: iter(()))
    engine = WarmEngine(worker, worker.begin(RUN))
    worker._listen()
    assert list(engine.lines()) == []
    assert (engine.wait().code, engine.wait().is_machines_fault) == (-1, True)


def test_a_container_that_ends_while_it_is_given_a_run_takes_none(monkeypatch):
    """Else nobody would tell the run's reader of the end."""
    worker = ContainerWorker(EndedContainer())
    worker._connection = worker._socket = EndedContainer()
    monkeypatch.setattr("rml_search.runtime.docker_worker._frames", lambda connection, tty: iter(()))
    worker._listen()
    with pytest.raises(BrokenPipeError):
        worker.begin(RUN)


class Workplace:
    """Makes the one worker that it has."""

    def __init__(self, worker):
        self.worker = worker

    def needs(self, run):
        return None

    def hire(self, run):
        return self.worker


class ColdRuntime:
    """The least that a warm one stands on."""

    name, in_container = "cold", False


def test_a_worker_that_becomes_free_when_the_search_is_over_goes_too():
    worker = StubbornWorker()
    runtime = WarmRuntime(ColdRuntime(), Workplace(worker))
    worker.kill()
    with runtime.start(RUN) as engine:
        assert engine.wait() == KILLED
        runtime.close()
        assert not worker.buried.is_set()
    assert worker.buried.is_set()
