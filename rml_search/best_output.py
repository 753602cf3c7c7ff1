"""The best trial for other programs: as JSON, as TOML, or as variables of a shell."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rml_search.confirmation import KeptWinner, read_kept_winner
from rml_search.errors import NoResultsError
from rml_search.hyperparameters import Hyperparameters
from rml_search.inference import read_test_accuracy
from rml_search.options import BestFormat
from rml_search.paths import Workspace
from rml_search.plain_output import best_table
from rml_search.results import TrialRecord, TrialState, best_record

#: Begins the names of all variables, which nobody else uses.
_PREFIX = "RML_BEST_"


def best_text(
    best_format: BestFormat,
    records: Sequence[TrialRecord],
    workspace: Workspace,
    *,
    by_validation: bool,
    is_of_folder: bool = True,
) -> str:
    """The best of the trials in a format.

    Args:
        by_validation: whether validation images chose epoch and trial.
        is_of_folder: whether the files in ``workspace`` are those of these trials.

    Raises:
        NoResultsError: a program is to read it, and no trial has reached an accuracy.
    """
    confirmed = read_kept_winner(workspace) if is_of_folder else None
    test_accuracy = read_test_accuracy(workspace) if is_of_folder else None
    if best_format is BestFormat.TABLE:
        return best_table(records, by_validation=by_validation, confirmed=confirmed, test_accuracy=test_accuracy)
    best = best_record(records)
    if best is None:
        raise NoResultsError("no trial has an accuracy yet")
    facts = {
        "trial": best.number,
        "state": best.state.value,
        "accuracy": best.max_acc,
        "epoch": best.epoch_max_acc,
        "seconds": best.seconds,
        "chosen_on": "validation images" if by_validation else "test images",
        "test_accuracy": test_accuracy,
        "checkpoint_sha256": best.checkpoint_sha256,
        "num_trials": _num_trials(records),
        "hyperparameters": Hyperparameters.from_point(best.point).point,
        "confirmed": _confirmed(confirmed, workspace),
        "paths": _paths(best, workspace, is_of_folder=is_of_folder),
    }
    if best_format is BestFormat.JSON:
        return json.dumps(facts, indent=2, allow_nan=False)
    if best_format is BestFormat.TOML:
        import tomli_w

        return tomli_w.dumps(_without_none(facts)).rstrip("\n")
    return "\n".join(_assignments(facts))


def _num_trials(records: Iterable[TrialRecord]) -> dict[str, int]:
    """How many trials have ended in each state; those that got another trial do not count."""
    states = [record.state for record in records if not record.tried_again]
    return {state.value: states.count(state) for state in TrialState}


def _confirmed(confirmed: KeptWinner | None, workspace: Workspace) -> dict[str, Any]:
    """The trial that was the best one when it was trained again; None for everything where none was."""
    model = workspace.confirmed_model
    return {
        "trial": None if confirmed is None else confirmed.trial,
        "mean_accuracy": None if confirmed is None else confirmed.mean,
        "standard_deviation": None if confirmed is None else confirmed.deviation,
        "num_runs": None if confirmed is None else len(confirmed.accuracies),
        "checkpoint": None if confirmed is None else _there(model.checkpoint),
        "config": None if confirmed is None else _there(model.config),
    }


def _paths(best: TrialRecord, workspace: Workspace, *, is_of_folder: bool) -> dict[str, str | None]:
    """The whole paths of the files that are there; None for the others."""
    has_model = _is_checkpoint_of(best, workspace)
    model = {
        "checkpoint": workspace.best_checkpoint,
        "config": workspace.best_config,
        "layers": workspace.best_layers,
    }
    search = {
        "trial": workspace.trial(best.number).folder,
        "list_acc": workspace.list_acc,
        "study": workspace.study_database,
        "report": workspace.report_page,
    }
    return {
        **{name: _there(path) if has_model else None for name, path in model.items()},
        **{name: _there(path) if is_of_folder else None for name, path in search.items()},
    }


def _there(path: Path) -> str | None:
    return str(path) if path.exists() else None


def _is_checkpoint_of(best: TrialRecord, workspace: Workspace) -> bool:
    """Whether the model in the folder is that of the trial: another driver may have it, or another search wrote it."""
    if best.checkpoint_sha256 is None:
        return True  # the tutorial's lists do not know it
    with suppress(OSError):
        return workspace.best_digest.read_text(encoding="utf-8").startswith(best.checkpoint_sha256)
    return False


def _without_none(value: Any) -> Any:
    """Without what there is none of, since TOML has no word for it."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def _assignments(facts: Mapping[str, Any]) -> list[str]:
    """``NAME=value`` lines that any POSIX shell reads; hyperparameters by their names, in capital letters."""
    lines: dict[str, str] = {}
    for name, value in _variables(facts):
        variable, count = name, 1
        while variable in lines:  # of "a.b" and "a_b" nobody may take the place of the other
            count += 1
            variable = f"{name}_{count}"
        lines[variable] = f"{variable}={_quoted(value)}"
    return list(lines.values())


def _variables(facts: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in facts.items():
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        # Only what would else say nothing by itself, as in RML_BEST_PATH_TRIAL, keeps the name of its table.
        heads = {"num_trials": "num_", "confirmed": "confirmed_", "paths": "path_", "hyperparameters": ""}
        head = heads.get(name, name)
        for part, item in parts:
            yield _PREFIX + re.sub(r"[^A-Za-z0-9]+", "_", head + part).upper(), item


def _quoted(value: Any) -> str:
    """As a shell reads it; nothing at all where there is none."""
    if value is None:
        return "''"
    return shlex.quote(str(value).lower() if isinstance(value, bool) else str(value))
