"""Parts of searches that are tracked, with engines that play scripts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from rml_optuna import open_study
from rml_search.limits import Limits
from rml_search.options import PrunerName, StudyChoice
from rml_search.run_record import describe_run
from rml_search.search import Search
from rml_search.tracking_choice import TrackingChoice
from rml_tracking.trackers import tracked


class Notes(list[str]):
    """An observer that keeps what a person would be told."""

    def trial_started(self, number, place, hyperparameters):
        pass

    def trials_advanced(self, shares):
        pass

    def epoch_finished(self, number, epoch):
        pass

    def trial_finished(self, result, best):
        pass

    def note(self, text):
        self.append(text)


@pytest.fixture
def search_tracked(workspace, make_options) -> Callable[..., Notes]:
    """Runs a search, or goes on with it: ``search_tracked(runtime, TrackingChoice(...), num_trials=3)``."""

    def run(runtime: Any, choice: TrackingChoice, limits: Limits | None = None, **changes: Any) -> Notes:
        notes, options = Notes(), make_options(**changes)
        study = open_study(workspace, options, StudyChoice(pruner=PrunerName.NONE), notes.append)
        study.remember_run(describe_run(["rml-optimization"], []))
        try:
            observer = tracked(notes, choice, study, workspace)
            with closing(observer):
                Search(options, workspace, runtime, study, observer, limits or Limits()).run()
        finally:
            study.close()
        return notes

    return run


@pytest.fixture
def three_fates(scripted, script) -> Callable[[], Any]:
    """Makes a runtime of three trials: complete with 0.7, failed in its second epoch, pruned with 0.5."""

    def make() -> Any:
        return scripted(script([0.5, 0.7, 0.6]), script([0.25], ["out of luck"], code=1), script([0.5], hangs=True))

    return make


#: Ends the trial that hangs.
SHORT = Limits(trial_seconds=1.5)


@pytest.fixture
def short() -> Limits:
    """Limits in time that prune a trial that hangs."""
    return SHORT
