"""What the person asked for: validated once, at the edge, and frozen."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rml_search.errors import CheckpointFileError, OptionError
from rml_search.search_space import (
    LAYERS,
    LEARNING_RATE,
    LOSS,
    OPTIMIZER,
    PATHS,
    Choices,
    Dimension,
    Domain,
    FloatRange,
    SearchSpace,
)
from rmldnn_contract.names import canonical_name, unknown_name

# The contract's models know the same names; importing them would cost pydantic's start-up in every
# `--help` and completion, so the names stand here again and a test holds the two together.
OPTIMIZER_NAMES = ("SGD", "RMSprop", "Adagrad", "Adam", "AdamW", "LARS", "LAMB", "Hessian")
LOSS_NAMES = ("Dice", "BCE", "NLL", "MSE", "Jaccard", "Focal", "Lovasz")

DEFAULT_STUDY_NAME = "rml-optimization"

#: Stands for ``--storage``.
STORAGE_VARIABLE = "RML_STORAGE"
DEFAULT_DOCKER_IMAGE = "rocketml/rmldnn:latest"

#: The environment variable that our engine reads, and what it may be.
PRECISION_VARIABLE = "RMLDNN_PRECISION"
PRECISION_NAMES = ("auto", "float32", "bf16")

#: All environment variables that tell our engine how to compute.
ENGINE_VARIABLES = (PRECISION_VARIABLE, "RMLDNN_CUDA_GRAPHS")

if TYPE_CHECKING:
    from rml_search.base_config import BaseConfig
    from rml_search.network_file import NetworkFile

MAX_IMAGE_SIDE = 16384
MAX_NUM_PROCS = 1024


class Objective(str, Enum):
    """What ``--objective`` takes: what a search makes large, or small."""

    ACCURACY = "accuracy"  #: of the best epoch; the larger the better
    SECONDS = "seconds"  #: that the trial took; the fewer the better


@dataclass(frozen=True)
class SearchOptions:
    """A search: how much, over what, on which data.

    ``optimizers`` and ``losses`` are lower-case names, as they stand in ``list_acc.json`` and the study.
    ``layers`` are the network files to choose from, and ``networks`` what is known of each; where the network stands in
    ``base`` itself, there is no file. ``base`` is the person's own configuration, where they gave one: then ``data``
    and ``image_size`` are None unless they shall replace its own. ``dimensions`` are those of a file of the search
    space. ``validation_fraction`` of the training images are held out to choose epoch and trial; None: the test images
    choose. ``image_size`` is (width, height) in pixels. ``lr_scheduler_gamma`` is None without a scheduler.
    Relative paths are relative to the working directory of the search.
    """

    num_trials: int
    num_epochs: int
    optimizers: tuple[str, ...]
    losses: tuple[str, ...]
    layers: tuple[Path, ...]
    data: Path | None
    lr_range: tuple[float, float] = (0.001, 0.01)
    lr_scheduler_gamma: float | None = None
    transfer_learning: Path | None = None
    batch_size: int = 32
    test_batch_size: int = 64
    image_size: tuple[int, int] | None = (256, 256)
    num_procs: int = 1
    seed: int | None = None
    networks: tuple[NetworkFile, ...] = ()
    base: BaseConfig | None = None
    dimensions: tuple[Dimension, ...] = ()
    objectives: tuple[Objective, ...] = (Objective.ACCURACY,)
    validation_fraction: float | None = None

    def __post_init__(self) -> None:
        _at_least_one("--num-trials", self.num_trials)
        _at_least_one("--num-epochs", self.num_epochs)
        _at_least_one("--batch-size", self.batch_size)
        _at_least_one("--test-batch-size", self.test_batch_size)
        check_num_procs(self.num_procs)
        for side in self.image_size or ():
            _at_least_one("--image-size", side)
            _at_most("--image-size", side, MAX_IMAGE_SIDE)
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise OptionError(f"--seed must be between 0 and {2**32 - 1}, not {self.seed}")
        _check_learning_rates(*self.lr_range)
        if self.lr_scheduler_gamma is not None and not 0 < self.lr_scheduler_gamma <= 1:
            raise OptionError(f"--lr-scheduler-gamma must be above 0 and at most 1, not {self.lr_scheduler_gamma:g}")

    @property
    def space(self) -> SearchSpace:
        """What may be tried: optimizer, loss and learning rate, the network where there are several, then the rest."""
        low, high = self.lr_range
        usual: dict[str, Domain] = {
            OPTIMIZER: Choices(tuple(sorted(self.optimizers))),
            LOSS: Choices(tuple(sorted(self.losses))),
            LEARNING_RATE: FloatRange(low, high, log=True),
        }
        if len(self.layers) > 1:
            usual[LAYERS] = Choices(self.network_names)
        given = {dimension.name: dimension for dimension in self.dimensions}
        first = [given.pop(name, Dimension(name, PATHS[name], domain)) for name, domain in usual.items()]
        return SearchSpace((*first, *given.values()))

    @property
    def network_names(self) -> tuple[str, ...]:
        """How the study calls the network files: by their names, or by their paths where names are the same."""
        names = [path.name for path in self.layers]
        return tuple(path.name if names.count(path.name) == 1 else str(path) for path in self.layers)


class RuntimeName(str, Enum):
    """What ``--runtime`` takes."""

    AUTO = "auto"
    DOCKER = "docker"
    SINGULARITY = "singularity"
    LOCAL = "local"


class BestFormat(str, Enum):
    """What ``best --format`` takes."""

    TABLE = "table"  #: for people
    JSON = "json"
    TOML = "toml"
    ENV = "env"  #: NAME=value lines for a shell


class SamplerName(str, Enum):
    """What ``--sampler`` takes: Optuna's samplers for a mixed search space."""

    TPE = "tpe"
    RANDOM = "random"
    GRID = "grid"  #: five learning rates in equal ratios
    CMAES = "cmaes"
    GP = "gp"
    QMC = "qmc"


class PrunerName(str, Enum):
    """What ``--pruner`` takes: Optuna's pruners."""

    NONE = "none"
    MEDIAN = "median"
    HALVING = "halving"
    HYPERBAND = "hyperband"
    PERCENTILE = "percentile"
    PATIENT = "patient"


#: What Optuna's samplers import beyond what the driver needs itself: module names, which are those of the packages.
SAMPLER_PACKAGES = {
    SamplerName.CMAES: ("cmaes",),
    SamplerName.GP: ("torch", "scipy"),
    SamplerName.QMC: ("scipy",),
}


#: Chosen by benchmarks/replay.py: a quarter of the epochs for the same Dice.
DEFAULT_PRUNER = PrunerName.PERCENTILE


@dataclass(frozen=True)
class StudyChoice:
    """How a study draws and judges its trials, and where it begins.

    Attributes:
        is_fresh: earlier results move aside, even if this search could go on from them.
        warm_start: the database of another study to learn from.
        enqueued: hyperparameters to try first, each a JSON object.
    """

    sampler: SamplerName = SamplerName.TPE
    pruner: PrunerName = DEFAULT_PRUNER
    is_fresh: bool = False
    allows_duplicates: bool = False
    warm_start: Path | None = None
    enqueued: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        missing = [package for package in SAMPLER_PACKAGES.get(self.sampler, ()) if find_spec(package) is None]
        if missing:
            raise OptionError(
                f"--sampler {self.sampler.value} needs {' and '.join(missing)}: pip install {' '.join(missing)}, "
                f"or use --sampler {SamplerName.TPE.value}"
            )


@dataclass(frozen=True)
class ConfirmOptions:
    """How many of the best trials are trained again, and with how many seeds each."""

    num_trials: int
    num_seeds: int = 3

    def __post_init__(self) -> None:
        _at_least_one("--confirm", self.num_trials)
        _at_least_one("--confirm-seeds", self.num_seeds)


@dataclass(frozen=True)
class SharedChoice:
    """A study that several drivers work on.

    Attributes:
        storage: the address of a database or a journal.
        artifacts: where the best checkpoints are kept for all; None: beside a journal, else nowhere.
        heartbeat_seconds: a driver that is silent for four times as long is lost.
    """

    storage: str
    study_name: str = DEFAULT_STUDY_NAME
    artifacts: str | None = None
    heartbeat_seconds: float = 15.0

    def __post_init__(self) -> None:
        if not self.study_name.strip():
            raise OptionError("--study-name must not be empty")
        if self.artifacts is not None and not self.artifacts.strip():
            raise OptionError("--artifacts must not be empty")
        if not 0.1 <= self.heartbeat_seconds <= 3600:
            raise OptionError(f"--heartbeat must be between 0.1 and 3600 seconds, not {self.heartbeat_seconds:g}")


def shared_choice(
    storage: str | None,
    study_name: str | None,
    artifacts: str | None = None,
    heartbeat: float = SharedChoice.heartbeat_seconds,
) -> SharedChoice | None:
    """What the options of a shared study say together; None without ``--storage``. Raises OptionError."""
    if storage is not None:
        return SharedChoice(storage, DEFAULT_STUDY_NAME if study_name is None else study_name, artifacts, heartbeat)
    for option, value in (("--study-name", study_name), ("--artifacts", artifacts)):
        if value is not None:
            raise OptionError(f"{option} needs --storage")
    return None


@dataclass(frozen=True)
class JobChoice:
    """How many trials run at a time (None: it is measured), and on which GPUs (as nvidia-smi has them; empty: all)."""

    num_jobs: int | None = 1
    devices: tuple[str, ...] = ()


def parse_jobs(text: str) -> int | None:
    """What ``--jobs`` says: a number from 1 on, or ``auto``, which is None. Raises OptionError."""
    if text.strip().lower() == "auto":
        return None
    if not (text.strip().isdecimal() and int(text) >= 1):
        raise OptionError(f"--jobs must be at least 1, or auto, not {text}")
    return int(text)


@dataclass(frozen=True)
class RuntimeChoice:
    """What the person said of runtimes; images are None where they named none, ``gpu`` where they left it open."""

    name: RuntimeName = RuntimeName.AUTO
    docker_image: str | None = None
    singularity_image: str | None = None
    gpu: bool | None = None

    def __post_init__(self) -> None:
        named = [image for image in (self.docker_image, self.singularity_image) if image is not None]
        if len(named) == 2 and self.name is RuntimeName.AUTO:
            raise OptionError("--docker-image and --singularity-image cannot be combined: use one, or add --runtime")
        if any(not image.strip() for image in named):
            raise OptionError("the image name must not be empty")
        if self.name is RuntimeName.SINGULARITY and self.singularity_image is None:
            raise OptionError("--runtime singularity needs --singularity-image")


def check_num_procs(num_procs: int) -> None:
    """Raises OptionError for a number of processes that no machine has."""
    _at_least_one("--num-procs", num_procs)
    _at_most("--num-procs", num_procs, MAX_NUM_PROCS)


def _at_most(option: str, value: int, largest: int) -> None:
    if value > largest:
        raise OptionError(f"{option} must be at most {largest}, not {value}")


def _at_least_one(option: str, value: int) -> None:
    if value < 1:
        raise OptionError(f"{option} must be at least 1, not {value}")


def _check_learning_rates(low: float, high: float) -> None:
    for option, value in (("--lr-range-min", low), ("--lr-range-max", high)):
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"{option} must be a positive number, not {value:g}")
    if low > high:
        raise OptionError(f"--lr-range-min ({low:g}) is above --lr-range-max ({high:g}): swap them")


def parse_names(option: str, kind: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names of a comma-separated list, in lower case and without repetitions.

    Raises:
        OptionError: the list is empty, or holds a name that is not known; the nearest one is named.
    """
    names: list[str] = []
    for item in text.split(","):
        if not item.strip():
            continue
        name = canonical_name(item, known)
        if name is None:
            raise OptionError(f"{option}: {unknown_name(kind, item, known)}")
        if name.lower() not in names:
            names.append(name.lower())
    if not names:
        raise OptionError(f"{option} needs at least one {kind}: {', '.join(known)}")
    return tuple(names)


def parse_layers(text: str) -> tuple[Path, ...]:
    """The network files of ``--layers``: one, or several with commas. A file whose own name has a comma is one.

    Raises:
        OptionError: none is named, or one twice.
    """
    if Path(text).exists():
        return (Path(text),)
    paths = tuple(Path(item) for item in split_list(text))
    if not paths:
        raise OptionError("--layers contains no network file")
    if len(set(paths)) < len(paths):
        raise OptionError("--layers contains a network twice")
    return paths


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """The objectives of ``--objective``; accuracy is always one, since it tells the best model. Raises OptionError."""
    known = [objective.value for objective in Objective]
    names = parse_names("--objective", "objective", text, known)
    if Objective.ACCURACY.value not in names:
        raise OptionError("--objective must include accuracy: accuracy, or accuracy,seconds")
    return tuple(objective for objective in Objective if objective.value in names)


def split_list(text: str | None) -> tuple[str, ...]:
    """The items of a comma-separated list; empty where there is none."""
    return tuple(item.strip() for item in (text or "").split(",") if item.strip())


def check_precision() -> None:
    """Raises OptionError where the environment asks for a precision that there is none of."""
    precision = os.environ.get(PRECISION_VARIABLE, PRECISION_NAMES[0])
    if precision not in PRECISION_NAMES:
        raise OptionError(
            f"the environment variable {PRECISION_VARIABLE} is {precision!r}, not one of {', '.join(PRECISION_NAMES)}"
        )


def check_transfer_learning_file(path: Path) -> None:
    """Raises CheckpointFileError if ``path`` is no file that can be read."""
    if not path.is_file():
        raise CheckpointFileError(f"--transfer-learning: there is no file {path}")
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise CheckpointFileError(f"--transfer-learning: cannot read {path}: {error.strerror}") from None
