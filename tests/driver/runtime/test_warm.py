"""Workers that outlive their trials: real trainings of a moment, compared with those that start from nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rml_search.best_model import file_digest
from rml_search.devices import Slot
from rml_search.hyperparameters import Hyperparameters
from rml_search.network_file import check_network_file
from rml_search.results import TrialState
from rml_search.runtime.local import LocalRuntime
from rml_search.runtime.warm import WarmRuntime, kept_warm
from rml_search.study import Suggestion
from rml_search.trial import TrialRunner
from rml_search.trial_control import TrialControl, Verdict
from rmldnn_contract.training_log import without_stamp

from .test_local import write_network

FOREVER = 1_000_000
ONE_THREAD = Slot(None, 1)


@pytest.fixture
def cold(workspace):
    for number in range(6):
        write_network(workspace, filters=1, activation="sigmoid")
        if number:
            workspace.trial_layers(number).write_bytes(workspace.trial_layers(0).read_bytes())
    return LocalRuntime(workspace, gpu=False)


@pytest.fixture
def warm(cold):
    with kept_warm(cold) as runtime:
        yield runtime


@pytest.fixture(params=[False, True], ids=["children", "in process"])
def either(request, cold):
    runtime = WarmRuntime(cold, cold.workplace(in_process=request.param))
    yield runtime
    runtime.close()


@pytest.fixture
def train(workspace, make_options):
    """Runs a trial: ``train(runtime, number, "adam")``."""
    network = None

    def run(runtime, number, optimizer="adam", *, epochs=2, on_epoch=lambda epoch: None, control=None, slot=None):
        nonlocal network
        network = network or check_network_file(workspace.trial_layers(0))
        options = make_options(num_epochs=epochs, image_size=(6, 6), networks=(network,))
        suggestion = Suggestion(number, Hyperparameters(optimizer, "bce", 0.01))
        return TrialRunner(options, workspace, runtime).run(suggestion, on_epoch, control, slot)

    return run


def processes_of(workspace):
    """The workers in the folder, and their runs, as {number: number of the parent}: proc(5) tells them."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_here = (process / "cwd").readlink() == workspace.root
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if is_here and fields[0] != "Z" and "rmldnn_torch.worker" in (process / "cmdline").read_text():
                found[int(process.name)] = int(fields[1])
    return found


def worker_of(workspace):
    """The only worker."""
    (worker,) = (number for number, parent in processes_of(workspace).items() if parent == os.getpid())
    return worker


def run_of(workspace):
    """The only run that a worker has at work."""
    processes = processes_of(workspace)
    (run,) = (number for number, parent in processes.items() if parent in processes)
    return run


def is_soon_true(question):
    deadline = time.monotonic() + 10
    while not question() and time.monotonic() < deadline:
        time.sleep(0.02)
    return question()


def traces(workspace, number):
    """What a trial has printed and written, without what tells of time."""
    paths = workspace.trial(number)
    lines = [re.sub(r"\[Data.*", "", without_stamp(line)) for line in paths.log.read_text().splitlines()]
    checkpoints = [file_digest(path) for _, path in sorted(paths.saved_checkpoints())]
    assert checkpoints
    return [line.replace(f"/{number:04}/", "/NUMBER/") for line in lines], checkpoints


# --- the same numbers ----------------------------------------------------------------------------------


def test_warm_trials_print_and_write_what_cold_ones_do(workspace, cold, either, train):
    for number, optimizer in enumerate(["adam", "lars", "adam"]):
        assert train(either, number, optimizer).state is TrialState.COMPLETE
        assert train(cold, number + 3, optimizer).state is TrialState.COMPLETE
        assert traces(workspace, number) == traces(workspace, number + 3)
    assert len(processes_of(workspace)) == 1, "not one worker has served all three"


def test_trials_beside_each_other_print_what_one_alone_does(workspace, cold, either, train):
    assert train(cold, 0, slot=ONE_THREAD).state is TrialState.COMPLETE
    with ThreadPoolExecutor(2) as threads:
        results = threads.map(lambda number: train(either, number, slot=ONE_THREAD), range(1, 5))
        assert [result.state for result in results] == [TrialState.COMPLETE] * 4
    assert len(processes_of(workspace)) == 2
    for number in range(1, 5):
        assert traces(workspace, number) == traces(workspace, 0)


def test_images_that_have_changed_are_read_again(workspace, cold, either, train):
    train(either, 0)
    image = next((workspace.root / "data" / "train" / "inputs").iterdir())
    from PIL import Image

    Image.new("L", (8, 8), 200).save(image)
    train(either, 1)
    train(cold, 2)
    assert traces(workspace, 1) == traces(workspace, 2) != traces(workspace, 0)


def test_a_failure_is_told_as_a_cold_one_tells_it(workspace, cold, either, train):
    train(either, 0)
    next((workspace.root / "data" / "train" / "inputs").iterdir()).write_text("no image")
    results = [train(either, 1), train(cold, 2)]
    assert results[0].reason == results[1].reason
    assert "is no image that can be read" in results[0].reason
    assert results[0].exit_status == results[1].exit_status
    assert results[0].exit_status is not None


# --- ends and deaths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", [worker_of, run_of])
def test_a_death_costs_the_trial_alone(workspace, warm, train, victim):
    result = train(
        warm, 0, epochs=FOREVER, on_epoch=lambda epoch: epoch.epoch == 1 and os.kill(victim(workspace), signal.SIGKILL)
    )
    assert (result.state, result.reason) == (TrialState.FAILED, "the engine was stopped by SIGKILL")
    assert result.is_machines_fault
    assert train(warm, 1).state is TrialState.COMPLETE
    assert is_soon_true(lambda: list(processes_of(workspace)) == [worker_of(workspace)])


def test_a_death_in_process_costs_the_trial_alone(workspace, cold, train):
    def kill(epoch):
        if epoch.epoch == 1:
            os.kill(worker_of(workspace), signal.SIGKILL)

    runtime = WarmRuntime(cold, cold.workplace(in_process=True))
    try:
        result = train(runtime, 0, epochs=FOREVER, on_epoch=kill)
        assert (result.state, result.is_machines_fault) == (TrialState.FAILED, True)
        assert train(runtime, 1).state is TrialState.COMPLETE
    finally:
        runtime.close()


def test_a_worker_that_died_idle_is_replaced(workspace, warm, train):
    train(warm, 0)
    first = worker_of(workspace)
    os.kill(first, signal.SIGKILL)
    state = Path(f"/proc/{first}/stat")
    assert is_soon_true(lambda: state.read_text().rpartition(")")[2].split()[0] == "Z")
    assert train(warm, 1).state is TrialState.COMPLETE
    assert worker_of(workspace) != first


def test_a_pruned_trial_ends_within_two_seconds_and_its_worker_goes_on(workspace, either, train):
    control, asked = TrialControl(), []

    def end():
        asked.append(time.monotonic())
        control.end(Verdict(TrialState.PRUNED, "pruned"))

    def on_epoch(epoch):
        if epoch.epoch == 3:
            threading.Thread(target=end).start()

    result = train(either, 0, epochs=FOREVER, on_epoch=on_epoch, control=control)
    assert time.monotonic() - asked[0] < 2
    assert result.state is TrialState.PRUNED
    assert workspace.trial(0).log.read_text().rstrip().endswith("Stopped by SIGTERM.")
    worker = worker_of(workspace)
    assert train(either, 1).state is TrialState.COMPLETE
    assert worker_of(workspace) == worker


def test_a_stop_that_comes_too_late_does_not_meet_the_next_trial(either, train):
    control = TrialControl()
    train(either, 0, control=control)
    late = []

    def on_epoch(epoch):
        if not late:
            late.append(control.end(Verdict(TrialState.PRUNED, "too late")))

    assert train(either, 1, on_epoch=on_epoch).state is TrialState.COMPLETE
    assert late


def test_another_environment_gets_another_worker(workspace, warm, train):
    train(warm, 0)
    train(warm, 1, slot=ONE_THREAD)
    train(warm, 2)
    assert len(processes_of(workspace)) == 2


def test_an_error_in_the_driver_ends_the_run_at_once(workspace, either, train):
    def fail(epoch):
        raise LookupError("a mistake of ours")

    with pytest.raises(LookupError):
        train(either, 0, epochs=FOREVER, on_epoch=fail)
    assert processes_of(workspace) == {}


def test_no_worker_is_left(workspace, cold, train):
    with kept_warm(cold) as runtime:
        train(runtime, 0)
        assert len(processes_of(workspace)) == 1
    assert processes_of(workspace) == {}


def test_workers_that_nothing_needs_any_more_give_their_memory_back(workspace, warm, train):
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda number: train(warm, number, slot=ONE_THREAD), range(2)))
    assert len(processes_of(workspace)) == 2
    warm.end_free_workers()
    assert processes_of(workspace) == {}
    assert train(warm, 2).state is TrialState.COMPLETE


def test_a_process_for_each_trial_can_be_had(cold, monkeypatch):
    with kept_warm(cold) as runtime:
        assert isinstance(runtime, WarmRuntime)
    monkeypatch.setenv("RML_COLD", "1")
    with kept_warm(cold) as runtime:
        assert runtime is cold


def test_on_a_gpu_a_worker_runs_its_trials_itself(workspace, monkeypatch):
    asked = []
    runtime = LocalRuntime(workspace, gpu=True)
    monkeypatch.setattr(runtime, "workplace", lambda *, in_process: asked.append(in_process))
    with kept_warm(runtime):
        assert asked == [True]
