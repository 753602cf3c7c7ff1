"""The study: which hyperparameters are tried, what a trial is worth, and which is the best.

The only module that imports Optuna.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import optuna
from optuna.trial import TrialState as OptunaState
from sqlalchemy import URL

from rml_search.errors import AllTrialsFailedError, EngineFailedError
from rml_search.hyperparameters import Hyperparameters
from rml_search.interruption import interruptions_allowed, uninterrupted
from rml_search.observer import SearchObserver
from rml_search.options import SearchOptions
from rml_search.paths import Workspace, shown, write_atomically
from rml_search.results import (
    TrialResult,
    TrialState,
    best_trial,
    drop_checkpoints,
    keep_best_model,
    write_list_acc,
)
from rml_search.runtime.base import Runtime
from rml_search.trial import TrialRunner
from rml_search.trial_config import inference_configuration
from rmldnn_contract.training_log import EpochRecord

STUDY_NAME = "rml-optimization"

#: So many failures in a row, with no success before them, end a search.
MAX_FAILURES_AT_START = 3

_STATES = {TrialState.COMPLETE: OptunaState.COMPLETE, TrialState.FAILED: OptunaState.FAIL}


@dataclass
class Search:
    """A search in a working directory that holds no earlier one.

    After every trial ``list_acc.json`` is rewritten, and ``best_model/`` holds the best model so far:
    an interruption loses the trial that was running and nothing else.
    """

    options: SearchOptions
    workspace: Workspace
    runtime: Runtime
    observer: SearchObserver
    results: list[TrialResult] = field(default_factory=list)

    @property
    def best(self) -> TrialResult | None:
        """The best trial so far."""
        return best_trial(self.results)

    def run(self) -> None:
        """Runs all trials.

        Raises:
            AllTrialsFailedError: nothing has worked, several times in a row.
            EngineFailedError: a trial failed for a reason that every other one shares.
            Interrupted: the person or the system wants the search to end; what had finished is kept.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = create_study(self.workspace, self.options.seed)
        # A copy of its own, since the person may change the file while the search runs.
        self.workspace.trials.mkdir(exist_ok=True)
        write_atomically(self.workspace.trial_layers, self.options.layers.read_text(encoding="utf-8-sig"))
        self.options = replace(self.options, layers=self.workspace.trial_layers)
        runner = TrialRunner(self.options, self.workspace, self.runtime)
        for _ in range(self.options.num_trials):
            result = self._run_trial(study, runner)
            self._stop_if_hopeless(result)
        if self.best is None:
            raise self._all_failed(self.results[-1])

    def _run_trial(self, study: optuna.Study, runner: TrialRunner) -> TrialResult:
        """Runs one trial. A signal breaks off its training and nothing else: the study is told how it ended."""
        with uninterrupted():
            trial = study.ask()
            hyperparameters = suggest(trial, self.options)
            started = time.monotonic()
            epochs: list[EpochRecord] = []

            def on_epoch(epoch: EpochRecord) -> None:
                epochs.append(epoch)
                if epoch.accuracy is not None:
                    with uninterrupted():
                        trial.report(epoch.accuracy, step=epoch.epoch)
                self.observer.epoch_finished(trial.number, epoch)

            try:
                with interruptions_allowed():
                    self.observer.trial_started(trial.number, hyperparameters)
                    result = runner.run(trial.number, hyperparameters, on_epoch)
            except BaseException as error:
                reason = str(error) if isinstance(error, Exception) else "interrupted"
                seconds = time.monotonic() - started
                result = TrialResult(trial.number, hyperparameters, TrialState.FAILED, tuple(epochs), seconds, reason)
                self._finish(study, trial, result)
                raise
            self._finish(study, trial, result)
        return result

    def _finish(self, study: optuna.Study, trial: optuna.Trial, result: TrialResult) -> None:
        self.results.append(result)
        self._keep_checkpoint(result)
        record = result.to_record()
        for key in ("epoch_max_acc", "seconds", "reason"):
            trial.set_user_attr(key, getattr(record, key))
        study.tell(trial, result.max_accuracy, state=_STATES[result.state])
        write_list_acc(self.workspace, [finished.to_record() for finished in self.results])
        self.observer.trial_finished(result, self.best)

    def _keep_checkpoint(self, result: TrialResult) -> None:
        trial = self.workspace.trial(result.number)
        epoch = result.best_epoch
        if self.best is result and epoch is not None:
            configuration = inference_configuration(self.options, result.hyperparameters.loss, self.workspace)
            keep_best_model(self.workspace, trial.checkpoint(epoch.epoch), self.options.layers, configuration)
        drop_checkpoints(trial, keep=())

    def _stop_if_hopeless(self, result: TrialResult) -> None:
        if result.every_trial_would_fail and result.exit_status is not None:
            raise EngineFailedError(f"trial {result.number} failed: {result.reason}", int(result.exit_status))
        if self.best is None and len(self.results) >= MAX_FAILURES_AT_START:
            raise self._all_failed(result)

    def _all_failed(self, last: TrialResult) -> AllTrialsFailedError:
        return AllTrialsFailedError(
            f"all {len(self.results)} trials have failed, the last one because {last.reason}; "
            f"their logs are in {shown(self.workspace.trials)}"
        )


def create_study(workspace: Workspace, seed: int | None) -> optuna.Study:
    """A new study in ``study.db``, which maximises."""
    return optuna.create_study(
        storage=storage_url(workspace),
        study_name=STUDY_NAME,
        sampler=optuna.samplers.TPESampler(seed=seed),
        direction="maximize",
    )


def storage_url(workspace: Workspace) -> str:
    """The address of ``study.db``, whatever characters its path has."""
    return URL.create("sqlite", database=str(workspace.study_database)).render_as_string()


def suggest(trial: optuna.Trial, options: SearchOptions) -> Hyperparameters:
    """The hyperparameters of a trial: optimizer and loss categorical, the learning rate log-uniform."""
    low, high = options.lr_range
    return Hyperparameters(
        optimizer=_category(trial, "optimizer", options.optimizers),
        loss=_category(trial, "loss", options.losses),
        learning_rate=trial.suggest_float("learning_rate", low, high, log=True),
    )


def _category(trial: optuna.Trial, name: str, choices: Sequence[str]) -> str:
    choice = trial.suggest_categorical(name, choices)
    if not isinstance(choice, str):
        raise TypeError(f"{name} should be one of {choices}, not {choice!r}")
    return choice
