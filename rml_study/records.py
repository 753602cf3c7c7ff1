"""What a study says of its trials: what they have brought, and who runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from rml_search.heartbeats import Beat
from rml_search.results import TrialRecord, TrialState

STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}
_NAMES = {state: name for name, state in STATES.items()}

# User attributes of a study.
NUM_TRIALS = "num_trials"  #: how many trials it shall have, as who came last has said
SETTINGS = "settings"  #: what makes it another study
BEAT = "driver:"  #: begins the names of those that hold the last signs of life of drivers that share it
# Of a trial, and of a study that one driver at a time works on:
DRIVER = "driver"  #: who runs it; empty when it has ended by itself

# User attributes of a trial.
RECORD = "record"  #: what stands of it in list_acc.json, where it is not to be read from the trial itself
REPEATS = "repeats"  #: the number of the trial whose hyperparameters it tries again
DUPLICATES = "duplicates"  #: it was drawn, found to be a trial that has been there, and not run
BORROWED = "borrowed"  #: it was run by another study


def ended_trials(trials: Sequence[FrozenTrial], is_whole: Callable[[FrozenTrial], bool]) -> list[TrialRecord]:
    """Those of a search that have ended and were run, of all that its study holds.

    Args:
        is_whole: whether all hyperparameters of a trial were drawn before the search was killed.
    """
    repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
    return [
        _record(trial, repeated)
        for trial in trials
        if trial.state.is_finished() and is_whole(trial) and not trial.user_attrs.keys() & {DUPLICATES, BORROWED}
    ]


def beats_of(attributes: Mapping[str, Any]) -> dict[str, Beat]:
    """The last signs of life of the drivers that share a study, of all its attributes."""
    return {
        key.removeprefix(BEAT): Beat(value["number"], value["interval"])
        for key, value in attributes.items()
        if key.startswith(BEAT)
    }


def stored_record(stored: Mapping[str, Any]) -> TrialRecord:
    """A record as a study keeps it."""
    return TrialRecord(**{**stored, "state": TrialState(stored["state"])})


def _record(trial: FrozenTrial, repeated: set[int | None]) -> TrialRecord:
    stored = trial.user_attrs.get(RECORD)
    if stored is not None:
        return stored_record(stored)
    seconds = (trial.duration.total_seconds() if trial.duration else 0.0) if trial.datetime_complete else 0.0
    return TrialRecord(
        max_acc=None,
        optimizer=trial.params["optimizer"],
        lr=trial.params["learning_rate"],
        loss=trial.params["loss"],
        epoch_max_acc=None,
        number=trial.number,
        state=_NAMES[trial.state],
        seconds=seconds,
        reason="the search was killed while the trial was running",
        tried_again=trial.number in repeated,
        hyperparameters=dict(trial.params),
    )
