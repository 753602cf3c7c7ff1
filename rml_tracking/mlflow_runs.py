"""Trials in MLflow: a run for each, with its hyperparameters, its metrics by epoch and how it has ended.

The only module that imports MLflow. Optuna's own callback logs no epochs, and only what ``study.optimize`` has run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# Nobody is told of searches but those whom the person names, and a server that is away is asked again later. MLflow
# reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag

from rml_search.hyperparameters import Hyperparameters
from rml_search.results import TrialRecord, TrialState
from rml_search.tracking import PastTrial
from rmldnn_contract.training_log import EpochRecord

#: MLflow's own variable, as for its own programs.
_EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
_STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAILED: "FAILED"}
_MAX_REASON = 500
_MAX_METRICS = 900  #: of one request; MLflow takes a thousand


@dataclass
class MlflowLog:
    """The runs of one search; the ``TrialLog`` of ``rml_search.tracking``.

    Attributes:
        study: tells this search from all others.
        folder: of the search, to be shown.
    """

    client: MlflowClient
    experiment: str
    study: str
    folder: str
    _runs: dict[int, str] = field(default_factory=dict)

    def begin(self, number: int, hyperparameters: Hyperparameters, when: float) -> None:
        """Makes the trial's run, unless a lost answer has left it there."""
        for run in self._search(f"tags.trial = '{number}'"):
            self._runs[number] = run.info.run_id
        if number not in self._runs:
            tags = {"study": self.study, "trial": str(number), "state": "running", "folder": self.folder}
            name = f"trial {number}"
            run = self.client.create_run(self.experiment, start_time=_milliseconds(when), tags=tags, run_name=name)
            self._runs[number] = run.info.run_id
        params = [Param(name, str(value)) for name, value in hyperparameters.point.items()]
        self.client.log_batch(self._runs[number], params=params)

    def add_epoch(self, number: int, epoch: EpochRecord, when: float) -> None:
        """Accuracy and losses, whose steps are the epochs."""
        self.client.log_batch(self._runs[number], _epoch_metrics(epoch, when))

    def end(self, record: TrialRecord, when: float) -> None:
        """The best accuracy, the state and why; a pruned trial's run was killed, as MLflow calls it."""
        measured = {"best_accuracy": record.max_acc, "best_epoch": record.epoch_max_acc, "seconds": record.seconds}
        tags = {"state": record.state.value, "reason": (record.reason or "")[:_MAX_REASON]}
        run = self._runs[record.number]
        metrics = _metrics(measured, when, record.epoch_max_acc or 0)
        self.client.log_batch(run, metrics, tags=[RunTag(name, value) for name, value in tags.items()])
        self.client.set_terminated(run, _STATUS[record.state], _milliseconds(when))

    def catch_up(self, trials: Sequence[PastTrial]) -> None:
        """Makes the runs that are missing, and ends those that a killed search has left running."""
        ended = {run.data.tags["trial"] for run in self._search() if run.info.status != "RUNNING"}
        for trial in trials:
            number = trial.record.number
            if str(number) in ended:
                continue
            self.begin(number, Hyperparameters.from_point(trial.record.point), trial.ended - trial.record.seconds)
            there = {metric.step for metric in self.client.get_metric_history(self._runs[number], "accuracy")}
            missing = [epoch for epoch in trial.epochs if epoch.epoch not in there]
            metrics = [metric for epoch in missing for metric in _epoch_metrics(epoch, trial.ended)]
            for first in range(0, len(metrics), _MAX_METRICS):
                self.client.log_batch(self._runs[number], metrics[first : first + _MAX_METRICS])
            self.end(trial.record, trial.ended)

    def close(self) -> None:
        """Each step was stored when it was taken."""

    def _search(self, *conditions: str) -> list[Run]:
        found: list[Run] = []
        token: str | None = None
        while True:
            wanted = " and ".join([f"tags.study = '{self.study}'", *conditions])
            page = self.client.search_runs([self.experiment], wanted, page_token=token)
            found += page
            token = page.token
            if not token:
                return found


def open_mlflow_log(address: str, experiment: str, study: str, folder: str) -> MlflowLog:
    """Connects to a tracking server or a database; ``experiment`` is made where there is none of that name."""
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    client = MlflowClient(address)
    name = os.environ.get(_EXPERIMENT_VARIABLE, experiment)
    found = client.get_experiment_by_name(name)
    identity = client.create_experiment(name) if found is None else found.experiment_id
    return MlflowLog(client, identity, study, folder)


def _epoch_metrics(epoch: EpochRecord, when: float) -> list[Metric]:
    measured = {"accuracy": epoch.accuracy, "test_loss": epoch.test_loss, "train_loss": epoch.train_loss}
    return _metrics(measured, when, epoch.epoch)


def _metrics(measured: Mapping[str, float | None], when: float, step: int) -> list[Metric]:
    """What there is of these values."""
    return [
        Metric(name, float(value), _milliseconds(when), step) for name, value in measured.items() if value is not None
    ]


def _milliseconds(when: float) -> int:
    return round(1000 * when)
