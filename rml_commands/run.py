"""A search from its options to its tables: what is checked first, the trials, and what comes after them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from rml_search.dataset import check_data_set
from rml_search.devices import Slot, plan_slots
from rml_search.display import Display, SearchEnd, SearchPart, open_display
from rml_search.driver import is_gone
from rml_search.executor.slurm import check_slurm
from rml_search.folder import one_of_several_in, setting_up, trials_in_place, writing_results
from rml_search.inference import (
    InferenceResult,
    choose_inference_config,
    move_predictions_aside,
    read_last_inference,
    run_inference,
)
from rml_search.interruption import resumable
from rml_search.links import check_links
from rml_search.lock import only_search_in
from rml_search.network_file import check_networks
from rml_search.options import RuntimeChoice, SearchOptions, SharedChoice, check_precision, check_transfer_learning_file
from rml_search.packing import Packing, choose, describe_rates
from rml_search.paths import Workspace
from rml_search.plain_output import settings_rows
from rml_search.plan import SearchPlan
from rml_search.results import TrialRecord, earlier_results_aside, finish_move_back
from rml_search.run_record import describe_run
from rml_search.runtime.base import Runtime
from rml_search.runtime.choice import ReadyRuntime, prepare_runtime
from rml_search.runtime.warm import WarmRuntime, kept_warm
from rml_search.space_check import check_space
from rml_search.study_settings import check_inputs_stay, data_places
from rml_search.validation import check_validation_fraction, hold_out_validation_images
from rml_search.whole_files import remove_unfinished_files

if TYPE_CHECKING:
    from rml_optuna import OptunaStudy
    from rml_search.search import Search


def run_search(
    options: SearchOptions,
    plan: SearchPlan,
    workspace: Workspace,
    choice: RuntimeChoice,
    show: Callable[[str], None],
) -> None:
    """Checks everything, runs the search or goes on with the one in this folder, and shows its tables.

    Raises:
        SearchError: something is not as the search needs it; nothing was started or moved, or what had
            finished by then is kept.
    """
    from rml_optuna import open_study
    from rml_study.storage import can_go_on

    display = open_display(plan.display, show)
    if plan.slurm is not None:
        check_slurm(workspace)
    options = _checked(options, workspace)
    summary = None if options.data is None else check_data_set(options.data)
    if plan.slurm is not None:
        from rml_commands.cluster import ClusterSearch, search_on_cluster

        search_on_cluster(ClusterSearch(options, plan, workspace, sys.argv[1:]), summary, choice, display)
        return
    ready = prepare_runtime(choice, workspace, choice.gpu, options.num_procs, display.say)
    # Also where it is to be measured: what one trial may not have, several may not.
    slots = plan_slots(plan.jobs.num_jobs or 1, plan.jobs.devices, num_gpus=ready.num_gpus, num_procs=options.num_procs)
    if ready.runtime.in_container:
        check_links((place for place in data_places(options) if place.is_dir()), workspace)
    run = _Run(options, plan, workspace, ready.runtime, slots, display, ready)
    if plan.shared is not None:
        _search_with_others(run, plan.shared, settings_rows(options, plan.study, summary, ready, plan.jobs.num_jobs))
        return
    with only_search_in(workspace):
        ready.runtime.remove_leftovers()
        remove_unfinished_files(workspace)
        settings = settings_rows(options, plan.study, summary, ready, plan.jobs.num_jobs)
        finish_move_back(workspace)
        # A study that is there is gone on with; anything else that is there makes place.
        goes_on = not plan.study.is_fresh and can_go_on(workspace, options)
        if not goes_on:
            check_inputs_stay(options, workspace)
        aside = nullcontext() if goes_on else earlier_results_aside(workspace, display.say)
        with aside, kept_warm(ready.runtime) as runtime:
            study = open_study(workspace, options, plan.study, display.say)
            with resumable(is_fresh=plan.study.is_fresh):
                _search(replace(run, runtime=runtime), study, settings)


def _checked(options: SearchOptions, workspace: Workspace) -> SearchOptions:
    """The options with what their networks say. Raises SearchError where something cannot be as it is."""
    check_precision()
    options = check_networks(options)
    check_space(options, workspace)
    check_validation_fraction(options)
    if options.transfer_learning is not None:
        check_transfer_learning_file(options.transfer_learning)
    return options


@dataclass(frozen=True)
class _Run:
    """A search that has been checked and may begin."""

    options: SearchOptions
    plan: SearchPlan
    workspace: Workspace
    runtime: Runtime
    slots: Sequence[Slot]
    display: Display
    ready: ReadyRuntime


def _search_with_others(run: _Run, shared: SharedChoice, settings: Sequence[tuple[str, str]]) -> None:
    """Joins the study that other drivers work on too, in this folder or in others."""
    from rml_shared.study import open_shared_study

    study = open_shared_study(run.workspace, run.options, run.plan, shared, run.display.say)
    try:
        with one_of_several_in(run.workspace, study.identity, run.display.say):
            run.runtime.remove_leftovers(is_gone)
            remove_unfinished_files(run.workspace, is_shared=True)
            with kept_warm(run.runtime) as runtime, resumable(is_fresh=run.plan.study.is_fresh):
                _search(replace(run, runtime=runtime), study, settings)
    finally:
        study.close()


def _search(run: _Run, study: OptunaStudy, settings: Sequence[tuple[str, str]]) -> None:
    options, plan, workspace, display = run.options, run.plan, run.workspace, run.display
    display.settings(settings)
    with study.errors(workspace):
        study.remember_run(describe_run(sys.argv, settings))
    with nullcontext() if plan.shared is None else setting_up(workspace):
        hold_out_validation_images(options, workspace, display.say)
    if plan.jobs.num_jobs is None:
        # Of drivers in one folder the first one measures, for all that have a machine like its own.
        with nullcontext() if plan.shared is None else setting_up(workspace), study.errors(workspace):
            run = replace(run, slots=_measured_slots(run, study))
    running, records = _run_trials(run, study)
    if plan.confirm is not None:
        from rml_commands.confirmation import confirm

        display.confirmed(confirm(plan.confirm, running, records, display.watching, display.say))
    if options.validation_fraction is not None and running.has_best_model:
        # Of drivers in one folder the first one does it, and the others show what it has found.
        with nullcontext() if plan.shared is None else writing_results(workspace):
            found = None if plan.shared is None else read_last_inference(workspace)
            display.tested(found or _evaluate_on_test_images(workspace, run.runtime, options.num_procs))
    display.results(workspace, has_best_model=running.has_best_model)
    if plan.writes_report:
        from rml_report.page import write_report_softly

        write_report_softly(workspace, display.say, plan.shared)


def _measured_slots(run: _Run, study: OptunaStudy) -> Sequence[Slot]:
    """As many as were found to be fastest, now or in an earlier part of the search."""
    say = run.display.say
    packing = Packing(run.options, run.workspace, run.ready.runtime, run.plan.jobs, run.ready.num_gpus)
    num_jobs = study.measured_jobs(packing.place)
    if num_jobs is not None:
        say(f"Trials at a time: {num_jobs} on each device, as measured when the search started")
        return packing.slots(num_jobs)
    say("Measuring how many parallel trials are fastest ...")
    rates = packing.measure()
    num_jobs = choose(rates)
    study.remember_jobs(packing.place, num_jobs)
    say(describe_rates(num_jobs, rates))
    return packing.slots(num_jobs)


def _run_trials(run: _Run, study: OptunaStudy) -> tuple[Search, Sequence[TrialRecord]]:
    """Runs the trials, and tells how they have ended, whatever ended them; the study is closed then."""
    from rml_search.search import Search
    from rml_tracking.trackers import tracked

    options, plan, workspace, display = run.options, run.plan, run.workspace, run.display
    running: Search | None = None
    error: str | None = None
    try:
        with (
            study.errors(workspace),
            display.watching(SearchPart(options, study.records())) as watching,
            closing(tracked(watching, plan.tracking, study, workspace)) as observer,
        ):
            running = Search(options, workspace, run.runtime, study, observer, plan.limits, run.slots, plan.keep_top)
            with trials_in_place(workspace):
                running.run()
    except BaseException as problem:
        error = str(problem)
        raise
    finally:
        with study.errors(workspace), closing(study):  # also where the terminal is gone
            records = study.records()
            display.searched(SearchEnd(options, records, None if running is None else running.ended_early, error))
    return running, records


def _evaluate_on_test_images(workspace: Workspace, runtime: Runtime, num_procs: int) -> InferenceResult:
    """Runs the best model on the test images, which have had no part in choosing it; its predictions are kept."""
    config = choose_inference_config(workspace, None)
    move_predictions_aside(workspace, config, datetime.now())
    if isinstance(runtime, WarmRuntime):
        runtime.end_free_workers()
    return run_inference(config, workspace, runtime, num_procs=num_procs)
