"""Hyperparameter search for image segmentation with rmldnn: the command line."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import rml_command_options as options
from rml_search.devices import Slot, plan_slots
from rml_search.display import Display, DisplayName, SearchEnd, SearchFacts, display_name, open_display
from rml_search.errors import OptionError, SearchError
from rml_search.interruption import Interrupted, interruptible
from rml_search.limits import Limits
from rml_search.options import (
    JobChoice,
    PrunerName,
    RuntimeChoice,
    RuntimeName,
    SamplerName,
    SearchOptions,
    StudyChoice,
    check_precision,
    check_transfer_learning_file,
    split_list,
)
from rml_search.paths import Workspace
from rml_search.request import SearchRequest
from rml_search.results import earlier_results_aside, finish_move_back
from rmldnn_contract import __version__

if TYPE_CHECKING:
    from rml_search.runtime.base import Runtime

_BROKEN_PIPE = 128 + 13  # what a shell reports of a program that SIGPIPE has ended

app = typer.Typer(
    help="Searches the optimizer, loss and learning rate that segment images best with rmldnn.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


# --- search, the default command ---------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def search(
    ctx: typer.Context,
    num_epochs: options.NumEpochsOption = None,
    num_trials: options.NumTrialsOption = None,
    docker_image: options.DockerImageOption = None,
    singularity_image: options.SingularityImageOption = None,
    gpu: options.GpuOption = None,
    num_procs: options.NumProcsOption = 1,
    optimizers: options.OptimizersOption = None,
    loss: options.LossOption = None,
    layers: options.LayersOption = None,
    lr_range_min: options.LrRangeMinOption = None,
    lr_range_max: options.LrRangeMaxOption = None,
    lr_scheduler: options.LrSchedulerOption = False,
    lr_scheduler_gamma: options.LrSchedulerGammaOption = 0.95,
    transfer_learning: options.TransferLearningOption = None,
    runtime: options.RuntimeOption = RuntimeName.AUTO,
    data: options.DataOption = None,
    batch_size: options.BatchSizeOption = None,
    test_batch_size: options.TestBatchSizeOption = None,
    image_size: options.ImageSizeOption = None,
    seed: options.SeedOption = None,
    config: options.ConfigOption = None,
    search_space: options.SearchSpaceOption = None,
    objective: options.ObjectiveOption = "accuracy",
    fresh: options.FreshOption = False,
    sampler: options.SamplerOption = SamplerName.TPE,
    pruner: options.PrunerOption = PrunerName.NONE,
    allow_duplicates: options.DuplicatesOption = False,
    warm_start: options.WarmStartOption = None,
    enqueue: options.EnqueueOption = None,
    keep_top: options.KeepTopOption = 1,
    jobs: options.JobsOption = 1,
    devices: options.DevicesOption = None,
    timeout: options.TimeoutOption = None,
    trial_timeout: options.TrialTimeoutOption = None,
    stall_timeout: options.StallTimeoutOption = None,
    target_accuracy: options.TargetAccuracyOption = None,
    max_consecutive_failures: options.MaxFailuresOption = 3,
    retries: options.RetriesOption = 1,
    plain: options.PlainOption = False,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Searches the optimizer, loss and learning rate that segment images best with rmldnn.

    Without a command, the options below start a search in the current folder. The best model goes to
    best_model/, the history of all trials to list_acc.json; then `infer` runs it on the test images.
    """
    if version:
        typer.echo(f"rml-optimization {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is not None:
        _refuse_options_before(ctx, ctx.invoked_subcommand)
        return
    request = SearchRequest(
        num_trials=num_trials,
        num_epochs=num_epochs,
        optimizers=optimizers,
        loss=loss,
        layers=layers,
        data=data,
        lr_range_min=lr_range_min,
        lr_range_max=lr_range_max,
        lr_scheduler_gamma=lr_scheduler_gamma if lr_scheduler else None,
        transfer_learning=transfer_learning,
        batch_size=batch_size,
        test_batch_size=test_batch_size,
        image_size=image_size,
        num_procs=num_procs,
        seed=seed,
        config=config,
        search_space=search_space,
        objective=objective,
    )
    plan = SearchPlan(
        StudyChoice(sampler, pruner, fresh, allow_duplicates, warm_start, tuple(enqueue or ())),
        JobChoice(jobs, split_list(devices)),
        Limits(timeout, trial_timeout, stall_timeout, target_accuracy, max_consecutive_failures, retries),
        keep_top,
        display_name(plain=plain, quiet=quiet, as_json=as_json),
    )
    choice = RuntimeChoice(runtime, docker_image, singularity_image)
    run_search(request.resolve(), plan, Workspace(Path.cwd()), choice, gpu)


@dataclass(frozen=True)
class SearchPlan:
    """How a search goes about: what draws its trials, how many run at a time, when they end, what is kept of them."""

    study: StudyChoice = field(default_factory=StudyChoice)
    jobs: JobChoice = field(default_factory=JobChoice)
    limits: Limits = field(default_factory=Limits)
    keep_top: int = 1
    display: DisplayName = DisplayName.PLAIN

    def __post_init__(self) -> None:
        if self.keep_top < 1:
            raise OptionError(f"--keep-top must be at least 1, not {self.keep_top}")


def run_search(
    options: SearchOptions, plan: SearchPlan, workspace: Workspace, choice: RuntimeChoice, gpu: bool | None
) -> None:
    """Checks everything, runs the search or goes on with the one in this folder, and shows its tables.

    Raises:
        SearchError: something is not as the search needs it; nothing was started or moved, or what had
            finished by then is kept.
    """
    from rml_search.dataset import check_data_set
    from rml_search.links import check_links
    from rml_search.lock import only_search_in
    from rml_search.network_file import check_networks
    from rml_search.plain_output import settings_rows
    from rml_search.runtime.choice import prepare_runtime
    from rml_search.space_check import check_space
    from rml_search.study_settings import data_places
    from rml_storage import can_go_on

    display = open_display(plan.display, typer.echo)
    check_precision()
    options = check_networks(options)
    check_space(options, workspace)
    if options.transfer_learning is not None:
        check_transfer_learning_file(options.transfer_learning)
    summary = None if options.data is None else check_data_set(options.data)
    ready = prepare_runtime(choice, workspace, gpu, options.num_procs, display.say)
    slots = plan_slots(plan.jobs.num_jobs, plan.jobs.devices, num_gpus=ready.num_gpus, num_procs=options.num_procs)
    if ready.runtime.in_container:
        check_links((place for place in data_places(options) if place.is_dir()), workspace)
    with only_search_in(workspace):
        ready.runtime.remove_leftovers()
        settings = settings_rows(options, plan.study, summary, ready, len(slots))
        finish_move_back(workspace)
        # A study that is there is gone on with; anything else that is there makes place.
        goes_on = not plan.study.is_fresh and can_go_on(workspace, options)
        with nullcontext() if goes_on else earlier_results_aside(workspace, display.say):
            _search(options, plan, workspace, ready.runtime, slots, settings, display)


def _search(
    options: SearchOptions,
    plan: SearchPlan,
    workspace: Workspace,
    runtime: Runtime,
    slots: Sequence[Slot],
    settings: Sequence[tuple[str, str]],
    display: Display,
) -> None:
    from rml_optuna import open_study
    from rml_search.search import Search
    from rml_storage import database_errors

    study = open_study(workspace, options, plan.study, display.say)
    observer = display.begin(SearchFacts(options, workspace, settings, study.records()))
    running = Search(options, workspace, runtime, study, observer, plan.limits, slots, plan.keep_top)
    error: str | None = None
    try:
        with display.watching(), database_errors(workspace):
            running.run()
    except BaseException as problem:
        error = str(problem)
        raise
    finally:
        with database_errors(workspace):
            display.end(SearchEnd(running.records, running.ended_early, error))
            study.close()


# --- the other commands ------------------------------------------------------------------------------


@app.command()
def infer(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Configuration.  [default: best_model/config_test.json]"),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option("--gallery", metavar="PNG", help="Draw input, prediction and ground truth into this file."),
    ] = None,
    docker_image: options.DockerImageOption = None,
    singularity_image: options.SingularityImageOption = None,
    gpu: options.GpuOption = None,
    num_procs: options.NumProcsOption = 1,
    runtime: options.RuntimeOption = RuntimeName.AUTO,
) -> None:
    """Run the best model on the test images and write its predictions."""
    from rml_search.infer_command import InferOptions, infer_and_show

    choice = RuntimeChoice(runtime, docker_image, singularity_image)
    infer_and_show(InferOptions(config, gallery, num_procs), Workspace(Path.cwd()), choice, gpu, typer.echo)


@app.command()
def best() -> None:
    """Show the best trial of the search in this folder."""
    from rml_search.plain_output import best_table
    from rml_search.results import read_list_acc

    typer.echo(best_table(read_list_acc(Workspace(Path.cwd()))))


@app.command()
def status(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the search runs.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for other programs.")] = False,
) -> None:
    """Say how far a search has come that runs elsewhere."""
    from rml_search.status_output import status_text
    from rml_status import folder_progress

    typer.echo(status_text(folder_progress(Workspace(folder)), as_json=as_json))


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Kaggle's folder or zip of images and masks.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the data set.")] = Path("data"),
    test_fraction: Annotated[
        float, typer.Option("--test-fraction", metavar="X", help="Share of test images in each class.")
    ] = 0.1,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Another seed, another split.")] = 0,
) -> None:
    """Make a data set of a folder of images and masks."""
    from rml_search.plain_output import prepare_table
    from rml_search.prepare import prepare as prepare_data_set

    summary = prepare_data_set(source, out, test_fraction=test_fraction, seed=seed, report=typer.echo)
    typer.echo(prepare_table(summary))
    typer.echo(f"The data set is in {out}; {out / 'split.csv'} says which image went where")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the demo.")] = Path("demo"),
    plain: options.PlainOption = False,
) -> None:
    """Search, train and infer on synthetic images, on the CPU."""
    from rml_search.demo import demo_options, write_demo_files
    from rml_search.infer_command import InferOptions, infer_and_show
    from rml_search.runtime.choice import prepare_runtime

    started = time.monotonic()
    workspace = Workspace(out)
    choice = RuntimeChoice(RuntimeName.LOCAL)
    prepare_runtime(choice, workspace, gpu=False, num_procs=1, show=typer.echo)
    typer.echo(f"Making synthetic ultrasound images in {out}")
    write_demo_files(workspace.root)
    display = display_name(plain=plain, quiet=False, as_json=False)
    plan = SearchPlan(StudyChoice(is_fresh=True), display=display)
    run_search(demo_options(workspace.root), plan, workspace, choice, gpu=False)
    infer_and_show(InferOptions(gallery=out / "gallery.png"), workspace, choice, False, typer.echo)
    typer.echo(f"The demo took {time.monotonic() - started:.0f} s")


@app.command()
def doctor(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of images and masks.")] = Path("./data"),
    layers: Annotated[Path, typer.Option("--layers", metavar="FILE", help="Network file.")] = Path("./layers.json"),
    docker_image: Annotated[
        str | None,
        typer.Option(
            "--docker-image", "-docker", metavar="IMAGE", help="Docker image.  [default: RocketML's and ours]"
        ),
    ] = None,
) -> None:
    """Say of each thing that a search needs whether it is there."""
    from rml_search.doctor import examine
    from rml_search.plain_output import doctor_table

    findings = examine(Workspace(Path.cwd()), data, layers, docker_image)
    typer.echo(doctor_table(findings))


# --- what commands have in common --------------------------------------------------------------------


def _refuse_options_before(ctx: typer.Context, command: str) -> None:
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise OptionError(f"--{name.replace('_', '-')} stands before {command}: put it after")


def main() -> None:
    """Runs the command line: errors that a person can mend become one line and an exit code."""
    from rmldnn_contract.exit_status import EngineError

    name = Path(sys.argv[0]).name
    try:
        with interruptible():
            sys.exit(app(standalone_mode=False, prog_name=name if name == "rml-optimization" else None))
    except SearchError as error:
        _fail(str(error), error.exit_code)
    except EngineError as error:
        _fail(str(error), int(error.exit_status))
    except Interrupted as error:
        _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        _fail(f"{error.format_message()} (see --help)", error.exit_code)
    except BrokenPipeError:
        # Nobody reads what is printed; Python would complain once more when it flushes it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)
    except Exception as error:  # noqa: BLE001 - told in one line, with the traceback in a file
        from rml_search.crash import explain_unexpected

        _fail(*explain_unexpected(error))


def _fail(message: str, exit_code: int) -> NoReturn:
    typer.echo(f"Error: {' '.join(message.split())}", err=True)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
