"""``--confirm``: a second study, in the same database, that trains the best trials again with other seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from rml_optuna import open_study
from rml_search.confirmation import (
    Confirmed,
    confirmation_options,
    confirmation_points,
    confirmation_workspace,
    keep_winner,
    rank,
)
from rml_search.display import SearchPart
from rml_search.folder import trials_in_place
from rml_search.observer import SearchObserver
from rml_search.options import ConfirmOptions, PrunerName, StudyChoice
from rml_search.results import TrialRecord, best_records
from rml_search.search import Search
from rml_study.storage import database_errors


def confirm(
    asked: ConfirmOptions,
    search: Search,
    records: Sequence[TrialRecord],
    watching: Callable[[SearchPart], AbstractContextManager[SearchObserver]],
    show: Callable[[str], None],
) -> list[Confirmed]:
    """Trains the best of a search's records again, and keeps the best model of the one whose mean is the highest.

    It goes on where it was ended or killed. All runs are whole trainings: none is pruned.

    ``watching`` shows its trials, ``show`` what else there is to tell.

    Returns:
        The trials by their means, the best first.

    Raises:
        SearchError: as a search does.
    """
    options, workspace = search.options, search.workspace
    trials = best_records(records, asked.num_trials)
    num_runs = len(trials) * asked.num_seeds
    part = confirmation_workspace(workspace, trials, asked.num_seeds)
    own_options = confirmation_options(options, num_runs, asked.num_seeds)
    num_trials, num_seeds = len(trials), asked.num_seeds
    what = "the best trial" if num_trials == 1 else f"each of the best {num_trials} trials"
    show(f"Retraining {what} with {num_seeds} other seed{'' if num_seeds == 1 else 's'}")
    with database_errors(workspace):
        study = open_study(workspace, own_options, StudyChoice(pruner=PrunerName.NONE), show, name=part.name)
        try:
            study.enqueue(confirmation_points(own_options, trials))
            limits = replace(search.limits, target_accuracy=None)
            records = study.records()
            if not workspace.confirmed_model.digest.is_file() or _num_counted(records) < num_runs:
                with watching(SearchPart(own_options, records, is_again=True)) as observer, trials_in_place(part):
                    Search(own_options, part, search.runtime, study, observer, limits, search.slots, num_runs).run()
            ranked = rank(trials, study.records())
        finally:
            study.close()
    if ranked and ranked[0].runs:
        keep_winner(ranked[0], own_options, part, workspace)
    return ranked


def _num_counted(records: Iterable[TrialRecord]) -> int:
    return sum(not record.tried_again for record in records)
