"""Hyperparameter search for image segmentation with rmldnn: the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from rml_commands import options
from rml_commands.program import run_program
from rml_search.display_name import display_name
from rml_search.errors import OptionError
from rml_search.executor.options import ExecutorName, SlurmChoice, shared_with_workers
from rml_search.limits import Limits
from rml_search.options import (
    DEFAULT_PRUNER,
    BestFormat,
    ConfirmOptions,
    JobChoice,
    RuntimeChoice,
    RuntimeName,
    SamplerName,
    StudyChoice,
    parse_jobs,
    shared_choice,
    split_list,
)
from rml_search.paths import Workspace, shown
from rml_search.plan import SearchPlan
from rml_search.request import SearchRequest
from rml_search.tracking_choice import TrackingChoice
from rmldnn_contract import __version__

app = typer.Typer(
    help="Find the optimizer, loss and learning rate that segment images best with rmldnn.",
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
    validation_fraction: options.ValidationOption = None,
    confirm: options.ConfirmOption = None,
    confirm_seeds: options.ConfirmSeedsOption = 3,
    fresh: options.FreshOption = False,
    sampler: options.SamplerOption = SamplerName.TPE,
    pruner: options.PrunerOption = DEFAULT_PRUNER,
    allow_duplicates: options.DuplicatesOption = False,
    warm_start: options.WarmStartOption = None,
    enqueue: options.EnqueueOption = None,
    keep_top: options.KeepTopOption = 1,
    storage: options.StorageOption = None,
    study_name: options.StudyNameOption = None,
    artifacts: options.ArtifactsOption = None,
    heartbeat: options.HeartbeatOption = 15.0,
    jobs: options.JobsOption = "1",
    devices: options.DevicesOption = None,
    timeout: options.TimeoutOption = None,
    trial_timeout: options.TrialTimeoutOption = None,
    stall_timeout: options.StallTimeoutOption = None,
    target_accuracy: options.TargetAccuracyOption = None,
    max_consecutive_failures: options.MaxFailuresOption = 3,
    retries: options.RetriesOption = 1,
    report: options.ReportOption = True,
    executor: options.ExecutorOption = ExecutorName.LOCAL,
    workers: options.WorkersOption = None,
    slurm_partition: options.SlurmPartitionOption = None,
    slurm_gpus: options.SlurmGpusOption = None,
    slurm_cpus: options.SlurmCpusOption = None,
    slurm_memory: options.SlurmMemoryOption = None,
    slurm_time: options.SlurmTimeOption = None,
    slurm_account: options.SlurmAccountOption = None,
    slurm_option: options.SlurmFurtherOption = None,
    no_wait: options.WaitOption = False,
    tensorboard: options.TensorBoardOption = None,
    mlflow: options.MlflowOption = None,
    plain: options.PlainOption = False,
    quiet: options.QuietOption = False,
    as_json: options.JsonOption = False,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Find the optimizer, loss and learning rate that segment images best with rmldnn.

    Without a command, the options below start a search in the current folder. The best model is saved to
    best_model/, the history of all trials to list_acc.json. `infer` runs the model on the test images.
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
        validation_fraction=validation_fraction,
    )
    plan = SearchPlan(
        StudyChoice(sampler, pruner, fresh, allow_duplicates, warm_start, tuple(enqueue or ())),
        JobChoice(parse_jobs(jobs), split_list(devices)),
        Limits(timeout, trial_timeout, stall_timeout, target_accuracy, max_consecutive_failures, retries),
        keep_top,
        None if confirm is None else ConfirmOptions(confirm, confirm_seeds),
        report,
        shared_choice(shared_with_workers(executor, storage), study_name, artifacts, heartbeat),
        SlurmChoice(
            workers,
            slurm_partition,
            slurm_gpus,
            slurm_cpus,
            slurm_memory,
            slurm_time,
            slurm_account,
            slurm_option,
            no_wait,
        ).for_executor(executor),
        TrackingChoice(tensorboard, mlflow),
        display_name(plain=plain, quiet=quiet, as_json=as_json),
    )
    choice = RuntimeChoice(runtime, docker_image, singularity_image, gpu)
    asked_for = request.resolve()
    from rml_commands.run import run_search

    run_search(asked_for, plan, Workspace(Path.cwd()), choice, typer.echo)


# --- the other commands ------------------------------------------------------------------------------


@app.command()
def infer(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Configuration to run.  [default: best_model/config_test.json]"),
    ] = None,
    gallery: Annotated[
        Path | None,
        typer.Option("--gallery", metavar="PNG", help="Draw inputs, ground truth and predictions to this file."),
    ] = None,
    worst_first: Annotated[
        bool, typer.Option("--worst-first", help="Show only the worst predictions in the gallery.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", metavar="DIR", help="Export PNG masks at the original image sizes to this new folder."
        ),
    ] = None,
    docker_image: options.DockerImageOption = None,
    singularity_image: options.SingularityImageOption = None,
    gpu: options.GpuOption = None,
    num_procs: options.NumProcsOption = 1,
    runtime: options.RuntimeOption = RuntimeName.AUTO,
) -> None:
    """Run the best model on the test images and save its predictions."""
    from rml_search.infer_command import InferOptions, infer_and_show

    choice = RuntimeChoice(runtime, docker_image, singularity_image)
    wanted = InferOptions(config, gallery, num_procs, worst_first, export)
    infer_and_show(wanted, Workspace(Path.cwd()), choice, gpu, typer.echo)


@app.command()
def best(
    best_format: options.BestFormatOption = BestFormat.TABLE,
    storage: options.SharedStorageOption = None,
    study_name: options.StudyNameOption = None,
) -> None:
    """Show the best trial of the search in this folder or a storage."""
    from rml_commands.best import describe_best

    typer.echo(describe_best(best_format, Workspace(Path.cwd()), shared_choice(storage, study_name)))


@app.command()
def status(
    ctx: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Folder of the search.  [default: here]")] = None,
    storage: options.SharedStorageOption = None,
    study_name: options.StudyNameOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Show the progress of a search, also while it runs."""
    from rml_commands.status import folder_progress, storage_progress
    from rml_search.status_output import status_text

    shared = shared_choice(storage, study_name)
    if folder is not None and shared is not None:
        if _is_typed(ctx, "storage"):
            raise OptionError("give a folder or --storage, not both")
        shared = None  # only the environment names a storage
    progress = folder_progress(Workspace(folder or Path())) if shared is None else storage_progress(shared)
    typer.echo(status_text(progress, as_json=as_json))


@app.command()
def report(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for report.html.  [default: report]")
    ] = None,
    storage: options.SharedStorageOption = None,
    study_name: options.StudyNameOption = None,
) -> None:
    """Write a report on the search in this folder or a storage."""
    from rml_report.page import write_report

    path = write_report(Workspace(Path.cwd()), out, shared_choice(storage, study_name))
    typer.echo(f"The report is in {shown(path)}")


@app.command()
def prepare(
    ctx: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder or zip file of images and masks, as from Kaggle.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="New folder for the dataset.")] = Path("data"),
    test_fraction: Annotated[
        float, typer.Option("--test-fraction", metavar="X", help="Share of test images per class.")
    ] = 0.1,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of the random split.")] = 0,
    split: Annotated[
        Path | None, typer.Option("--split", metavar="CSV", help="Use a given split: columns name and split.")
    ] = None,
) -> None:
    """Make a dataset from a folder or zip file of images and masks."""
    from rml_search.plain_output import prepare_table

    if split is not None and (_is_typed(ctx, "test_fraction") or _is_typed(ctx, "seed")):
        raise OptionError("--split decides which images test: leave out --test-fraction and --seed")

    from rml_search.prepare import SplitChoice
    from rml_search.prepare import prepare as prepare_data_set

    summary = prepare_data_set(source, out, split=SplitChoice(test_fraction, seed, split), report=typer.echo)
    typer.echo(prepare_table(summary))
    typer.echo(f"The dataset is in {out}; {out / 'split.csv'} lists the split")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the demo.")] = Path("demo"),
    plain: options.PlainOption = False,
) -> None:
    """Search, train and predict on synthetic images, on the CPU."""
    from rml_commands.run import run_search
    from rml_report.page import write_report_softly
    from rml_search.demo import demo_options, write_demo_files
    from rml_search.infer_command import InferOptions, infer_and_show
    from rml_search.runtime.choice import prepare_runtime

    started = time.monotonic()
    workspace = Workspace(out)
    choice = RuntimeChoice(RuntimeName.LOCAL, gpu=False)
    prepare_runtime(choice, workspace, gpu=False, num_procs=1, show=typer.echo)
    typer.echo(f"Generating synthetic ultrasound images in {out}")
    write_demo_files(workspace.root)
    # Written once the predictions are there.
    plan = SearchPlan(StudyChoice(is_fresh=True), writes_report=False, display=display_name(plain=plain))
    run_search(demo_options(workspace.root), plan, workspace, choice, typer.echo)
    infer_and_show(InferOptions(gallery=out / "gallery.png"), workspace, choice, False, typer.echo)
    write_report_softly(workspace, typer.echo)
    typer.echo(f"The demo took {time.monotonic() - started:.0f} s")


@app.command()
def doctor(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of the dataset.")] = Path("./data"),
    layers: Annotated[Path, typer.Option("--layers", metavar="FILE", help="Network file.")] = Path("./layers.json"),
    docker_image: Annotated[
        str | None,
        typer.Option(
            "--docker-image", "-docker", metavar="IMAGE", help="Docker image.  [default: RocketML's and this project's]"
        ),
    ] = None,
    singularity_image: options.SingularityImageOption = None,
    image_size: options.ImageSizeOption = None,
    batch_size: options.BatchSizeOption = None,
) -> None:
    """Check that everything a search needs is present."""
    from rml_search.doctor import Plan, examine
    from rml_search.plain_output import doctor_table

    plan = Plan(data, layers, docker_image, singularity_image, image_size or (256, 256), batch_size or 32)
    diagnosis = examine(Workspace(Path.cwd()), plan)
    typer.echo(doctor_table(diagnosis))
    if diagnosis.obstacle is not None:
        raise diagnosis.obstacle


# --- what commands have in common --------------------------------------------------------------------


def _refuse_options_before(ctx: typer.Context, command: str) -> None:
    for parameter in ctx.command.params:
        if parameter.name is not None and _is_typed(ctx, parameter.name):
            raise OptionError(f"{parameter.opts[0]} comes before {command}: put it after")


def _is_typed(ctx: typer.Context, parameter: str) -> bool:
    """Whether the person has given it, and not the environment or a default."""
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def main() -> None:
    """Runs the command line."""
    run_program(app)


if __name__ == "__main__":
    main()
