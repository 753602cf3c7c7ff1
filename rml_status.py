"""How far a search has come that runs elsewhere: read from its study, and from the logs of its running trials."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from rml_optuna import NUM_TRIALS, ended_trials
from rml_search.hyperparameters import Hyperparameters
from rml_search.lock import is_held
from rml_search.paths import Workspace
from rml_search.progress import Progress, RunningTrial, best_so_far, settings_line, summary
from rml_search.search_space import LEARNING_RATE, LOSS, OPTIMIZER
from rml_storage import study_to_read
from rmldnn_contract.training_log import EpochRecord, TrainBatch, parse_line, read_epochs


def folder_progress(workspace: Workspace) -> Progress:
    """The search in a working directory.

    Raises:
        NoResultsError: there is none.
        StudyError: its study cannot be read.
    """
    with study_to_read(workspace) as study:
        return study_progress(study, workspace, is_running=is_held(workspace))


def study_progress(study: optuna.Study, workspace: Workspace | None, *, is_running: bool | None) -> Progress:
    """The search that a study tells of, whatever stores it.

    Args:
        workspace: where the logs of its trials are; None where only the study is within reach, which knows the
            accuracies.
        is_running: whether the search is at work; None where nobody can say.
    """
    trials = study.get_trials(deepcopy=False)
    settings = study.user_attrs.get("settings", {})
    num_trials = study.user_attrs.get(NUM_TRIALS)
    num_epochs = int(settings.get("--num-epochs", 1))
    at_work = (trial for trial in trials if trial.state is TrialState.RUNNING and _is_whole(trial))
    running = tuple(_running(trial, workspace, num_epochs) for trial in at_work)
    num_counted, num_pruned, num_failed, best, failures, mean_seconds = summary(ended_trials(trials, _is_whole))
    notes: tuple[str, ...] = ()
    if is_running is False:
        left = f": {len(running)} trials had not ended, the same command goes on" if running else ""
        notes = (f"No search is running here now{left}",)
    return Progress(
        settings_line(num_trials, settings),
        num_trials,
        num_counted,
        num_pruned,
        num_failed,
        running,
        best_so_far(best, running),
        failures,
        None,
        mean_seconds,
        is_running,
        notes,
    )


def _is_whole(trial: FrozenTrial) -> bool:
    return trial.params.keys() >= {OPTIMIZER, LOSS, LEARNING_RATE}


def _running(trial: FrozenTrial, workspace: Workspace | None, num_epochs: int) -> RunningTrial:
    log = None if workspace is None else workspace.trial(trial.number).log
    if log is not None and log.is_file():
        epochs, fraction = _read_log(log)
    else:
        reported = sorted(trial.intermediate_values.items())
        epochs = tuple(EpochRecord(epoch, num_epochs, accuracy) for epoch, accuracy in reported)
        fraction = epochs[-1].epoch / num_epochs if epochs else 0.0
    begun = trial.datetime_start
    seconds = 0.0 if begun is None else max(0.0, (datetime.now() - begun).total_seconds())
    hyperparameters = str(Hyperparameters.from_point(trial.params))
    return RunningTrial(trial.number, hyperparameters, epochs, num_epochs, seconds, min(1.0, fraction))


def _read_log(log: Path) -> tuple[tuple[EpochRecord, ...], float]:
    """The epochs of a log, and the share of the training that is done (0 to 1) by its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    epochs = tuple(read_epochs(lines))
    fraction = epochs[-1].epoch / epochs[-1].num_epochs if epochs else 0.0
    batches = (parse_line(line) for line in reversed(lines))
    last = next((batch for batch in batches if isinstance(batch, TrainBatch)), None)
    if last is not None and last.num_batches and last.num_epochs:
        fraction = max(fraction, (last.epoch - 1 + last.batch / last.num_batches) / last.num_epochs)
    return epochs, fraction
