"""Drivers and engines of a real search are killed at random moments; then the search is completed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna
import pytest

from rml_optuna import STUDY_NAME
from rml_search.best_model import file_digest
from rml_search.paths import Workspace
from rml_search.results import best_record, read_list_acc
from rml_search.synthetic import write_synthetic_data
from rml_study.storage import storage_url

from ..faults import NUM_KILLS, NUM_TRIALS, FaultySearch

CHECKOUT = Path(__file__).resolve().parents[2]
#: However often the test kills the engines of one trial, it is not the trial's fault.
TRIES = ["--retries", "100", "--max-consecutive-failures", "100"]

#: What the command lines of engines hold: one started for its trial, and one that outlives it.
MARKS = ("config=", "rmldnn_torch.worker")


def command(num_trials: int, num_epochs: int = 3) -> list[str]:
    options = [
        "--num-trials",
        str(num_trials),
        "--num-epochs",
        str(num_epochs),
        "--optimizers",
        "adam,sgd",
        "--loss",
        "bce,dice",
    ]
    options += ["--runtime", "local", "--no-gpu", "--image-size", "32", "32", "--batch-size", "4", "--seed", "3"]
    return [sys.executable, str(CHECKOUT / "rml_optimization.py"), *options, "--jobs", "2", "--pruner", "none", *TRIES]


def engines_of(workspace: Workspace) -> list[int]:
    """The numbers of the processes of engines in the folder, as proc(5) tells them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_text().split("\0")
            if (process / "cwd").readlink() == workspace.root and any(mark in word for word in words for mark in MARKS):
                found.append(int(process.name))
    return found


def kill(process: int) -> None:
    """Kills a process, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def parent_of(process: int) -> int:
    """The number of the process that has started it."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def write_search_files(folder: Path) -> None:
    """Images and a network for searches of seconds."""
    write_synthetic_data(folder / "data", num_train=8, num_test=4, size=32, seed=0)
    convolution = {"filters": 4, "kernel_size": [3, 3], "padding": "same"}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "data", "batch_input_shape": [None, None, None, 1]}},
        {"class_name": "Conv2D", "config": {"name": "a", "activation": "relu", **convolution}},
        {"class_name": "Conv2D", "config": {"name": "b", "activation": "sigmoid", **convolution, "filters": 1}},
    ]
    (folder / "layers.json").write_text(json.dumps(layers))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_whenever_the_driver_or_an_engine_is_killed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_search_files(tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(num_trials: int) -> subprocess.Popen[str]:
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command(num_trials), cwd=tmp_path, env=environment, **output)

    def engines() -> list[Callable[[], object]]:
        return [partial(kill, process) for process in engines_of(workspace)]

    faults = FaultySearch(workspace, start, engines, longest_seconds=6.0)
    faults.run()
    print(faults.table("processes"))
    faults.check()
    assert (faults.num_kills, faults.lost, faults.engines_left()) == (NUM_KILLS, set(), 0)
    assert faults.num_failures >= 5
    assert any(record.tried_again for record in faults.ended.values()), "no kill has met a trial at work"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_killed_worker_costs_its_trial_alone(tmp_path: Path) -> None:
    """Two trials at a time; the processes of one die at work, and its hyperparameters are tried again."""
    workspace = Workspace(tmp_path)
    write_search_files(tmp_path)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(
        command(NUM_TRIALS, num_epochs=40), cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        log = workspace.trial(1).test_file
        deadline = time.monotonic() + 120
        while not (log.exists() and len(log.read_text().splitlines()) > 2) and time.monotonic() < deadline:
            time.sleep(0.01)
        workers = [process for process in engines_of(workspace) if parent_of(process) == driver.pid]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert driver.wait(240) == 0
    finally:
        driver.kill()
        driver.wait()
    check(workspace)
    assert sum(record.tried_again for record in read_list_acc(workspace)) == 1
    assert engines_of(workspace) == []


def check(workspace: Workspace) -> None:
    records = read_list_acc(workspace)
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage_url(workspace))
    counted = [record for record in records if not record.tried_again]
    assert len(counted) == NUM_TRIALS
    assert all(record.state.value == "complete" for record in counted)
    assert any(record.tried_again for record in records), "no kill has met a trial at work"
    told = {trial.number: trial for trial in study.trials if "duplicates" not in trial.user_attrs and trial.params}
    for record in records:
        assert told[record.number].value == record.max_acc
    best = best_record(records)
    assert best is not None
    assert file_digest(workspace.best_checkpoint) == best.checkpoint_sha256
    epochs = workspace.trial(best.number).test_file.read_text().split()
    assert str(best.epoch_max_acc) in epochs
    assert list(workspace.trials.glob("*/checkpoints/model_checkpoint_*")) == []
    assert list(workspace.root.rglob("*.tmp")) == []
