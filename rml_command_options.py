"""The options of the command line, as Typer has them: names, help, and what they take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rml_search.options import (
    DEFAULT_DOCKER_IMAGE,
    LOSS_NAMES,
    OPTIMIZER_NAMES,
    PrunerName,
    RuntimeName,
    SamplerName,
)

# --- what several commands share ------------------------------------------------------------------------

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

# --- what is searched ----------------------------------------------------------------------------------

NumEpochsOption = Annotated[
    int | None, typer.Option("--num-epochs", "-ne", metavar="N", help="Epochs of each trial.  [required]")
]
NumTrialsOption = Annotated[
    int | None,
    typer.Option("--num-trials", "-nt", metavar="N", help="Trials of the search, earlier parts too.  [required]"),
]
OptimizersOption = Annotated[
    str | None,
    typer.Option(
        "--optimizers", "-o", metavar="LIST", help=f"Of {', '.join(OPTIMIZER_NAMES)}; with commas.  [required]"
    ),
]
LossOption = Annotated[
    str | None,
    typer.Option("--loss", "-l", metavar="LIST", help=f"Of {', '.join(LOSS_NAMES)}; with commas.  [required]"),
]
LayersOption = Annotated[
    Path,
    typer.Option(
        "--layers",
        metavar="FILE",
        help="Network, as Keras's model.to_json() writes it.  [default: ./layers.json]",
        show_default=False,
    ),
]
LrRangeMinOption = Annotated[float, typer.Option("--lr-range-min", "-lr-min", metavar="X", help="Least learning rate.")]
LrRangeMaxOption = Annotated[
    float, typer.Option("--lr-range-max", "-lr-max", metavar="X", help="Largest learning rate.")
]
LrSchedulerOption = Annotated[
    bool, typer.Option("--lr-scheduler/--no-lr-scheduler", help="Let the learning rate decay exponentially.")
]
LrSchedulerGammaOption = Annotated[
    float, typer.Option("--lr-scheduler-gamma", "-lr-gamma", metavar="X", help="Its factor for each epoch.")
]
TransferLearningOption = Annotated[
    Path | None,
    typer.Option("--transfer-learning", "-tl", metavar="FILE", help="Weights to start from, .h5 or .pt."),
]
DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder with {train,test}/{inputs,targets}.  [default: ./data]",
        show_default=False,
    ),
]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", metavar="N", help="Images of a training batch.")]
TestBatchSizeOption = Annotated[int, typer.Option("--test-batch-size", metavar="N", help="Of a test batch.")]
ImageSizeOption = Annotated[
    tuple[int, int],
    typer.Option(
        "--image-size",
        metavar="WIDTH HEIGHT",
        help="Images are resized to this.  [default: 256 256]",
        show_default=False,
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="Makes the search repeatable.")]

# --- how it is searched --------------------------------------------------------------------------------

FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Start over; earlier results move to earlier/.  [default: go on]")
]
SamplerOption = Annotated[SamplerName, typer.Option("--sampler", help="What draws hyperparameters.")]
PrunerOption = Annotated[PrunerName, typer.Option("--pruner", help="What ends hopeless trials early.")]
DuplicatesOption = Annotated[bool, typer.Option("--allow-duplicates", help="Try points again that were tried.")]
WarmStartOption = Annotated[
    Path | None, typer.Option("--warm-start", metavar="FILE", help="study.db of another search to learn from.")
]
EnqueueOption = Annotated[
    list[str] | None,
    typer.Option("--enqueue", metavar="JSON", help='Try first, as {"optimizer": "adam"}; may be repeated.'),
]
JobsOption = Annotated[int, typer.Option("--jobs", "-j", metavar="N", help="Trials that run at a time.")]
DevicesOption = Annotated[
    str | None, typer.Option("--devices", metavar="LIST", help="GPUs to use, such as 0,1.  [default: all]")
]

# --- when it ends --------------------------------------------------------------------------------------

TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", metavar="S", help="Seconds after which the search ends.")
]
TrialTimeoutOption = Annotated[
    float | None, typer.Option("--trial-timeout", metavar="S", help="Seconds after which a trial ends.")
]
StallTimeoutOption = Annotated[
    float | None, typer.Option("--stall-timeout", metavar="S", help="Seconds without a line: the trial has failed.")
]
TargetAccuracyOption = Annotated[
    float | None, typer.Option("--target-accuracy", metavar="X", help="The search ends when a trial reaches it.")
]
MaxFailuresOption = Annotated[
    int, typer.Option("--max-consecutive-failures", metavar="N", help="So many failed trials in a row end the search.")
]
RetriesOption = Annotated[
    int, typer.Option("--retries", metavar="N", help="Further tries after failures of the machine.")
]

# --- what is shown of it -------------------------------------------------------------------------------

PlainOption = Annotated[
    bool, typer.Option("--plain", help="A line for each epoch and trial.  [default: a live view on a terminal]")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only the last table, and errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For other programs: one JSON object a line.")]
