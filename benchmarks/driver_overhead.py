"""What a search costs beside its trainings: trials that do nothing, in our driver and in plain Optuna.

    python benchmarks/driver_overhead.py

Both keep their study in SQLite. ``plain`` is ``study.optimize`` with the storage as it comes; ours writes what a search
writes besides: configuration, log, list_acc.json, and the best model with its digest.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from tabulate import tabulate

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from rml_optuna import open_study
from rml_search.options import SearchOptions, StudyChoice
from rml_search.paths import Workspace
from rml_search.runtime.base import EngineExit, EngineRun
from rml_search.search import Search
from rml_search.synthetic import write_synthetic_data

NUM_TRIALS, ROUNDS = 30, 3


class NoEngine:
    """An engine that trains nothing: it prints its epochs' lines and leaves small checkpoints."""

    def __init__(self, checkpoints: Path, num_epochs: int) -> None:
        self.checkpoints = checkpoints
        self.num_epochs = num_epochs

    def lines(self) -> Iterator[str]:
        for epoch in range(1, self.num_epochs + 1):
            (self.checkpoints / f"model_checkpoint_{epoch}.pt").touch()
            head = f"Eval  Epoch [{epoch:3}/{self.num_epochs:3}] : Batch [    1/    1]"
            yield f"{head} (Loss: 0.6603) | Accuracy: {epoch / 1000:.3f}"

    def stop(self) -> None:
        pass

    def wait(self) -> EngineExit:
        return EngineExit(0)


class NoRuntime:
    """Starts such engines."""

    name = "none"
    in_container = False

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def describe(self) -> str:
        return "none"

    def prepare(self, show: Callable[[str], None]) -> None:
        pass

    def remove_leftovers(self) -> None:
        pass

    @contextmanager
    def start(self, run: EngineRun) -> Iterator[NoEngine]:
        document = json.loads((self.workspace.root / run.config).read_text())["neural_network"]
        yield NoEngine(self.workspace.root / document["checkpoints"]["save"], document["num_epochs"])


class Silent:
    """An observer that shows nothing."""

    def trial_started(self, *_: object) -> None: ...

    def epoch_finished(self, *_: object) -> None: ...

    def trial_finished(self, *_: object) -> None: ...

    def note(self, text: str) -> None: ...


def main() -> None:
    """Measures and prints."""
    rows = []
    for num_epochs in (1, 50):
        times = {"plain Optuna": _plain, "our driver": _ours}
        medians = {name: [] for name in times}
        for _ in range(ROUNDS):
            for name, measure in times.items():
                with tempfile.TemporaryDirectory() as folder:
                    medians[name].append(1000 * measure(Path(folder), num_epochs) / NUM_TRIALS)
        rows.append([num_epochs, *(statistics.median(medians[name]) for name in times)])
    print(
        tabulate(
            rows, headers=["reports of a trial", "plain Optuna, ms a trial", "our driver, ms a trial"], floatfmt=".1f"
        )
    )


def _plain(folder: Path, num_epochs: int) -> float:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=f"sqlite:///{folder}/study.db", sampler=optuna.samplers.TPESampler(seed=0))

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_categorical("optimizer", ["adam", "sgd"])
        trial.suggest_categorical("loss", ["bce", "dice"])
        trial.suggest_float("learning_rate", 0.001, 0.01, log=True)
        for epoch in range(1, num_epochs + 1):
            trial.report(epoch / 1000, epoch)
        return num_epochs / 1000

    start = time.perf_counter()
    study.optimize(objective, n_trials=NUM_TRIALS)
    return time.perf_counter() - start


def _ours(folder: Path, num_epochs: int) -> float:
    workspace = Workspace(folder)
    write_synthetic_data(folder / "data", num_train=2, num_test=1, size=32, seed=0)
    (folder / "layers.json").write_text("[]")
    options = SearchOptions(
        NUM_TRIALS, num_epochs, ("adam", "sgd"), ("bce", "dice"), (folder / "layers.json",), folder / "data", seed=0
    )
    study = open_study(workspace, options, StudyChoice(), print)
    search = Search(options, workspace, NoRuntime(workspace), study, Silent())
    start = time.perf_counter()
    search.run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
