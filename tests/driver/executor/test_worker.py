"""What a job does, without a cluster: the environment says of the job what Slurm would."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

from rml_search.executor import worker
from rml_search.executor.worker import Worker


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of job 7, which has four cores."""
    for name, value in {
        "SUBMITIT_EXECUTOR": "slurm",
        "SUBMITIT_FOLDER": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_PROCID": "0",
        "SLURM_CPUS_PER_TASK": "4",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, sys, time\n{code}"]


def test_the_exit_code_is_the_drivers(job):
    old = job / "7_0_result.pkl"
    old.write_text("of an earlier run")
    assert Worker(python("sys.exit(69)"))() == 69
    assert not old.exists()


def test_without_a_variable_that_it_needs_no_driver_is_started(job, monkeypatch, capsys):
    command = python("open('started', 'w')")
    monkeypatch.chdir(job)
    monkeypatch.delenv("RML_STORAGE", raising=False)
    assert Worker(command, ["RML_STORAGE"])() == 2
    assert capsys.readouterr().out.startswith("Error: the job has no variable RML_STORAGE")
    assert not (job / "started").exists()
    monkeypatch.setenv("RML_STORAGE", "somewhere")
    assert Worker(command, ["RML_STORAGE"])() == 0
    assert (job / "started").exists()


def test_the_driver_does_not_hear_the_notice_and_knows_its_cores(job, monkeypatch):
    code = (
        "sys.exit(not (signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN and os.environ['OMP_NUM_THREADS'] == '{}'))"
    )
    before = signal.getsignal(signal.SIGUSR2)
    assert Worker(python(code.format(4)))() == 0
    assert signal.getsignal(signal.SIGUSR2) == before
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert Worker(python(code.format(2)))() == 0


class Requeued(BaseException):
    """What submitit's exit is to the test."""


def test_a_notice_ends_the_driver_first_and_the_same_command_goes_on(job):
    """As submitit calls it: in a handler, while the main thread waits for the driver."""
    end = "def end(*_):\n    time.sleep(0.5)\n    open('tidy', 'w').close()\n    sys.exit(143)\n"
    command = python(
        f"os.chdir({str(job)!r})\n{end}signal.signal(signal.SIGTERM, end)\nopen('up', 'w').close()\ntime.sleep(60)"
    )
    first = Worker(command, ["PATH"])
    next_run: list[DelayedSubmission] = []

    def notice(*_: object) -> None:
        if not (job / "up").exists():
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            return
        next_run.append(first.checkpoint())
        raise Requeued

    before = signal.signal(signal.SIGALRM, notice)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(Requeued):
            first()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (job / "tidy").exists(), "the driver had not ended"
    assert next_run[0].function.command == command
    assert next_run[0].function.needed_variables == ["PATH"]
    assert first._driver is not None
    assert first._driver.wait() == 143


def test_a_notice_that_comes_when_the_driver_has_ended_requeues_all_the_same(job):
    worker_of_job = Worker(python("sys.exit(0)"))
    assert worker_of_job() == 0
    assert worker_of_job.checkpoint().function.command == worker_of_job.command


def test_a_worker_travels_without_the_project(job, tmp_path):
    """A job's Python may find no rml_search; a requeued job has to write its worker down once more."""
    import cloudpickle

    cloudpickle.register_pickle_by_value(worker)
    try:
        (tmp_path / "worker.pkl").write_bytes(cloudpickle.dumps(Worker(python("sys.exit(5)"))))
    finally:
        cloudpickle.unregister_pickle_by_value(worker)
    code = """
import cloudpickle, pickle, sys
sys.modules["rml_search"] = None  # an import of it is an error
worker = pickle.load(open("worker.pkl", "rb"))
again = pickle.loads(cloudpickle.dumps(worker.checkpoint().function))
sys.exit(again())
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False).returncode == 5
