"""``--mlflow``: the runs as MLflow's own client reads them, of a database and of MLflow's own server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from rml_search.hyperparameters import Hyperparameters
from rml_search.results import TrialRecord, TrialState
from rml_search.tracking import PastTrial
from rml_search.tracking_choice import TrackingChoice
from rml_tracking.mlflow_runs import open_mlflow_log
from rmldnn_contract.training_log import EpochRecord

EXPERIMENT = "rml-optimization"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A database with MLflow's tables, whose making takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def database(empty_database, tmp_path) -> str:
    """The address of a database of one's own."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def runs(address):
    """The runs of the experiment, by trial, each as its state, its status, and what was logged."""
    from mlflow import MlflowClient

    client = MlflowClient(address)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    names = ("accuracy", "test_loss", "train_loss", "best_accuracy")
    numbers = [int(run.data.tags["trial"]) for run in found]
    assert len(set(numbers)) == len(numbers)
    return {
        int(run.data.tags["trial"]): (
            run,
            {
                name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
                for name in names
            },
        )
        for run in found
    }


def test_a_search_is_there_trial_by_trial(search_tracked, three_fates, short, database):
    runtime = three_fates()
    assert search_tracked(runtime, TrackingChoice(mlflow=database), short, num_trials=3) == []
    found = runs(database)
    run, metrics = found[0]
    assert (run.info.run_name, run.info.status, run.data.tags["state"]) == ("trial 0", "FINISHED", "complete")
    assert metrics["accuracy"] == [(1, 0.5), (2, 0.7), (3, 0.6)]
    assert metrics["test_loss"] == [(1, 0.6603), (2, 0.6603), (3, 0.6603)]
    assert metrics["train_loss"] == [(1, 0.7028)]
    assert metrics["best_accuracy"] == [(2, 0.7)]
    assert run.data.metrics["best_epoch"] == 2
    document = runtime.documents[0]
    assert run.data.params["optimizer"] == document["optimizer"]["type"].lower()
    assert float(run.data.params["learning_rate"]) == document["optimizer"]["learning_rate"]
    assert run.data.params["loss"] == document["loss"]["function"].lower()
    run, metrics = found[1]
    assert (run.info.status, run.data.tags["state"]) == ("FAILED", "failed")
    assert "out of luck" in run.data.tags["reason"]
    assert (metrics["accuracy"], metrics["best_accuracy"]) == ([(1, 0.25)], [])
    run, metrics = found[2]
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "pruned")
    assert run.data.tags["reason"] == "stopped after 1.5 s (--trial-timeout)"
    assert metrics["best_accuracy"] == [(1, 0.5)]


def test_going_on_logs_what_is_new_and_nothing_twice(search_tracked, scripted, script, database):
    choice = TrackingChoice(mlflow=database)
    search_tracked(scripted(script([0.5])), TrackingChoice(), num_trials=1)
    search_tracked(scripted(script([0.6])), choice, num_trials=2)
    search_tracked(scripted(script([0.7])), choice, num_trials=3)
    # The first one was run before anybody asked for MLflow.
    assert {number: metrics["accuracy"] for number, (_, metrics) in sorted(runs(database).items())} == {
        0: [(1, 0.5)],
        1: [(1, 0.6)],
        2: [(1, 0.7)],
    }


def test_a_trial_that_was_killed_gets_its_end_and_other_searches_stay(database):
    epochs = (EpochRecord(1, 3, 0.5), EpochRecord(2, 3, 0.25))
    point = Hyperparameters("adam", "bce", 0.1)
    other = open_mlflow_log(database, EXPERIMENT, "another", "/there")
    other.begin(8, point, 1000.0)
    killed = open_mlflow_log(database, EXPERIMENT, "this one", "/here")
    killed.begin(7, point, 1000.0)
    killed.begin(7, point, 1000.0)  # the answer was lost on its way
    killed.add_epoch(7, epochs[0], 1001.0)
    record = TrialRecord(None, "adam", 0.1, "bce", None, 7, TrialState.FAILED, 2.0, "the search was killed")
    for _ in range(2):
        again = open_mlflow_log(database, EXPERIMENT, "this one", "/here")
        again.catch_up([PastTrial(record, epochs, 1002.0)])
    found = runs(database)
    assert sorted(found) == [7, 8]
    run, metrics = found[7]
    assert (run.info.status, run.data.tags["reason"], run.info.end_time) == ("FAILED", "the search was killed", 1002000)
    assert metrics["accuracy"] == [(1, 0.5), (2, 0.25)]
    assert found[8][0].info.status == "RUNNING"


class Server:
    """MLflow's own tracking server, on the loopback device."""

    def __init__(self, database: str, folder: Path) -> None:
        self.database, self.folder = database, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        arguments = ["--backend-store-uri", self.database, "--host", "127.0.0.1", "--port", str(self.port)]
        command = [sys.executable, "-m", "mlflow", "server", "--gunicorn-opts", "--workers 1", *arguments]
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/health", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.mark.timeout(600)
def test_a_server_that_goes_away_does_not_end_a_search_and_gets_the_rest_later(
    search_tracked, scripted, script, database, tmp_path, workspace
):
    server = Server(database, tmp_path)
    choice = TrackingChoice(mlflow=server.address)
    try:
        server.start()
        assert search_tracked(scripted(script([0.5])), choice, num_trials=1) == []
        server.stop()
        resuming, away, rest = search_tracked(scripted(script([0.6]), script([0.75])), choice, num_trials=3)
        assert resuming == "Resuming: 1 of 3 trials have run"
        assert away.startswith(f"MLflow at {server.address} is unavailable, the search continues without it: ")
        assert (
            rest
            == f"Not everything was logged to MLflow at {server.address}: run the same command again to log the rest"
        )
        assert workspace.best_checkpoint.read_text().endswith("0002/checkpoints: epoch 1")
        assert list(runs(database)) == [0]
        server.start()
        notes = search_tracked(scripted(), choice, num_trials=3)
        assert notes == ["All 3 trials have run: increase --num-trials to add more"]
        accuracies = {number: metrics["accuracy"] for number, (_, metrics) in sorted(runs(server.address).items())}
        assert accuracies == {0: [(1, 0.5)], 1: [(1, 0.6)], 2: [(1, 0.75)]}
    finally:
        server.stop()
