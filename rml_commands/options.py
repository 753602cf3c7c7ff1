"""The options of the command line, as Typer has them: names, help, and what they take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rml_search.completion import complete_files, complete_names
from rml_search.executor.options import ExecutorName
from rml_search.options import (
    DEFAULT_DOCKER_IMAGE,
    LOSS_NAMES,
    OPTIMIZER_NAMES,
    STORAGE_VARIABLE,
    BestFormat,
    Objective,
    PrunerName,
    RuntimeName,
    SamplerName,
)

# --- what several commands share ------------------------------------------------------------------------

RuntimeOption = Annotated[
    RuntimeName,
    typer.Option("--runtime", help="How to start the engine; auto: the named image, if any, decides."),
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
    typer.Option("--gpu/--no-gpu", help="Use the GPU, or not.  [default: if there is one]", show_default=False),
]
NumProcsOption = Annotated[
    int, typer.Option("--num_procs", "--num-procs", metavar="N", help="Processes per engine run (mpirun).")
]

# --- what is searched ----------------------------------------------------------------------------------

NumEpochsOption = Annotated[
    int | None, typer.Option("--num-epochs", "-ne", metavar="N", help="Epochs per trial.  [required]")
]
NumTrialsOption = Annotated[
    int | None,
    typer.Option(
        "--num-trials", "-nt", metavar="N", help="Total number of trials, finished ones included.  [required]"
    ),
]
OptimizersOption = Annotated[
    str | None,
    typer.Option(
        "--optimizers",
        "-o",
        metavar="LIST",
        help=f"Comma-separated: {', '.join(OPTIMIZER_NAMES)}.",
        autocompletion=complete_names(OPTIMIZER_NAMES),
    ),
]
LossOption = Annotated[
    str | None,
    typer.Option(
        "--loss",
        "-l",
        metavar="LIST",
        help=f"Comma-separated: {', '.join(LOSS_NAMES)}.",
        autocompletion=complete_names(LOSS_NAMES),
    ),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="LIST",
        help="Network files in Keras's model.to_json() format, comma-separated.  [default: ./layers.json]",
        autocompletion=complete_files,
    ),
]
LrRangeMinOption = Annotated[
    float | None,
    typer.Option("--lr-range-min", "-lr-min", metavar="X", help="Smallest learning rate.  [default: 0.001]"),
]
LrRangeMaxOption = Annotated[
    float | None,
    typer.Option("--lr-range-max", "-lr-max", metavar="X", help="Largest learning rate.  [default: 0.01]"),
]
LrSchedulerOption = Annotated[
    bool, typer.Option("--lr-scheduler/--no-lr-scheduler", help="Decay the learning rate exponentially.")
]
LrSchedulerGammaOption = Annotated[
    float, typer.Option("--lr-scheduler-gamma", "-lr-gamma", metavar="X", help="Decay factor per epoch.")
]
TransferLearningOption = Annotated[
    Path | None,
    typer.Option("--transfer-learning", "-tl", metavar="FILE", help="Weights to start from, .h5 or .pt."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder with {train,test}/{inputs,targets}.  [default: ./data]"),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", min=1, help="Images per training batch.  [default: 32]"),
]
TestBatchSizeOption = Annotated[
    int | None, typer.Option("--test-batch-size", metavar="N", min=1, help="Images per test batch.  [default: 64]")
]
ImageSizeOption = Annotated[
    tuple[int, int] | None,
    typer.Option("--image-size", metavar="WIDTH HEIGHT", help="Resize images to this size.  [default: 256 256]"),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Your own rmldnn configuration; only searched keys change."),
]
SearchSpaceOption = Annotated[
    Path | None,
    typer.Option("--search-space", metavar="FILE", help="TOML file with more hyperparameters; see docs/how-to."),
]
ValidationOption = Annotated[
    float | None,
    typer.Option(
        "--validation-fraction",
        metavar="X",
        help="Hold out this share of the training images to select epoch and trial.",
    ),
]
ConfirmOption = Annotated[
    int | None,
    typer.Option("--confirm", metavar="K", help="Retrain the K best trials with other seeds and rank by the mean."),
]
ConfirmSeedsOption = Annotated[int, typer.Option("--confirm-seeds", metavar="N", help="Seeds per retrained trial.")]
ObjectiveOption = Annotated[
    str,
    typer.Option(
        "--objective",
        metavar="LIST",
        help="accuracy, or accuracy,seconds for a Pareto front.",
        autocompletion=complete_names([objective.value for objective in Objective]),
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed for a reproducible search.")]

# --- how it is searched --------------------------------------------------------------------------------

FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Start over; earlier results move to earlier/.  [default: resume]")
]
SamplerOption = Annotated[SamplerName, typer.Option("--sampler", help="How to choose hyperparameters.")]
PrunerOption = Annotated[
    PrunerName, typer.Option("--pruner", help="How to stop unpromising trials early; none: never.")
]
DuplicatesOption = Annotated[bool, typer.Option("--allow-duplicates", help="Allow the same point more than once.")]
WarmStartOption = Annotated[
    Path | None, typer.Option("--warm-start", metavar="FILE", help="Learn from another search's study.db.")
]
EnqueueOption = Annotated[
    list[str] | None,
    typer.Option("--enqueue", metavar="JSON", help='Point to try first, such as {"optimizer": "adam"}; repeatable.'),
]
KeepTopOption = Annotated[int, typer.Option("--keep-top", metavar="K", help="Keep checkpoints of the K best trials.")]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar=STORAGE_VARIABLE,
        show_envvar=False,
        help="Share the study with other drivers: postgresql://..., mysql://... or DIR/NAME.journal.  [RML_STORAGE]",
    ),
]
SharedStorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar=STORAGE_VARIABLE,
        show_envvar=False,
        help="Storage of a shared study: postgresql://..., mysql://... or DIR/NAME.journal.  [RML_STORAGE]",
    ),
]
StudyNameOption = Annotated[
    str | None,
    typer.Option("--study-name", metavar="NAME", help="Name of the study in the storage.  [default: rml-optimization]"),
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        metavar="DIR",
        help="Where drivers share the best model: DIR or s3://...  [default: next to the journal]",
    ),
]
HeartbeatOption = Annotated[
    float,
    typer.Option(
        "--heartbeat", metavar="S", help="Seconds between heartbeats; a driver silent for four times this is lost."
    ),
]
JobsOption = Annotated[
    str, typer.Option("--jobs", "-j", metavar="N", help="Trials to run in parallel; auto: measure what is fastest.")
]
DevicesOption = Annotated[
    str | None, typer.Option("--devices", metavar="LIST", help="GPUs to use, such as 0,1.  [default: all]")
]

# --- when it ends --------------------------------------------------------------------------------------

TimeoutOption = Annotated[float | None, typer.Option("--timeout", metavar="S", help="End the search after S seconds.")]
TrialTimeoutOption = Annotated[
    float | None, typer.Option("--trial-timeout", metavar="S", help="End a trial after S seconds.")
]
StallTimeoutOption = Annotated[
    float | None,
    typer.Option("--stall-timeout", metavar="S", help="Stop and retry a trial that prints nothing for S seconds."),
]
TargetAccuracyOption = Annotated[
    float | None,
    typer.Option("--target-accuracy", metavar="X", help="End the search when a trial reaches this accuracy."),
]
MaxFailuresOption = Annotated[
    int, typer.Option("--max-consecutive-failures", metavar="N", help="End the search after N failed trials in a row.")
]
RetriesOption = Annotated[
    int, typer.Option("--retries", metavar="N", help="Retries after failures caused by the machine.")
]

# --- where it runs -------------------------------------------------------------------------------------

ExecutorOption = Annotated[
    ExecutorName,
    typer.Option(
        "--executor",
        help="Run trials here, or as cluster jobs that share --storage.  [slurm: ./trials/study.journal]",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Cluster jobs that share the trials.  [default: 1]")
]
SlurmPartitionOption = Annotated[
    str | None, typer.Option("--slurm-partition", metavar="NAME", help="Partition of the jobs.")
]
SlurmGpusOption = Annotated[str | None, typer.Option("--slurm-gpus", metavar="N", help="GPUs per job, or TYPE:N.")]
SlurmCpusOption = Annotated[int | None, typer.Option("--slurm-cpus", metavar="N", help="CPU cores per job.")]
SlurmMemoryOption = Annotated[
    str | None, typer.Option("--slurm-memory", metavar="SIZE", help="Memory per job, such as 32G.")
]
SlurmTimeOption = Annotated[
    str | None,
    typer.Option("--slurm-time", metavar="TIME", help="Time limit per job.  [default: 24:00:00]"),
]
SlurmAccountOption = Annotated[
    str | None, typer.Option("--slurm-account", metavar="NAME", help="Account to charge the jobs to.")
]
SlurmFurtherOption = Annotated[
    list[str] | None,
    typer.Option("--slurm-option", metavar="NAME=VALUE", help="Any other option of sbatch; repeatable."),
]
WaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Submit the jobs and exit; run the same command again to monitor them.")
]

# --- what it leaves ------------------------------------------------------------------------------------

ReportOption = Annotated[
    bool, typer.Option("--report/--no-report", help="Write report/report.html when the search ends.")
]
TensorBoardOption = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Also log trials and epochs to TensorBoard.")
]
MlflowOption = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="URI", help="Also log to MLflow: http://HOST:PORT or sqlite:///mlflow.db."),
]

# --- what is shown of it -------------------------------------------------------------------------------

PlainOption = Annotated[
    bool, typer.Option("--plain", help="Print a line per epoch and trial.  [default: a live view on a terminal]")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the last table and errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line, for programs.")]

# --- what `best` takes ---------------------------------------------------------------------------------

BestFormatOption = Annotated[
    BestFormat, typer.Option("--format", help="table for people; json, toml or env for programs.")
]
