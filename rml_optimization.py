"""Hyperparameter search for image segmentation with rmldnn: the command line."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from rml_search.errors import OptionError, SearchError
from rml_search.interruption import Interrupted, interruptible
from rml_search.options import (
    DEFAULT_DOCKER_IMAGE,
    LOSS_NAMES,
    OPTIMIZER_NAMES,
    RuntimeChoice,
    RuntimeName,
    SearchOptions,
    check_transfer_learning_file,
    parse_names,
)
from rml_search.paths import Workspace, shown
from rmldnn_contract import __version__

if TYPE_CHECKING:
    from rml_search.runtime.base import Runtime

Value = TypeVar("Value")

_BROKEN_PIPE = 128 + 13  # what a shell reports of a program that SIGPIPE has ended

app = typer.Typer(
    help="Searches the optimizer, loss and learning rate that segment images best with rmldnn.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


# --- options that several commands share -------------------------------------------------------------

RuntimeOption = Annotated[
    RuntimeName,
    typer.Option("--runtime", help="How the engine is started; auto: an image that is named decides."),
]
DockerImageOption = Annotated[
    str | None,
    typer.Option(
        "--docker-image", "-docker", metavar="IMAGE", help=f"Docker image.  [default: {DEFAULT_DOCKER_IMAGE}]"
    ),
]
SingularityImageOption = Annotated[
    str | None,
    typer.Option("--singularity-image", "-singularity", metavar="IMAGE", help="Singularity or Apptainer image."),
]
GpuOption = Annotated[
    bool | None,
    typer.Option("--gpu/--no-gpu", help="Use the GPU, or not.  [default: where there is one]", show_default=False),
]
NumProcsOption = Annotated[
    int, typer.Option("--num_procs", "--num-procs", metavar="N", help="Processes of one training (mpirun).")
]


# --- search, the default command ---------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def search(
    ctx: typer.Context,
    num_epochs: Annotated[
        int | None,
        typer.Option("--num-epochs", "-ne", metavar="N", help="Epochs of each trial.  [required]"),
    ] = None,
    num_trials: Annotated[
        int | None,
        typer.Option("--num-trials", "-nt", metavar="N", help="Trials of the search.  [required]"),
    ] = None,
    docker_image: DockerImageOption = None,
    singularity_image: SingularityImageOption = None,
    gpu: GpuOption = None,
    num_procs: NumProcsOption = 1,
    optimizers: Annotated[
        str | None,
        typer.Option(
            "--optimizers", "-o", metavar="LIST", help=f"Of {', '.join(OPTIMIZER_NAMES)}; with commas.  [required]"
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option("--loss", "-l", metavar="LIST", help=f"Of {', '.join(LOSS_NAMES)}; with commas.  [required]"),
    ] = None,
    layers: Annotated[
        Path,
        typer.Option(
            "--layers",
            metavar="FILE",
            help="Network, as Keras's model.to_json() writes it.  [default: ./layers.json]",
            show_default=False,
        ),
    ] = Path("./layers.json"),
    lr_range_min: Annotated[
        float, typer.Option("--lr-range-min", "-lr-min", metavar="X", help="Least learning rate.")
    ] = 0.001,
    lr_range_max: Annotated[
        float, typer.Option("--lr-range-max", "-lr-max", metavar="X", help="Largest learning rate.")
    ] = 0.01,
    lr_scheduler: Annotated[
        bool, typer.Option("--lr-scheduler/--no-lr-scheduler", help="Let the learning rate decay exponentially.")
    ] = False,
    lr_scheduler_gamma: Annotated[
        float, typer.Option("--lr-scheduler-gamma", "-lr-gamma", metavar="X", help="Its factor for each epoch.")
    ] = 0.95,
    transfer_learning: Annotated[
        Path | None,
        typer.Option("--transfer-learning", "-tl", metavar="FILE", help="Weights to start from, .h5 or .pt."),
    ] = None,
    runtime: RuntimeOption = RuntimeName.AUTO,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder with {train,test}/{inputs,targets}.  [default: ./data]",
            show_default=False,
        ),
    ] = Path("./data"),
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", help="Images of a training batch.")] = 32,
    test_batch_size: Annotated[int, typer.Option("--test-batch-size", metavar="N", help="Of a test batch.")] = 64,
    image_size: Annotated[
        tuple[int, int],
        typer.Option(
            "--image-size",
            metavar="WIDTH HEIGHT",
            help="Images are resized to this.  [default: 256 256]",
            show_default=False,
        ),
    ] = (256, 256),
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Makes the search repeatable.")] = None,
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
    options = SearchOptions(
        num_trials=_required("--num-trials", num_trials),
        num_epochs=_required("--num-epochs", num_epochs),
        optimizers=parse_names("--optimizers", "optimizer", _required("--optimizers", optimizers), OPTIMIZER_NAMES),
        losses=parse_names("--loss", "loss", _required("--loss", loss), LOSS_NAMES),
        layers=layers,
        data=data,
        lr_range=(lr_range_min, lr_range_max),
        lr_scheduler_gamma=lr_scheduler_gamma if lr_scheduler else None,
        transfer_learning=transfer_learning,
        batch_size=batch_size,
        test_batch_size=test_batch_size,
        image_size=image_size,
        num_procs=num_procs,
        seed=seed,
    )
    choice = RuntimeChoice(runtime, docker_image, singularity_image)
    run_search(options, Workspace(Path.cwd()), choice, gpu)


def run_search(options: SearchOptions, workspace: Workspace, choice: RuntimeChoice, gpu: bool | None) -> None:
    """Checks everything, moves earlier results aside, runs the search and shows its tables.

    Raises:
        SearchError: something is not as the search needs it; nothing was started or moved, or what had
            finished by then is kept.
    """
    from rml_search.dataset import check_data_set, data_set_folders
    from rml_search.links import check_links
    from rml_search.lock import only_search_in
    from rml_search.network_file import check_losses, check_network_file
    from rml_search.plain_output import settings_table
    from rml_search.runtime.choice import prepare_runtime

    network = check_network_file(options.layers)
    check_losses(network, options.losses)
    options = replace(options, grayscale=network.input_channels == 1, loss_source=network.loss_source)
    if options.transfer_learning is not None:
        check_transfer_learning_file(options.transfer_learning)
    summary = check_data_set(options.data)
    ready = prepare_runtime(choice, workspace, gpu, options.num_procs, typer.echo)
    if ready.runtime.in_container:
        check_links(data_set_folders(options.data), workspace)
    with only_search_in(workspace):
        ready.runtime.remove_leftovers()
        typer.echo(settings_table(options, summary, ready.runtime.describe(), ready.reason, ready.device))
        _search(options, workspace, ready.runtime)


def _search(options: SearchOptions, workspace: Workspace, runtime: Runtime) -> None:
    from rml_optuna import Search
    from rml_search.plain_output import PlainObserver, best_table
    from rml_search.results import earlier_results_aside

    running = Search(options, workspace, runtime, PlainObserver(options, typer.echo))
    try:
        with earlier_results_aside(workspace, typer.echo):
            running.run()
    finally:
        typer.echo(best_table([result.to_record() for result in running.results]))
    typer.echo(f"The best model is in {shown(workspace.best_model)}, the history in {shown(workspace.list_acc)}")


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
    docker_image: DockerImageOption = None,
    singularity_image: SingularityImageOption = None,
    gpu: GpuOption = None,
    num_procs: NumProcsOption = 1,
    runtime: RuntimeOption = RuntimeName.AUTO,
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
    run_search(demo_options(workspace.root), workspace, choice, gpu=False)
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


def _required(option: str, value: Value | None) -> Value:
    if value is None:
        raise OptionError(f"{option} is missing; see --help")
    return value


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
