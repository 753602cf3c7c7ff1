"""A search whose trials the jobs of a cluster run: this process submits them, follows them, and shows the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from rml_optuna import open_study
from rml_search.dataset import DataSetSummary
from rml_search.executor.following import Progress, tell_end
from rml_search.executor.job import array_at_work, follow_to_end, tell_how_to_follow, tell_submitted
from rml_search.executor.options import SlurmOptions
from rml_search.executor.readiness import ready_for_workers
from rml_search.executor.slurm import check_slurm, submit
from rml_search.executor.submission import JobArray, forget, remember
from rml_search.interruption import uninterrupted
from rml_search.lock import only_search_in
from rml_search.options import JobChoice, RuntimeChoice, SearchOptions, StudyChoice
from rml_search.paths import Workspace, shown
from rml_search.plain_output import best_table, settings_table
from rml_search.results import TrialRecord, earlier_results_aside, finish_move_back, read_list_acc
from rml_storage import can_go_on, database_errors


@dataclass(frozen=True)
class ClusterSearch:
    """A search whose data, network and options have been checked; ``command`` is what each worker runs."""

    options: SearchOptions
    study: StudyChoice
    jobs: JobChoice
    slurm: SlurmOptions
    workspace: Workspace
    command: Sequence[str]


def search_on_cluster(
    search: ClusterSearch, data: DataSetSummary, choice: RuntimeChoice, gpu: bool | None, show: Callable[[str], None]
) -> None:
    """Submits the workers, or finds them at work, follows them to their end, and shows the best trial.

    Raises:
        SearchError: nothing was submitted, or all workers have failed.
        Interrupted: by the person; the workers are cancelled, and what had finished is kept.
    """
    check_slurm(search.workspace)
    ready = ready_for_workers(search.options, search.workspace, choice, gpu, search.slurm)
    num_jobs = search.slurm.num_workers * search.jobs.num_jobs
    settings = settings_table(search.options, search.study, data, ready, num_jobs)
    workspace = search.workspace
    array = array_at_work(workspace, show, is_fresh=search.study.is_fresh)
    if array is None:
        array = _submit(search, settings, show)
    if array is not None and not search.slurm.waits:
        tell_how_to_follow(array, show)
        return
    progress = Progress(lambda: _records(workspace), search.options.num_trials, show)
    try:
        if array is not None:
            follow_to_end(array, workspace, progress, show)
    finally:
        show(best_table(_records(workspace)))
    if array is not None:
        forget(workspace)
        tell_end(array, has_enough=progress.tell_news(), show=show)
    show(f"The best model is in {shown(workspace.best_model)}, the history in {shown(workspace.list_acc)}")


def _submit(search: ClusterSearch, settings: str, show: Callable[[str], None]) -> JobArray | None:
    """Makes the study ready and submits its workers; None where all trials have run."""
    workspace, options = search.workspace, search.options
    with only_search_in(workspace):
        finish_move_back(workspace)
        goes_on = not search.study.is_fresh and can_go_on(workspace, options)
        with nullcontext() if goes_on else earlier_results_aside(workspace, show):
            study = open_study(workspace, options, search.study, show)
            with database_errors(workspace):
                num_counted = sum(not record.tried_again for record in study.records())
                study.close()
            show(settings)
            if num_counted >= options.num_trials:
                show(f"All {options.num_trials} trials have run: a larger --num-trials adds more")
                return None
            # Within all this, so that earlier results come back where Slurm does not take the job.
            with uninterrupted():
                array = submit(search.command, search.slurm, workspace)
                remember(array, workspace)
    tell_submitted(array, show)
    return array


def _records(workspace: Workspace) -> Sequence[TrialRecord]:
    return read_list_acc(workspace) if workspace.list_acc.exists() else []
