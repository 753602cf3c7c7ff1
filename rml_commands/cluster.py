"""A search whose trials the jobs of a cluster run: this process submits them, follows them, and shows the tables.

The jobs share one study, in the folder of the search or where ``--storage`` says. Each is a driver like any other that
has joined it, so that a job may end or begin at any time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rml_search.dataset import DataSetSummary
from rml_search.display import Display, SearchEnd
from rml_search.executor.following import Progress, follow, tell_end
from rml_search.executor.job import array_at_work, tell_how_to_follow, tell_submitted, tell_that_it_goes_on
from rml_search.executor.options import SlurmOptions, worker_arguments
from rml_search.executor.readiness import ready_for_workers
from rml_search.executor.slurm import ClusterSilentError, cancel, submit
from rml_search.executor.submission import JobArray, forget, remember
from rml_search.folder import mark, one_of_several_in
from rml_search.inference import read_last_inference
from rml_search.interruption import Interrupted, uninterrupted
from rml_search.lock import only_search_in
from rml_search.options import STORAGE_VARIABLE, RuntimeChoice, SearchOptions, SharedChoice
from rml_search.paths import Workspace
from rml_search.plain_output import settings_rows
from rml_search.plan import SearchPlan
from rml_search.results import TrialRecord, earlier_results_aside, finish_move_back, read_list_acc
from rml_search.run_record import describe_run
from rml_search.study_settings import check_inputs_stay

if TYPE_CHECKING:
    from rml_shared.study import SharedStudy


@dataclass(frozen=True)
class ClusterSearch:
    """A search whose data, network and options have been checked; ``arguments`` are those that were typed."""

    options: SearchOptions
    plan: SearchPlan
    workspace: Workspace
    arguments: Sequence[str]

    @property
    def slurm(self) -> SlurmOptions:
        """What is asked of the cluster."""
        if self.plan.slurm is None:
            raise ValueError("this search is not for a cluster")
        return self.plan.slurm

    @property
    def shared(self) -> SharedChoice:
        """The study that the workers share."""
        if self.plan.shared is None:
            raise ValueError("the workers have no study to share")
        return self.plan.shared


def search_on_cluster(
    search: ClusterSearch, data: DataSetSummary | None, choice: RuntimeChoice, display: Display
) -> None:
    """Submits the workers, or finds them at work, follows them to their end, and shows the best trial.

    Raises:
        SearchError: nothing was submitted, or all workers have failed.
        Interrupted: by the person; the workers go on.
    """
    workspace, plan, show = search.workspace, search.plan, display.say
    ready = ready_for_workers(search.options, workspace, choice, search.slurm)
    settings = settings_rows(
        search.options, plan.study, data, ready, search.slurm.num_workers * (plan.jobs.num_jobs or 1)
    )
    progress = Progress(lambda: _records(workspace), search.options.num_trials, show)
    array = array_at_work(workspace, show, is_fresh=plan.study.is_fresh)
    try:
        if array is None:
            with uninterrupted():  # a signal finds all done, or nothing
                array = _submit(search, settings, display)
        else:
            _joined(search, show).close()
        if array is not None and search.slurm.waits:
            follow(array, progress, show)
    except Interrupted:
        if array is not None:
            tell_that_it_goes_on(array, show)
        raise
    if array is not None and not search.slurm.waits:
        tell_how_to_follow(array, show)
        return
    _show_results(search, display)
    if array is not None:
        forget(workspace)
        tell_end(array, has_enough=progress.tell_news(), is_fresh=plan.study.is_fresh, show=show)
    display.results(workspace, has_best_model=workspace.best_config.exists())
    if plan.writes_report:
        from rml_report.page import write_report_softly

        write_report_softly(workspace, show, search.shared)


def _submit(search: ClusterSearch, settings: Sequence[tuple[str, str]], display: Display) -> JobArray | None:
    """Makes the study ready and submits its workers; None where all trials have run."""
    workspace, num_trials, show = search.workspace, search.options.num_trials, display.say
    with _place_made(search, show):
        study = _joined(search, show)
        try:
            with one_of_several_in(workspace, study.identity, show):
                display.settings(settings)
                with study.errors(workspace):
                    study.remember_run(describe_run(sys.argv, settings))
                    num_counted = sum(not record.tried_again for record in study.records())
                if num_counted >= num_trials:
                    show(f"All {num_trials} trials have run: increase --num-trials to add more")
                    return None
                slurm = _no_more_than_needed(search, num_trials - num_counted, show)
                # Within all this, so that earlier results come back where Slurm does not take the job.
                array = submit(_command(search), slurm, workspace, _variables(search.shared))
                _remember(array, workspace)
        finally:
            study.close()
    tell_submitted(array, show)
    return array


def _remember(array: JobArray, workspace: Workspace) -> None:
    """Writes down which job it is; one of which nobody would know has to go, since its folder is not as it left it."""
    try:
        remember(array, workspace)
    except OSError:
        with suppress(ClusterSilentError):
            cancel(array)
        raise


def _no_more_than_needed(search: ClusterSearch, num_left: int, show: Callable[[str], None]) -> SlurmOptions:
    """A worker without a trial would hold its place until the others have ended."""
    num_needed = -(-num_left // (search.plan.jobs.num_jobs or 1))
    if num_needed >= search.slurm.num_workers:
        return search.slurm
    show(f"Trials left to run: {num_left}, which need only {num_needed} worker{'s' * (num_needed > 1)}")
    return replace(search.slurm, num_workers=num_needed)


@contextmanager
def _place_made(search: ClusterSearch, show: Callable[[str], None]) -> Iterator[None]:
    """Where a study begins that lies in the folder itself, what an earlier search has left there moves aside.

    A journal without its mark is one that was begun and that no worker has seen.
    """
    workspace = search.workspace
    goes_on = workspace.shared_journal.exists() and workspace.study_mark.exists() and not search.plan.study.is_fresh
    if not search.plan.owns_storage or goes_on:
        yield
        return
    check_inputs_stay(search.options, workspace)
    with ExitStack() as aside:
        with only_search_in(workspace):
            finish_move_back(workspace)
            aside.enter_context(earlier_results_aside(workspace, show))
        yield


def _joined(search: ClusterSearch, show: Callable[[str], None]) -> SharedStudy:
    from rml_shared.study import open_shared_study

    if search.plan.owns_storage:
        search.workspace.trials.mkdir(parents=True, exist_ok=True)
    study = open_shared_study(search.workspace, search.options, search.plan, search.shared, show)
    if search.plan.owns_storage:  # it lies among the results, which would move aside with it were they another's
        mark(search.workspace, study.identity)
    return study


def _command(search: ClusterSearch) -> list[str]:
    """What each worker runs: the command line of the search, in whose study it joins."""
    program = Path(__file__).resolve().parents[1] / "rml_optimization.py"
    arguments = worker_arguments(search.arguments)
    if not _variables(search.shared):
        arguments.append(f"--storage={search.shared.storage}")
    return [sys.executable, "-u", str(program), *arguments, "--no-report"]


def _variables(shared: SharedChoice) -> dict[str, str]:
    """An address that may hold a password: others can read command lines, and files beside the results."""
    return {STORAGE_VARIABLE: shared.storage} if "@" in shared.storage else {}


def _records(workspace: Workspace) -> Sequence[TrialRecord]:
    return read_list_acc(workspace) if workspace.list_acc.exists() else []


def _show_results(search: ClusterSearch, display: Display) -> None:
    display.searched(SearchEnd(search.options, _records(search.workspace)))
    if search.options.validation_fraction is not None:
        tested = read_last_inference(search.workspace) if search.workspace.best_config.exists() else None
        if tested is not None:
            display.tested(tested)
