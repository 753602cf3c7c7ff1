"""The report of a search: read its study as it stands, draw, and write one page.

Reads ``study.db`` through a copy in memory, so that a search may go on meanwhile: nothing is locked or written there,
nor in a storage that drivers share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from rml_report.comparison import importance_shares
from rml_report.plots import draw_plots, plotly_script
from rml_search.confirmation import read_kept_winner
from rml_search.errors import NoResultsError, WriteError
from rml_search.folder import is_folder_of
from rml_search.inference import read_test_accuracy
from rml_search.options import SharedChoice
from rml_search.paths import Workspace, shown
from rml_search.report.page import Page, render_page
from rml_search.report.pictures import Gallery, load_gallery
from rml_search.report.summary import Confirmation, Dimension, State, StudySummary, TrialSummary, Value
from rml_search.results import TrialRecord, read_list_acc
from rml_search.run_record import read_runs
from rml_search.search_space import LEARNING_RATE, SEED
from rml_search.whole_files import write_atomically
from rml_shared.records import study_to_read
from rml_study.storage import STUDY_NAME, database_errors, snapshot

_STATES = {
    OptunaState.COMPLETE: State.COMPLETE,
    OptunaState.PRUNED: State.PRUNED,
    OptunaState.FAIL: State.FAILED,
    OptunaState.RUNNING: State.RUNNING,
}
#: User attributes of trials that are no trials of this search: drawn twice and not run, or run by another study.
_NOT_OURS = {"duplicates", "borrowed"}


_NOT_HERE = Gallery(reason="This folder contains no predictions of this shared search.")


def write_report(workspace: Workspace, folder: Path | None = None, shared: SharedChoice | None = None) -> Path:
    """Writes ``report.html`` into a folder, which is made (None: the search's own); gives the file.

    Args:
        shared: the study that drivers share; None: that of the search in ``workspace``.

    Raises:
        NoResultsError: there is no trial to report of.
        OptionError: the address of the shared study is none.
        StudyError: the study cannot be read.
        WriteError: the system refuses the file.
    """
    study = read_summary(workspace, shared)
    is_of_folder = shared is None or is_folder_of(workspace, study.identity or "")
    page = Page(
        study=study,
        test_accuracy=read_test_accuracy(workspace) if is_of_folder else None,
        importances=importance_shares(study),
        plots=draw_plots(study),
        gallery=load_gallery(workspace) if is_of_folder else _NOT_HERE,
        plotly_script=plotly_script(),
    )
    path = workspace.report_page if folder is None else folder / workspace.report_page.name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, render_page(page), durably=False)
    except OSError as error:
        raise WriteError(f"cannot write {shown(path)}: {error.strerror or error}") from error
    return path


def write_report_softly(workspace: Workspace, show: Callable[[str], None], shared: SharedChoice | None = None) -> None:
    """Writes the report at the end of a search, which has worked whatever becomes of its page; says where it is."""
    try:
        show(f"The report is in {shown(write_report(workspace, None, shared))}")
    except Exception as error:  # noqa: BLE001 - told in one line: it must not turn a search that worked into a failure
        show(f"Cannot write the report: {' '.join(str(error).split())}; `report` tries again")


def read_summary(workspace: Workspace, shared: SharedChoice | None = None) -> StudySummary:
    """The search in a folder, or the one that drivers share, as it stands.

    Without a study it is read from ``list_acc.json``, without its curves.

    Raises:
        NoResultsError: there is neither, or no trial was begun.
        OptionError: the address of the shared study is none.
        StudyError: the study cannot be read.
    """
    name = workspace.root.name
    if shared is not None:
        return _shared_summary(shared, name)
    if not workspace.study_database.exists():
        if workspace.shared_journal.exists():  # of the jobs of a cluster
            with suppress(NoResultsError):
                return _shared_summary(SharedChoice(shown(workspace.shared_journal)), name)
        return summary_of_records(read_list_acc(workspace), name)
    with database_errors(workspace), snapshot(workspace.study_database) as storage:
        studies = storage.get_all_studies()
        if not studies:
            raise NoResultsError(
                f"{shown(workspace.study_database)} contains no study: run a search in this folder first"
            )
        names = [study.study_name for study in studies]
        main = STUDY_NAME if STUDY_NAME in names else names[0]
        kept = read_kept_winner(workspace)
        # Of several confirmations that count whose model is kept; each alone compares the same seeds.
        again = [other for other in names if other != main and (kept is None or other == kept.study)]
        others = [optuna.load_study(study_name=other, storage=storage) for other in again]
        summary = summarise(optuna.load_study(study_name=main, storage=storage), name)
        summary = replace(summary, confirmations=_confirmations(summary.trials, others))
    return _begun(summary, shown(workspace.study_database))


def _shared_summary(shared: SharedChoice, name: str) -> StudySummary:
    with study_to_read(shared) as study:
        return _begun(summarise(study, name), f"the study {study.study_name}")


def _begun(summary: StudySummary, place: str) -> StudySummary:
    """The summary. Raises NoResultsError where it is one of nothing."""
    if not summary.trials:
        raise NoResultsError(f"no trial in {place} has started: there is nothing to report yet")
    return summary


def summarise(study: optuna.Study, name: str) -> StudySummary:
    """What the report says of a study; ``name`` is that of the search."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if _is_ours(trial)]
    repeated = {trial.user_attrs.get("repeats") for trial in trials}
    attributes = study.user_attrs
    settings = attributes.get("settings")
    settings = settings if isinstance(settings, Mapping) else {}
    epochs = settings.get("--num-epochs")
    num_epochs = epochs if isinstance(epochs, int) else None
    read_at = datetime.now(timezone.utc)
    return StudySummary(
        name=name,
        trials=tuple(_summarise_trial(trial, repeated, read_at, num_epochs) for trial in trials),
        dimensions=_dimensions(trials),
        read_at=read_at,
        num_epochs=num_epochs,
        settings={str(option): _setting(value) for option, value in settings.items() if value is not None},
        runs=read_runs(attributes),
        identity=attributes.get("identity"),
    )


def _confirmations(trials: Sequence[TrialSummary], studies: Sequence[optuna.Study]) -> tuple[Confirmation, ...]:
    """The trials that were trained again with other seeds, by the mean of these runs, the best first."""
    runs: dict[int, list[float]] = {}
    for study in studies:
        for run in study.get_trials(deepcopy=False, states=(OptunaState.COMPLETE,)):
            point = {name: value for name, value in run.params.items() if name != SEED}
            same = (trial.number for trial in trials if trial.is_judged and dict(trial.hyperparameters) == point)
            number = next(same, None)
            accuracy = run.user_attrs.get("record", {}).get("max_acc")
            if number is not None and accuracy is not None:
                runs.setdefault(number, []).append(accuracy)
    confirmations = (Confirmation(number, tuple(accuracies)) for number, accuracies in runs.items())
    return tuple(sorted(confirmations, key=lambda confirmation: -confirmation.mean))


def _is_ours(trial: FrozenTrial) -> bool:
    """Whether this search has begun it; a trial without hyperparameters was killed before it had any."""
    return trial.state in _STATES and bool(trial.params) and not trial.user_attrs.keys() & _NOT_OURS


def _summarise_trial(trial: FrozenTrial, repeated: set[Any], now: datetime, num_epochs: int | None) -> TrialSummary:
    """The record in the study says it all; a trial that was killed, or another program's, has none."""
    record = trial.user_attrs.get("record", {})
    state = _STATES[trial.state]
    accuracies = tuple(sorted(trial.intermediate_values.items()))
    best = max(accuracies, key=lambda pair: (pair[1], -pair[0]), default=(None, None))
    accuracy = record.get("max_acc", best[1] if best[1] is not None else _first_value(trial))
    reason = record.get("reason")
    if state is State.FAILED:
        if record.get("tried_again") or trial.number in repeated:
            state = State.INTERRUPTED
        accuracy = None
        reason = reason or "the search was killed while the trial was running"
    return TrialSummary(
        number=trial.number,
        hyperparameters=dict(trial.params),
        state=state,
        accuracies=accuracies,
        accuracy=accuracy,
        best_epoch=None if accuracy is None else record.get("epoch_max_acc", best[0]),
        seconds=record.get("seconds", _seconds(trial, now)),
        reason=reason,
        # Optuna stores no accuracies of epochs where there are several objectives; a complete trial trained them all.
        known_epochs=num_epochs if state is State.COMPLETE and not accuracies else None,
        started=None if trial.datetime_start is None else trial.datetime_start.astimezone(timezone.utc),
    )


def _first_value(trial: FrozenTrial) -> float | None:
    return trial.values[0] if trial.values else None


def _seconds(trial: FrozenTrial, now: datetime) -> float:
    """How long a trial took, or has taken so far; Optuna keeps local time without a zone."""
    if trial.datetime_start is None:
        return 0.0
    end = now if trial.datetime_complete is None else trial.datetime_complete.astimezone(timezone.utc)
    return max(0.0, (end - trial.datetime_start.astimezone(timezone.utc)).total_seconds())


def _dimensions(trials: list[FrozenTrial]) -> tuple[Dimension, ...]:
    """All hyperparameters that any trial had, by name; a range that was widened on the way is the widest."""
    found: dict[str, Dimension] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            dimension = _dimension(name, distribution)
            found[name] = _united(found[name], dimension) if name in found else dimension
    return tuple(found[name] for name in sorted(found))


def _dimension(name: str, distribution: BaseDistribution) -> Dimension:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return Dimension(name, choices=tuple(choices))
        case FloatDistribution(low=low, high=high, log=is_log) | IntDistribution(low=low, high=high, log=is_log):
            return Dimension(name, low=low, high=high, is_log=is_log)
        case _:
            raise TypeError(f"{name} has a distribution that is not known: {distribution!r}")


def _united(first: Dimension, second: Dimension) -> Dimension:
    if first.choices is not None and second.choices is not None:
        return Dimension(first.name, choices=tuple(dict.fromkeys((*first.choices, *second.choices))))
    if first.choices is not None or second.choices is not None:
        return first
    is_log = first.is_log and second.is_log
    return Dimension(first.name, low=min(first.low, second.low), high=max(first.high, second.high), is_log=is_log)


def _setting(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def summary_of_records(records: list[TrialRecord], name: str) -> StudySummary:
    """The report's summary where only ``list_acc.json`` is left of a search, or is all that another program wrote."""
    trials = tuple(_summarise_record(record) for record in records)
    names = sorted({name for record in records for name in record.point})
    dimensions = tuple(
        _dimension_of_values(name, [record.point[name] for record in records if name in record.point]) for name in names
    )
    return StudySummary(name, trials, dimensions, read_at=datetime.now(timezone.utc))


def _dimension_of_values(name: str, values: Sequence[Value]) -> Dimension:
    """A range of those values that were tried where all are numbers, else a choice."""
    numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(values):
        return Dimension(name, choices=tuple(dict.fromkeys(values)))
    low, high = min(numbers), max(numbers)
    return Dimension(name, low=low, high=high, is_log=name == LEARNING_RATE and low > 0)


def _summarise_record(record: TrialRecord) -> TrialSummary:
    return TrialSummary(
        number=record.number,
        hyperparameters=record.point,
        state=State.INTERRUPTED if record.tried_again else State(record.state.value),
        accuracy=record.max_acc,
        best_epoch=record.epoch_max_acc,
        seconds=record.seconds,
        reason=record.reason,
    )
