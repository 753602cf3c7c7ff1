"""A search from its options to its tables: what is checked first, the trials, and what comes after them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from rml_search.dataset import check_data_set
from rml_search.devices import Slot, plan_slots
from rml_search.driver import is_gone
from rml_search.folder import one_of_several_in, setting_up
from rml_search.inference import InferenceResult, choose_inference_config, move_predictions_aside, run_inference
from rml_search.links import check_links
from rml_search.lock import only_search_in
from rml_search.network_file import check_networks
from rml_search.options import RuntimeChoice, SearchOptions, SharedChoice, check_precision, check_transfer_learning_file
from rml_search.paths import Workspace, shown
from rml_search.plain_output import (
    PlainObserver,
    best_table,
    confirmation_table,
    pareto_table,
    settings_rows,
    settings_table,
    test_accuracy_table,
)
from rml_search.plan import SearchPlan
from rml_search.results import earlier_results_aside, finish_move_back
from rml_search.run_record import describe_run
from rml_search.runtime.base import Runtime
from rml_search.runtime.choice import prepare_runtime
from rml_search.runtime.warm import kept_warm
from rml_search.space_check import check_space
from rml_search.study_settings import check_inputs_stay, data_places
from rml_search.validation import check_validation_fraction, hold_out_validation_images

if TYPE_CHECKING:
    from rml_optuna import OptunaStudy


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
    from rml_storage import can_go_on

    check_precision()
    options = check_networks(options)
    check_space(options, workspace)
    check_validation_fraction(options)
    if options.transfer_learning is not None:
        check_transfer_learning_file(options.transfer_learning)
    summary = None if options.data is None else check_data_set(options.data)
    ready = prepare_runtime(choice, workspace, choice.gpu, options.num_procs, show)
    slots = plan_slots(plan.jobs.num_jobs, plan.jobs.devices, num_gpus=ready.num_gpus, num_procs=options.num_procs)
    if ready.runtime.in_container:
        check_links((place for place in data_places(options) if place.is_dir()), workspace)
    if plan.shared is not None:
        settings = settings_rows(options, plan.study, summary, ready, len(slots))
        _search_with_others(_Run(options, plan, workspace, ready.runtime, slots, show), plan.shared, settings)
        return
    with only_search_in(workspace):
        ready.runtime.remove_leftovers()
        settings = settings_rows(options, plan.study, summary, ready, len(slots))
        finish_move_back(workspace)
        # A study that is there is gone on with; anything else that is there makes place.
        goes_on = not plan.study.is_fresh and can_go_on(workspace, options)
        if not goes_on:
            check_inputs_stay(options, workspace)
        aside = nullcontext() if goes_on else earlier_results_aside(workspace, show)
        with aside, kept_warm(ready.runtime) as runtime:
            run = _Run(options, plan, workspace, runtime, slots, show)
            _search(run, open_study(workspace, options, plan.study, show), settings)


@dataclass(frozen=True)
class _Run:
    """A search that has been checked and may begin."""

    options: SearchOptions
    plan: SearchPlan
    workspace: Workspace
    runtime: Runtime
    slots: Sequence[Slot]
    show: Callable[[str], None]


def _search_with_others(run: _Run, shared: SharedChoice, settings: Sequence[tuple[str, str]]) -> None:
    """Joins the study that other drivers work on too, in this folder or in others."""
    from rml_shared_study import open_shared_study

    study = open_shared_study(run.workspace, run.options, run.plan, shared, run.show)
    try:
        with one_of_several_in(run.workspace, study.identity, run.show):
            run.runtime.remove_leftovers(is_gone)
            with kept_warm(run.runtime) as runtime:
                _search(replace(run, runtime=runtime), study, settings)
    finally:
        study.close()


def _search(run: _Run, study: OptunaStudy, settings: Sequence[tuple[str, str]]) -> None:
    from rml_search.search import Search

    options, plan, workspace, show = run.options, run.plan, run.workspace, run.show
    show(settings_table(settings))
    with study.errors(workspace):
        study.remember_run(describe_run(sys.argv, settings))
    with nullcontext() if plan.shared is None else setting_up(workspace):
        hold_out_validation_images(options, workspace, show)
    observer = PlainObserver(options, show)
    running = Search(options, workspace, run.runtime, study, observer, plan.limits, run.slots, plan.keep_top)
    try:
        with study.errors(workspace):
            running.run()
    finally:
        with study.errors(workspace):
            records = running.records
            show(best_table(records, by_validation=options.validation_fraction is not None))
            if len(options.objectives) > 1:
                show(pareto_table(records))
            study.close()
    if running.ended_early is not None:
        show(f"The search has ended before {options.num_trials} trials: {running.ended_early}")
    if plan.confirm is not None:
        from rml_confirmation import confirm

        ranked = confirm(plan.confirm, running, records, lambda own: PlainObserver(own, show), show)
        show(confirmation_table(ranked))
    if options.validation_fraction is not None and running.has_best_model:
        show(test_accuracy_table(_evaluate_on_test_images(workspace, run.runtime, options.num_procs)))
    model = f"best model is in {shown(workspace.best_model)}, the history" if running.has_best_model else "history is"
    show(f"The {model} in {shown(workspace.list_acc)}")
    if plan.writes_report:
        write_report_softly(workspace, show)


def write_report_softly(workspace: Workspace, show: Callable[[str], None]) -> None:
    """Writes the report as the last thing: the search is done, whatever becomes of its page."""
    try:
        from rml_report import write_report

        show(f"The report is {shown(write_report(workspace, workspace.report))}")
    except Exception as error:  # noqa: BLE001 - told in one line: it must not turn a search that worked into a failure
        show(f"No report was written: {' '.join(str(error).split())}; `report` writes it again")


def _evaluate_on_test_images(workspace: Workspace, runtime: Runtime, num_procs: int) -> InferenceResult:
    """Runs the best model on the test images, which have had no part in choosing it; its predictions are kept."""
    config = choose_inference_config(workspace, None)
    move_predictions_aside(workspace, config, datetime.now())
    return run_inference(config, workspace, runtime, num_procs=num_procs)
