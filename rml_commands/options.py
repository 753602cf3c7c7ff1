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
        "--optimizers",
        "-o",
        metavar="LIST",
        help=f"Of {', '.join(OPTIMIZER_NAMES)}; with commas.",
        autocompletion=complete_names(OPTIMIZER_NAMES),
    ),
]
LossOption = Annotated[
    str | None,
    typer.Option(
        "--loss",
        "-l",
        metavar="LIST",
        help=f"Of {', '.join(LOSS_NAMES)}; with commas.",
        autocompletion=complete_names(LOSS_NAMES),
    ),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="LIST",
        help="Network files, as Keras's model.to_json() writes them; with commas.  [default: ./layers.json]",
        autocompletion=complete_files,
    ),
]
LrRangeMinOption = Annotated[
    float | None, typer.Option("--lr-range-min", "-lr-min", metavar="X", help="Least learning rate.  [default: 0.001]")
]
LrRangeMaxOption = Annotated[
    float | None,
    typer.Option("--lr-range-max", "-lr-max", metavar="X", help="Largest learning rate.  [default: 0.01]"),
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
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder with {train,test}/{inputs,targets}.  [default: ./data]"),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", min=1, help="Images of a training batch.  [default: 32]"),
]
TestBatchSizeOption = Annotated[
    int | None, typer.Option("--test-batch-size", metavar="N", min=1, help="Of a test batch.  [default: 64]")
]
ImageSizeOption = Annotated[
    tuple[int, int] | None,
    typer.Option("--image-size", metavar="WIDTH HEIGHT", help="Images are resized to this.  [default: 256 256]"),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Your own rmldnn configuration: it stays as it is but for what is searched."
    ),
]
SearchSpaceOption = Annotated[
    Path | None,
    typer.Option("--search-space", metavar="FILE", help="TOML file of further hyperparameters; see docs/how-to."),
]
ValidationOption = Annotated[
    float | None,
    typer.Option(
        "--validation-fraction", metavar="X", help="Choose epoch and trial on this share of the training images."
    ),
]
ConfirmOption = Annotated[
    int | None,
    typer.Option("--confirm", metavar="K", help="Train the K best again with other seeds, and rank by the mean."),
]
ConfirmSeedsOption = Annotated[int, typer.Option("--confirm-seeds", metavar="N", help="So many seeds for each.")]
ObjectiveOption = Annotated[
    str,
    typer.Option(
        "--objective",
        metavar="LIST",
        help="accuracy, or accuracy,seconds for a Pareto front.",
        autocompletion=complete_names([objective.value for objective in Objective]),
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="Makes the search repeatable.")]

# --- how it is searched --------------------------------------------------------------------------------

FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Start over; earlier results move to earlier/.  [default: go on]")
]
SamplerOption = Annotated[SamplerName, typer.Option("--sampler", help="What draws hyperparameters.")]
PrunerOption = Annotated[
    PrunerName, typer.Option("--pruner", help="What ends hopeless trials early; none: nothing does.")
]
DuplicatesOption = Annotated[bool, typer.Option("--allow-duplicates", help="Try points again that were tried.")]
WarmStartOption = Annotated[
    Path | None, typer.Option("--warm-start", metavar="FILE", help="study.db of another search to learn from.")
]
EnqueueOption = Annotated[
    list[str] | None,
    typer.Option("--enqueue", metavar="JSON", help='Try first, as {"optimizer": "adam"}; may be repeated.'),
]
KeepTopOption = Annotated[
    int, typer.Option("--keep-top", metavar="K", help="Keep the checkpoints of the K best trials.")
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar=STORAGE_VARIABLE,
        show_envvar=False,
        help="Share the study with other drivers: postgresql://..., mysql://..., or DIR/NAME.journal.  [RML_STORAGE]",
    ),
]
SharedStorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar=STORAGE_VARIABLE,
        show_envvar=False,
        help="The study that drivers share: postgresql://..., mysql://..., or DIR/NAME.journal.  [RML_STORAGE]",
    ),
]
StudyNameOption = Annotated[
    str | None, typer.Option("--study-name", metavar="NAME", help="Which of its studies.  [default: rml-optimization]")
]
ArtifactsOption = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        metavar="DIR",
        help="Where drivers share the best model: DIR, s3://...  [default: by the journal]",
    ),
]
HeartbeatOption = Annotated[
    float, typer.Option("--heartbeat", metavar="S", help="A driver silent for four times as long is lost.")
]
JobsOption = Annotated[
    str, typer.Option("--jobs", "-j", metavar="N", help="Trials that run at a time; auto: as many as is fastest.")
]
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

# --- where it runs -------------------------------------------------------------------------------------

ExecutorOption = Annotated[
    ExecutorName,
    typer.Option(
        "--executor",
        help="Run trials here, or as jobs of a cluster, which share --storage.  [slurm: ./trials/study.journal]",
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", metavar="N", help="Jobs of the cluster that share the trials.  [default: 1]")
]
SlurmPartitionOption = Annotated[
    str | None, typer.Option("--slurm-partition", metavar="NAME", help="Partition of the jobs.")
]
SlurmGpusOption = Annotated[str | None, typer.Option("--slurm-gpus", metavar="N", help="GPUs of each job, or TYPE:N.")]
SlurmCpusOption = Annotated[int | None, typer.Option("--slurm-cpus", metavar="N", help="Cores of each job.")]
SlurmMemoryOption = Annotated[
    str | None, typer.Option("--slurm-memory", metavar="SIZE", help="Memory of each job, such as 32G.")
]
SlurmTimeOption = Annotated[
    str | None,
    typer.Option("--slurm-time", metavar="TIME", help="How long each may run.  [default: 24:00:00]"),
]
SlurmAccountOption = Annotated[
    str | None, typer.Option("--slurm-account", metavar="NAME", help="Account that the jobs are charged to.")
]
SlurmFurtherOption = Annotated[
    list[str] | None,
    typer.Option("--slurm-option", metavar="NAME=VALUE", help="Any other option of sbatch; may be repeated."),
]
WaitOption = Annotated[
    bool, typer.Option("--no-wait", help="Submit the jobs and end; the same command follows them later.")
]

# --- what it leaves ------------------------------------------------------------------------------------

ReportOption = Annotated[
    bool, typer.Option("--report/--no-report", help="Write report/report.html when the search ends.")
]
TensorBoardOption = Annotated[
    Path | None, typer.Option("--tensorboard", metavar="DIR", help="Log trials and epochs for TensorBoard as well.")
]
MlflowOption = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="URI", help="And in MLflow: http://HOST:PORT, or sqlite:///mlflow.db."),
]

# --- what is shown of it -------------------------------------------------------------------------------

PlainOption = Annotated[
    bool, typer.Option("--plain", help="A line for each epoch and trial.  [default: a live view on a terminal]")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only the last table, and errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For other programs: one JSON object a line.")]

# --- what `best` takes ---------------------------------------------------------------------------------

BestFormatOption = Annotated[
    BestFormat, typer.Option("--format", help="For people, or for programs: nothing else is printed then.")
]
