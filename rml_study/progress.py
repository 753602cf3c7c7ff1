"""How far a search has come: read from its study, and from the logs of its running trials."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from rml_search.driver import parse_driver
from rml_search.errors import NoResultsError
from rml_search.heartbeats import ENDED
from rml_search.hyperparameters import Hyperparameters
from rml_search.paths import Workspace
from rml_search.progress import Progress, RunningTrial, settings_line, tally
from rml_search.search_space import LEARNING_RATE, LOSS, OPTIMIZER
from rml_study.records import BEAT, DRIVER, NUM_TRIALS, SETTINGS, beats_of, ended_trials
from rmldnn_contract.training_log import EpochRecord, TrainBatch, parse_line, read_epochs


def study_progress(study: optuna.Study, workspace: Workspace | None = None, again: Progress | None = None) -> Progress:
    """The search that a study tells of, whatever stores it.

    Args:
        workspace: where the logs of its trials are, if not with the drivers that share it.
        again: the best trials trained again.

    Raises:
        NoResultsError: it is none of a search.
    """
    trials, attributes = study.get_trials(deepcopy=False), study.user_attrs
    if SETTINGS not in attributes:
        whose = "was made by another program" if trials else "is empty: no search has been started in it"
        raise NoResultsError(f"the study {study.study_name} {whose}")
    num_trials = attributes.get(NUM_TRIALS)
    running = running_trials(trials, attributes, workspace, reads_logs=True)
    is_running = _is_running(attributes)
    if again is not None and again.is_running:
        is_running = True
    return Progress(
        settings=settings_line(num_trials, attributes[SETTINGS]),
        num_trials=num_trials,
        tally=tally(ended_trials(trials, _is_whole)),
        running=tuple(running),
        has_front=len(study.directions) > 1,
        is_running=is_running,
        notes=tuple(_notes(is_running, running, _drivers(attributes))),
        again=again,
    )


def running_trials(
    trials: Sequence[FrozenTrial],
    attributes: Mapping[str, Any],
    workspace: Workspace | None = None,
    *,
    reads_logs: bool = False,
) -> list[RunningTrial]:
    """Those that have begun and not ended, by number.

    Args:
        attributes: of the study.
        workspace: where their logs are, if not with the drivers that share the study.
        reads_logs: whether logs that are within reach are asked; else only the study is.
    """
    at_work = [trial for trial in trials if trial.state is TrialState.RUNNING and _is_whole(trial)]
    return [_running(trial, attributes, workspace, reads_logs=reads_logs) for trial in at_work]


def _is_whole(trial: FrozenTrial) -> bool:
    return trial.params.keys() >= {OPTIMIZER, LOSS, LEARNING_RATE}


def _running(
    trial: FrozenTrial, attributes: Mapping[str, Any], workspace: Workspace | None, *, reads_logs: bool
) -> RunningTrial:
    name = str(trial.user_attrs.get(DRIVER, attributes.get(DRIVER, "")))
    driver, folder = parse_driver(name), attributes.get(BEAT + name, {}).get("folder")
    if workspace is None and folder is not None and driver is not None and driver.host == socket.gethostname():
        workspace = Workspace(Path(folder))
    log = None if workspace is None or not reads_logs else workspace.trial(trial.number).log
    num_epochs = int(attributes.get(SETTINGS, {}).get("--num-epochs", 1))
    if log is not None and log.is_file():
        epochs, fraction = _read_log(log)
    else:
        reported = sorted(trial.intermediate_values.items())
        epochs = tuple(EpochRecord(epoch, num_epochs, accuracy) for epoch, accuracy in reported)
        fraction = epochs[-1].epoch / num_epochs if epochs else 0.0
    begun = trial.datetime_start
    return RunningTrial(
        trial.number,
        Hyperparameters.from_point(trial.params),
        epochs,
        num_epochs,
        seconds=0.0 if begun is None else max(0.0, (datetime.now() - begun).total_seconds()),
        fraction=min(1.0, fraction),
        place=str(driver) if driver is not None and DRIVER in trial.user_attrs else None,
        is_left=DRIVER in {*trial.user_attrs, *attributes} and _is_at_work(name, attributes) is False,
    )


def _read_log(log: Path) -> tuple[tuple[EpochRecord, ...], float]:
    """The epochs of a log, and the share of the training that is done (0 to 1) by its last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    epochs = tuple(read_epochs(lines))
    fraction = epochs[-1].epoch / epochs[-1].num_epochs if epochs else 0.0
    batches = (parse_line(line) for line in reversed(lines))
    last = next((batch for batch in batches if isinstance(batch, TrainBatch)), None)
    return epochs, fraction if last is None else max(fraction, last.share_of_training)


# --- drivers -----------------------------------------------------------------------------------------------


def _drivers(attributes: Mapping[str, Any]) -> dict[str, bool | None]:
    """Who works on a study, or has: whether they still do; None where nobody here can say."""
    names = [*beats_of(attributes), *([attributes[DRIVER]] if DRIVER in attributes else [])]
    return {name: _is_at_work(name, attributes) for name in names}


def _is_at_work(name: str, attributes: Mapping[str, Any]) -> bool | None:
    driver, beat = parse_driver(name), beats_of(attributes).get(name)
    has_ended = beat is not None and beat.number == ENDED
    if not name or has_ended or (driver is not None and driver.is_gone):
        return False
    return True if driver is not None and driver.is_here else None


def _is_running(attributes: Mapping[str, Any]) -> bool | None:
    states = set(_drivers(attributes).values())
    if True in states:
        return True
    return False if states == {False} else None


def _notes(
    is_running: bool | None, running: Sequence[RunningTrial], drivers: Mapping[str, bool | None]
) -> Iterable[str]:
    num_left = sum(trial.is_left for trial in running)
    left = f"{num_left} trial{'s' * (num_left > 1)} had not finished"
    if is_running is False:
        yield "No search is running" + (f": {left}, run the same command again to resume" if num_left else "")
    elif num_left:
        yield f"{left} when a driver was lost: another driver retries"
    unknown = [str(parse_driver(name) or name) for name, state in drivers.items() if state is None]
    if unknown:
        yield f"Cannot tell whether these drivers are still running: {', '.join(unknown)}"
