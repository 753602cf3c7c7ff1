"""Containers that outlive their trials, on a real Docker engine, compared with those that serve one trial."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rml_search.results import TrialState
from rml_search.runtime.docker import LABEL, DockerRuntime
from rml_search.runtime.local import LocalRuntime
from rml_search.runtime.warm import WarmRuntime, kept_warm
from rml_search.trial_control import TrialControl, Verdict

from .test_local import write_network
from .test_warm import FOREVER, ONE_THREAD, is_soon_true, traces, train

pytestmark = pytest.mark.docker

__all__ = ["train"]  # a fixture


@pytest.fixture
def cold(workspace, docker_image):
    for number in range(7):
        write_network(workspace, filters=1, activation="sigmoid")
        if number:
            workspace.trial_layers(number).write_bytes(workspace.trial_layers(0).read_bytes())
    return DockerRuntime(workspace, docker_image, gpu=False)


@pytest.fixture
def warm(cold):
    with kept_warm(cold) as runtime:
        assert isinstance(runtime, WarmRuntime)
        yield runtime


@pytest.fixture
def containers(docker_client, workspace):
    """Lists the containers of this folder, those that have ended included; none may be left at the end."""
    labels = {"label": f"{LABEL}={workspace.root}"}
    yield lambda: docker_client.containers.list(all=True, filters=labels, ignore_removed=True)
    for container in docker_client.containers.list(all=True, filters=labels, ignore_removed=True):
        container.remove(force=True)


def run_in(container):
    """The number that the machine knows the run by: the last of the chain init, relay, worker, run."""
    about = container.top(ps_args="-eo pid,ppid")
    parents = {int(process): int(parent) for process, parent in about["Processes"]}
    (run,) = parents.keys() - parents.values()
    return run


# --- the same numbers ----------------------------------------------------------------------------------


def test_warm_containers_print_and_write_what_cold_ones_do(workspace, cold, warm, train, containers):
    for number, optimizer in enumerate(["adam", "lars", "adam"]):
        assert train(warm, number, optimizer, slot=ONE_THREAD).state is TrialState.COMPLETE
        assert train(cold, number + 3, optimizer, slot=ONE_THREAD).state is TrialState.COMPLETE
        assert traces(workspace, number) == traces(workspace, number + 3)
    assert len(containers()) == 1, "not one container has served all three"
    files = [path for number in range(6) for path in workspace.trial(number).checkpoints.iterdir()]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(os.getuid(), os.getgid())}


def test_containers_beside_each_other_print_what_a_process_alone_does(workspace, warm, train, containers):
    assert train(LocalRuntime(workspace, gpu=False), 0, slot=ONE_THREAD).state is TrialState.COMPLETE
    with ThreadPoolExecutor(2) as threads:
        results = threads.map(lambda number: train(warm, number, slot=ONE_THREAD), range(1, 5))
        assert [result.state for result in results] == [TrialState.COMPLETE] * 4
    assert len(containers()) == 2
    for number in range(1, 5):
        lines, checkpoints = traces(workspace, number)
        assert (epochs(lines), checkpoints) == (epochs(traces(workspace, 0)[0]), traces(workspace, 0)[1])


def epochs(lines):
    found = [line for line in lines if " Epoch [" in line]
    assert len(found) > 2
    return found


def test_a_failure_is_told_as_a_cold_one_tells_it(workspace, cold, warm, train):
    train(warm, 0)
    next((workspace.root / "data" / "train" / "inputs").iterdir()).write_text("no image")
    results = [train(warm, 1), train(cold, 2)]
    assert results[0].reason == results[1].reason
    assert "is no image that can be read" in results[0].reason
    assert results[0].exit_status == results[1].exit_status
    assert results[0].exit_status is not None


# --- ends and deaths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dies", ["container", "run"])
def test_a_death_costs_the_trial_alone(warm, train, containers, dies):
    def kill(epoch):
        if epoch.epoch == 1:
            (container,) = containers()
            if dies == "container":
                container.kill()
            else:
                os.kill(run_in(container), signal.SIGKILL)

    result = train(warm, 0, epochs=FOREVER, on_epoch=kill, slot=ONE_THREAD)
    assert (result.state, result.reason) == (TrialState.FAILED, "the engine was stopped by SIGKILL")
    assert result.is_machines_fault
    assert train(warm, 1, slot=ONE_THREAD).state is TrialState.COMPLETE
    assert len(containers()) == 1


def test_a_container_that_dies_beside_another_costs_its_own_trial(warm, train, containers):
    first, has_begun = [], threading.Event()

    def note(epoch):
        if not first:
            first.extend(containers())
            has_begun.set()

    def kill(epoch):
        if epoch.epoch == 1:
            first[0].kill()

    with ThreadPoolExecutor(1) as thread:
        lost = thread.submit(train, warm, 0, epochs=FOREVER, on_epoch=note, slot=ONE_THREAD)
        assert has_begun.wait(120)
        assert train(warm, 1, on_epoch=kill, slot=ONE_THREAD).state is TrialState.COMPLETE
    assert (lost.result().state, lost.result().is_machines_fault) == (TrialState.FAILED, True)
    assert train(warm, 2, slot=ONE_THREAD).state is TrialState.COMPLETE


def test_a_container_that_died_idle_is_replaced(warm, train, containers):
    train(warm, 0, slot=ONE_THREAD)
    (first,) = containers()
    first.kill()
    assert is_soon_true(lambda: all(container.status == "exited" for container in containers()))
    assert train(warm, 1, slot=ONE_THREAD).state is TrialState.COMPLETE
    assert containers() != [first]


def test_a_pruned_trial_ends_within_two_seconds_and_its_container_goes_on(workspace, warm, train, containers):
    control, asked = TrialControl(), []

    def end():
        asked.append(time.monotonic())
        control.end(Verdict(TrialState.PRUNED, "pruned"))

    def on_epoch(epoch):
        if epoch.epoch == 3:
            threading.Thread(target=end).start()

    result = train(warm, 0, epochs=FOREVER, on_epoch=on_epoch, control=control, slot=ONE_THREAD)
    assert time.monotonic() - asked[0] < 2
    assert result.state is TrialState.PRUNED
    assert workspace.trial(0).log.read_text().rstrip().endswith("Stopped by SIGTERM.")
    before = containers()
    assert train(warm, 1, slot=ONE_THREAD).state is TrialState.COMPLETE
    assert containers() == before


def test_a_run_that_does_not_obey_is_killed_with_its_container(warm, train, containers):
    control = TrialControl()

    def on_epoch(epoch):
        if epoch.epoch == 1:
            os.kill(run_in(*containers()), signal.SIGSTOP)
            threading.Thread(target=control.end, args=(Verdict(TrialState.PRUNED, "pruned"),)).start()

    assert train(warm, 0, epochs=FOREVER, on_epoch=on_epoch, control=control, slot=ONE_THREAD).state in TrialState
    assert containers() == []
    assert train(warm, 1, slot=ONE_THREAD).state is TrialState.COMPLETE


def test_an_error_in_the_driver_ends_the_container_at_once(warm, train, containers):
    def fail(epoch):
        raise LookupError("a mistake of ours")

    with pytest.raises(LookupError):
        train(warm, 0, epochs=FOREVER, on_epoch=fail)
    assert containers() == []


def test_no_container_is_left(cold, train, containers):
    with kept_warm(cold) as runtime:
        train(runtime, 0)
        (container,) = containers()
        assert f"{LABEL}.trial" not in container.labels
        assert container.labels[f"{LABEL}.serves"] == "search"
    assert containers() == []


# --- which images --------------------------------------------------------------------------------------


def test_a_container_for_each_trial_can_be_had(cold, monkeypatch):
    monkeypatch.setenv("RML_COLD", "1")
    with kept_warm(cold) as runtime:
        assert runtime is cold


def test_an_image_without_the_label_gets_a_container_for_each_trial(workspace, docker_client):
    runtime = DockerRuntime(workspace, "debian:bookworm-slim", gpu=False)
    with kept_warm(runtime) as kept:
        assert kept is runtime


def test_leftovers_are_those_of_this_folder(workspace, cold, containers, docker_client):
    labels = {LABEL: str(workspace.root / "another"), f"{LABEL}.serves": "search"}
    image, own_labels = "debian:bookworm-slim", {**labels, LABEL: str(workspace.root)}
    other = docker_client.containers.create(image, "true", labels=labels)
    try:
        ours = docker_client.containers.create(image, "true", labels=own_labels)
        assert containers() == [ours]
        cold.remove_leftovers()
        assert containers() == []
        other.reload()
    finally:
        other.remove()
