"""Where a search is logged beside its own files: what is logged already, and by whom the rest is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rml_search.addresses import without_password
from rml_search.observer import SearchObserver
from rml_search.paths import Workspace
from rml_search.run_record import RUN_PREFIX
from rml_search.tracking import TrackedObserver, Tracker, TrialLog, past_trials
from rml_search.tracking_choice import TrackingChoice

if TYPE_CHECKING:
    from rml_optuna import OptunaStudy


def tracked(
    observer: SearchObserver, choice: TrackingChoice, study: OptunaStudy, workspace: Workspace
) -> TrackedObserver:
    """An observer that also logs to where the person asked for, beginning with what is missing of earlier parts.

    Nothing is waited for: a place that does not answer is a note of the observer's. To be closed after the search.
    """
    name, identity = study.study.study_name, _identity(study)
    trackers = []
    if choice.tensorboard is not None:
        folder = choice.tensorboard.absolute() / f"search_{re.sub(r'[^0-9A-Za-z]+', '-', identity)}"

        def open_tensorboard() -> TrialLog:
            from rml_tracking.tensorboard_runs import TensorBoardLog

            return TensorBoardLog(folder)

        trackers.append(Tracker(f"TensorBoard's folder {choice.tensorboard}", open_tensorboard))
    if choice.mlflow is not None:
        address = choice.mlflow

        def open_mlflow() -> TrialLog:
            from rml_tracking.mlflow_runs import open_mlflow_log

            return open_mlflow_log(address, name, identity, str(workspace.root))

        trackers.append(Tracker(f"MLflow at {without_password(address)}", open_mlflow))
    tracked_observer = TrackedObserver(observer, trackers)
    if trackers:
        records = study.records()
        tracked_observer.catch_up(lambda: past_trials(records, workspace))
    return tracked_observer


def _identity(study: OptunaStudy) -> str:
    """What tells a study from all others: its own word, or when it was begun."""
    attributes = study.study.user_attrs
    begun = min(key for key in attributes if key.startswith(RUN_PREFIX)).removeprefix(RUN_PREFIX)
    return str(attributes.get("identity", begun.partition("+")[0]))
