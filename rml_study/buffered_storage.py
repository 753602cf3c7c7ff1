"""Optuna's database storage, spared most of its transactions: what running trials report waits for up to a second.

As it comes, Optuna writes each hyperparameter, attribute and report of a trial in a transaction of its own, after two
queries, and reads running trials again for each decision of a pruner. Here they are kept in memory, where samplers and
pruners see them at once, and are written together.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

#: How long a report may wait, and how old what is known of other processes' trials may be.
WAIT_SECONDS = 1.0

# The tables that are written here, in Optuna's own layout. It checks the version of that when it opens a database.
_PARAMS, _REPORTS = "trial_params", "trial_intermediate_values"
_USER_ATTRIBUTES, _SYSTEM_ATTRIBUTES = "trial_user_attributes", "trial_system_attributes"
_TABLES = (_PARAMS, _USER_ATTRIBUTES, _SYSTEM_ATTRIBUTES, _REPORTS)

_Row = dict[str, Any]


@dataclass
class _OwnTrial:
    """A trial that this process runs.

    Attributes:
        written: when the database knew all of it.
        waiting: the rows that it does not know yet: table -> key within the trial -> row.
        is_lost: another process has ended it.
    """

    study_id: int
    trial: FrozenTrial
    written: float
    waiting: dict[str, dict[str | int, _Row]] = field(default_factory=lambda: defaultdict(dict))
    is_lost: bool = False


@dataclass
class _Known:
    """What is known of a study: its trials by their id, in the order of their numbers."""

    reader: optuna.Study
    trials: dict[int, FrozenTrial] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    read: float = -math.inf


class BufferedStorage(BaseStorage):
    """A storage that keeps the trials that this process runs in memory, and writes them together by :meth:`save`.

    New trials, their states and whatever is no running trial of this process are written at once, as Optuna's storage
    does; before the state of a trial changes, all that it has reported is written. Other processes may use the database
    at the same time: what they write is seen within ``WAIT_SECONDS``. Not to be called by several threads at once.

    Args:
        backend: the storage that trials are kept in.
        clock: seconds, as ``time.monotonic``.
    """

    def __init__(self, backend: RDBStorage, clock: Callable[[], float] = time.monotonic) -> None:
        self.backend = backend
        self._clock = clock
        self._own: dict[int, _OwnTrial] = {}
        self._studies: dict[int, _Known] = {}
        # Optuna's own description of its tables is private; this reads it, types included, from the database.
        metadata = sqlalchemy.MetaData()
        metadata.reflect(backend.engine, only=["trials", *_TABLES])
        self._tables = metadata.tables

    def close(self) -> None:
        """Writes what has waited, and closes the database."""
        self.save()
        self.remove_session()
        self.backend.engine.dispose()

    def remove_session(self) -> None:
        self.backend.remove_session()

    # --- what waits ------------------------------------------------------------------------------------

    def save(self) -> None:
        """Writes all that waits, in one transaction."""
        changed = [trial_id for trial_id, own in self._own.items() if own.waiting]
        if not changed:
            return
        with self.backend.engine.begin() as connection:
            running = self._still_running(connection, changed)
            for table in _TABLES:
                rows = [row for trial_id in running for row in self._own[trial_id].waiting[table].values()]
                if rows:
                    self._write(connection, self._tables[table], rows)
        for trial_id in changed:
            own = self._own[trial_id]
            own.is_lost = trial_id not in running
            own.waiting.clear()
            own.written = self._clock()

    def save_what_is_due(self) -> None:
        """Writes all that waits once something has waited for ``WAIT_SECONDS``."""
        now = self._clock()
        if any(own.waiting and now - own.written >= WAIT_SECONDS for own in self._own.values()):
            self.save()

    def _still_running(self, connection: sqlalchemy.Connection, trial_ids: Sequence[int]) -> list[int]:
        """Those that no other process has ended; none can until the transaction is over."""
        trials = self._tables["trials"]
        query = sqlalchemy.select(trials.c.trial_id, trials.c.state).where(trials.c.trial_id.in_(trial_ids))
        return [trial_id for trial_id, state in connection.execute(query.with_for_update()) if state == "RUNNING"]

    @staticmethod
    def _write(connection: sqlalchemy.Connection, table: sqlalchemy.Table, rows: list[_Row]) -> None:
        if table.name in {_USER_ATTRIBUTES, _SYSTEM_ATTRIBUTES}:
            same = (table.c.trial_id == sqlalchemy.bindparam("of"), table.c.key == sqlalchemy.bindparam("named"))
            keys = [{"of": row["trial_id"], "named": row["key"]} for row in rows]
            connection.execute(sqlalchemy.delete(table).where(*same), keys)
        connection.execute(sqlalchemy.insert(table), rows)

    # --- trials ----------------------------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = self.backend.create_new_trial(study_id, template_trial)
        self._adopt(study_id, trial_id)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        own = self._updatable(trial_id)
        if own is None:
            self.backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)
            self._read_again()
            return
        known = self._known(own.study_id)
        check_distribution_compatibility(known.distributions.setdefault(param_name, distribution), distribution)
        own.trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        own.trial.distributions[param_name] = distribution
        own.waiting[_PARAMS][param_name] = {
            "trial_id": trial_id,
            "param_name": param_name,
            "param_value": param_value_internal,
            "distribution_json": distribution_to_json(distribution),
        }

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        self.save()
        own = self._own.pop(trial_id, None)
        try:
            has_changed = self.backend.set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            self._read_again()
            raise
        study_id = next((i for i, known in self._studies.items() if trial_id in known.trials), None)
        if own is not None and has_changed:
            trial = copy.copy(own.trial)
            trial.state, trial.values, trial.datetime_complete = state, values, datetime.now()
            self._known(own.study_id).trials[trial_id] = trial
        elif study_id is not None and has_changed and state is TrialState.RUNNING:
            self._adopt(study_id, trial_id)
        else:
            self._read_again()
        return has_changed

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        own = self._updatable(trial_id)
        if own is None or step in own.trial.intermediate_values or not math.isfinite(intermediate_value):
            self.save()
            self.backend.set_trial_intermediate_value(trial_id, step, intermediate_value)
        else:
            own.waiting[_REPORTS][step] = {
                "trial_id": trial_id,
                "step": step,
                "intermediate_value": intermediate_value,
                "intermediate_value_type": "FINITE",
            }
        if own is not None:
            own.trial.intermediate_values[step] = intermediate_value
        self.save_what_is_due()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        own = self._updatable(trial_id)
        if own is None:
            self.backend.set_trial_user_attr(trial_id, key, value)
            self._read_again()
            return
        own.waiting[_USER_ATTRIBUTES][key] = {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        own.trial.user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        own = self._updatable(trial_id)
        if own is None:
            self.backend.set_trial_system_attr(trial_id, key, value)
            self._read_again()
            return
        own.waiting[_SYSTEM_ATTRIBUTES][key] = {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        own.trial.system_attrs[key] = value

    def get_trial(self, trial_id: int) -> FrozenTrial:
        if trial_id in self._own:
            return _copy(self._own[trial_id].trial)
        known = next((study.trials[trial_id] for study in self._studies.values() if trial_id in study.trials), None)
        return known if known is not None and known.state.is_finished() else self.backend.get_trial(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        known = self._known(study_id)
        if self._clock() - known.read >= WAIT_SECONDS:
            known.trials = {trial._trial_id: trial for trial in known.reader.get_trials(deepcopy=False)}
            known.read = self._clock()
        known.trials |= {i: _copy(own.trial) for i, own in self._own.items() if own.study_id == study_id}
        trials = [trial for trial in known.trials.values() if states is None or trial.state in states]
        trials.sort(key=lambda trial: trial.number)
        return copy.deepcopy(trials) if deepcopy else trials

    def _adopt(self, study_id: int, trial_id: int) -> None:
        """Takes in a trial that this process has made, or has taken from those in line."""
        trial = self.backend.get_trial(trial_id)
        if trial.state is TrialState.RUNNING:
            self._own[trial_id] = _OwnTrial(study_id, trial, written=self._clock())
        self._known(study_id).trials[trial_id] = trial

    def _updatable(self, trial_id: int) -> _OwnTrial | None:
        """The trial, where this process runs it."""
        own = self._own.get(trial_id)
        if own is not None and own.is_lost:
            raise UpdateFinishedTrialError(f"another process has ended trial {own.trial.number}")
        return own

    def _known(self, study_id: int) -> _Known:
        if study_id not in self._studies:
            name = self.backend.get_study_name_from_id(study_id)
            self._studies[study_id] = _Known(optuna.load_study(study_name=name, storage=self.backend))
        return self._studies[study_id]

    def _read_again(self) -> None:
        """Reads trials anew when they are asked for next, since one of those that are not ours has changed."""
        for known in self._studies.values():
            known.read = -math.inf

    # --- studies, which the database alone knows -------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        return self.backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._studies.pop(study_id, None)
        self._own = {trial_id: own for trial_id, own in self._own.items() if own.study_id != study_id}
        self.backend.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self.backend.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.backend.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self.backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.backend.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self.backend.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self.backend.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.backend.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        return self.backend.get_all_studies()


def _copy(trial: FrozenTrial) -> FrozenTrial:
    """The trial as it is now: what becomes of it later does not show."""
    copied = copy.copy(trial)
    for name in ("params", "distributions", "user_attrs", "system_attrs", "intermediate_values"):
        setattr(copied, name, dict(getattr(trial, name)))
    return copied
