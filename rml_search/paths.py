"""The files of a search: the only place where their names are made."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

#: The study that the jobs of a cluster share, unless the person names another. Among the trials: both move as one.
SHARED_JOURNAL = "trials/study.journal"

_TOP_MODEL = re.compile(r"\.?trial_([0-9]{4,})\.(pt|json|layers)")
_CHECKPOINT = re.compile(r"model_checkpoint_([0-9]+)\.pt")


@dataclass(frozen=True)
class TrialPaths:
    """The files of one trial, all in one folder."""

    folder: Path

    @property
    def config(self) -> Path:
        """The configuration document that the engine is started with."""
        return self.folder / "config.json"

    @property
    def log(self) -> Path:
        """All that the engine has printed."""
        return self.folder / "rmldnn.log"

    @property
    def outfile(self) -> Path:
        """Base name of the engine's two files: it puts ``_train`` and ``_test`` before the ending."""
        return self.folder / "out.txt"

    @property
    def test_file(self) -> Path:
        """Loss and accuracy of every epoch, as the engine writes them."""
        return self.folder / "out_test.txt"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    def checkpoint(self, epoch: int) -> Path:
        """The checkpoint that the engine writes after ``epoch`` (from 1)."""
        return self.checkpoints / f"model_checkpoint_{epoch}.pt"

    def unfinished_checkpoints(self) -> Iterator[Path]:
        """Those that our engine was writing when it was killed, under the name that they have until they are whole."""
        return self.checkpoints.glob(".model_checkpoint_*.tmp")

    def saved_checkpoints(self) -> Iterator[tuple[int, Path]]:
        """(epoch, path) of each checkpoint that is there."""
        with contextlib.suppress(FileNotFoundError):
            for path in self.checkpoints.iterdir():
                if match := _CHECKPOINT.fullmatch(path.name):
                    yield int(match[1]), path


@dataclass(frozen=True)
class ModelPaths:
    """The files of a model that is kept.

    Attributes:
        digest: the SHA-256 of the checkpoint, in the form that ``sha256sum --check`` reads.
        config: a configuration that runs the model on the test images.
        layers: its network.
    """

    checkpoint: Path
    digest: Path
    config: Path
    layers: Path


class Workspace:
    """The working directory of a search and the names of the files in it.

    A container sees the directory as /home/ubuntu, so a file in it is named relative to it; a file
    outside it, or behind a link that leads outside, is named by its whole path.
    """

    def __init__(self, root: Path, part: str = ".") -> None:
        self.root = root.resolve()
        self.name = part
        self._results = self.root / part

    def part(self, name: str) -> Workspace:
        """The same directory with a folder of its own for trials, their history and the best of them."""
        return Workspace(self.root, name)

    @property
    def list_acc(self) -> Path:
        """One object for each trial, as JSON."""
        return self._results / "list_acc.json"

    @property
    def study_database(self) -> Path:
        """The Optuna study, as SQLite."""
        return self.root / "study.db"

    def study_files(self) -> tuple[Path, ...]:
        """The study and what SQLite keeps beside it: without its journal a database may be a broken one."""
        names = [self.study_database.name + ending for ending in ("", "-journal", "-wal", "-shm")]
        return tuple(self.study_database.with_name(name) for name in names)

    @property
    def trials(self) -> Path:
        """The folder that holds a folder for each trial."""
        return self._results / "trials"

    @property
    def study_mark(self) -> Path:
        """Says which study the trials belong to, where it is kept elsewhere."""
        return self.trials / "study.txt"

    def trial_layers(self, index: int) -> Path:
        """One of the networks of all trials (from 0), as it was when the search began."""
        return self.trials / ("layers.json" if index == 0 else f"layers_{index + 1}.json")

    @property
    def best_model(self) -> Path:
        """The folder of the best model."""
        return self._results / "best_model"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the best epoch of the best trial."""
        return self.best_model / "best_model_file.pt"

    @property
    def best_digest(self) -> Path:
        """The SHA-256 of the checkpoint, in the form that ``sha256sum --check`` reads."""
        return self.best_model / "best_model_file.pt.sha256"

    @property
    def best_config(self) -> Path:
        """A configuration that runs the best model on the test images."""
        return self.best_model / "config_test.json"

    @property
    def best_layers(self) -> Path:
        """The network of the best model."""
        return self.best_model / "layers.json"

    @property
    def best(self) -> ModelPaths:
        """The model of the best trial."""
        return ModelPaths(self.best_checkpoint, self.best_digest, self.best_config, self.best_layers)

    @property
    def top_models(self) -> Path:
        """The folder of the models that come after the best one."""
        return self.best_model / "top"

    def top_model(self, number: int) -> ModelPaths:
        """The model of trial ``number``, one of those after the best one."""
        name = f"trial_{number:04}"
        names = (f"{name}.pt", f"{name}.pt.sha256", f"{name}.json", f"{name}.layers.json")
        return ModelPaths(*(self.top_models / name for name in names))

    def saved_top_models(self) -> Iterator[tuple[int, Path]]:
        """(trial, path) of each file in :attr:`top_models`, those that a kill has left half-written too."""
        with contextlib.suppress(FileNotFoundError):
            for path in self.top_models.iterdir():
                if match := _TOP_MODEL.match(path.name):
                    yield int(match[1]), path

    @property
    def confirmations(self) -> Path:
        """The folder of the best trials that were trained again."""
        return self.root / "confirmation"

    @property
    def confirmed_model(self) -> ModelPaths:
        """The model of the trial that was the best one when it was trained again."""
        names = ("confirmed_model.pt", "confirmed_model.pt.sha256", "config_test.json", "layers.json")
        return ModelPaths(*(self.best_model / "confirmed" / name for name in names))

    @property
    def kept_winner(self) -> Path:
        """Which trial that is, and what its runs have reached, as JSON."""
        return self.confirmed_model.checkpoint.with_name("confirmation.json")

    @property
    def validation(self) -> Path:
        """The training images parted once more, into those that train and those that choose epoch and trial."""
        return self.root / "validation_split"

    @property
    def predictions(self) -> Path:
        """The folder that inference writes into."""
        return self.root / "predictions"

    @property
    def shared_journal(self) -> Path:
        """The study that the jobs of a cluster share, unless the person names another."""
        return self.root / SHARED_JOURNAL

    @property
    def cluster_jobs(self) -> Path:
        """The folder of what the jobs of a cluster print."""
        return self.root / "slurm"

    @property
    def cluster_submission(self) -> Path:
        """Which job array works on the search."""
        return self.cluster_jobs / "submission.json"

    @property
    def report(self) -> Path:
        """The folder of the report."""
        return self.root / "report"

    @property
    def report_page(self) -> Path:
        """The report, all in one file."""
        return self.report / "report.html"

    @staticmethod
    def scores(predictions: Path) -> Path:
        """The scores of each image, in the folder of its predictions."""
        return predictions / "scores.csv"

    @property
    def lock(self) -> Path:
        """Held while a search runs in the folder."""
        return self.root / ".rml-optimization.lock"

    def trial(self, number: int) -> TrialPaths:
        """The files of trial ``number`` (from 0)."""
        return TrialPaths(self.trials / f"{number:04}")

    def results(self) -> tuple[Path, ...]:
        """All that a search and its inference write, whether it is there or not."""
        files = (self.best_model, self.list_acc, *self.study_files(), self.trials)
        return (*files, self.confirmations, self.validation, self.predictions, self.report)

    def earlier(self, when: datetime) -> Path:
        """A folder, not there yet, for the results of a search that another one follows."""
        name = f"{when:%Y-%m-%d_%H-%M-%S}"
        candidates = [self.root / "earlier" / (name if again == 0 else f"{name}_{again}") for again in range(1000)]
        return next(path for path in candidates if not path.exists())

    def inside(self, path: Path) -> str | None:
        """``path`` relative to the working directory, as ``./data/train``; None if it lies outside."""
        resolved = self.absolute(path)
        if not resolved.is_relative_to(self.root):
            return None
        return f"./{resolved.relative_to(self.root).as_posix()}"

    def absolute(self, path: Path) -> Path:
        """The whole path of a file, links followed."""
        return (self.root / path).resolve()

    def locate(self, path: Path) -> str:
        """How a document names a file: relative to the working directory, else by its whole path.

        The relative form holds natively and in a container alike.
        """
        return self.inside(path) or self.absolute(path).as_posix()


def shown(path: Path) -> str:
    """A path as a person would type it: relative to the current folder where it lies below that."""
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(path)
