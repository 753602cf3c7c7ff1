"""What a search costs beside its trainings, each time against the bare thing, in one table:

    python benchmarks/driver_overhead.py [--image rmldnn-torch:latest] [--rounds 5]

- Trials that do nothing, with 1 and with 50 reports, against ``study.optimize`` of plain Optuna: with SQLite as it
  comes, and with the write-ahead log that a search uses. A search writes more: configuration, log, list_acc.json, and
  the best model with its digest.
- Trials with 50 reports with the live view on a terminal, against the same without any display.
- A trial in a container against ``docker run --rm`` of the same configuration, without a driver.
- ``--help`` against that of a Typer program of five lines.

The two of a pair take turns, and medians are compared.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path

import optuna
from tabulate import tabulate

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from rml_optuna import open_study
from rml_search.display import SearchPart
from rml_search.live_display import LiveDisplay
from rml_search.observer import SearchObserver, SilentObserver
from rml_search.options import SearchOptions, StudyChoice
from rml_search.paths import Workspace
from rml_search.runtime.base import CONTAINER_DIRECTORY, EngineExit, EngineRun, Runtime
from rml_search.search import Search
from rml_search.synthetic import write_synthetic_data
from rml_study.storage import open_storage

NUM_TRIALS = 30

TYPER_PROGRAM = """
import typer

app = typer.Typer()


@app.command()
def greet(name: str, times: int = 1) -> None:
    print(name * times)


app()
"""

#: Runs once and returns what it has taken, in seconds.
Measure = Callable[[], float]


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


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description="Measures what a search costs beside its trainings.")
    parser.add_argument("--image", default="rmldnn-torch:latest", help="of the trial in a container")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = [
        *_trial_rows(arguments.rounds),
        _view_row(arguments.rounds),
        _container_row(arguments.image, arguments.rounds),
    ]
    rows.append(_help_row(5 * arguments.rounds))
    headers = ["", "ours, ms", "against", "it, ms", "ratio", "goal"]
    print(tabulate(rows, headers=headers, floatfmt=("", ".1f", "", ".1f", ".2f", "")))


def _compare(ours: Measure, other: Measure, rounds: int) -> tuple[float, float, float]:
    """Median milliseconds of the two, and their ratio; both run once before, since the first run is another one."""
    times = [(1000 * ours(), 1000 * other()) for _ in range(rounds + 1)][1:]
    mine, its = (statistics.median(column) for column in zip(*times, strict=True))
    return mine, its, mine / its


def _in_new_folder(run: Callable[[Path], float]) -> Measure:
    def measure() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return run(Path(folder))

    return measure


def _trial_rows(rounds: int) -> Iterator[list[object]]:
    goals = {1: "at most 5 ms above", 50: "ours at most 25 ms"}
    for num_epochs, goal in goals.items():
        for name, logs_ahead in (("plain Optuna, SQLite as it comes", False), ("plain Optuna, write-ahead log", True)):
            ours = _in_new_folder(lambda folder, epochs=num_epochs: _ours(folder, epochs))
            plain = _in_new_folder(lambda folder, epochs=num_epochs, log=logs_ahead: _plain(folder, epochs, log))
            mine, its, ratio = _compare(ours, plain, rounds)
            what = f"trial with {num_epochs} report{'s' * (num_epochs > 1)}"
            yield [what, mine / NUM_TRIALS, name, its / NUM_TRIALS, ratio, goal]


# --- trials that do nothing --------------------------------------------------------------------------


def _plain(folder: Path, num_epochs: int, logs_ahead: bool) -> float:
    storage = open_storage(Workspace(folder)) if logs_ahead else f"sqlite:///{folder}/study.db"
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.TPESampler(seed=0))

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


def _ours(folder: Path, num_epochs: int, *, is_watched: bool = False) -> float:
    write_synthetic_data(folder / "data", num_train=2, num_test=1, size=32, seed=0)
    (folder / "layers.json").write_text("[]")
    options = SearchOptions(
        NUM_TRIALS, num_epochs, ("adam", "sgd"), ("bce", "dice"), (folder / "layers.json",), folder / "data", seed=0
    )
    return _search(Workspace(folder), options, NoRuntime(Workspace(folder)), is_watched=is_watched)


def _view_row(rounds: int) -> list[object]:
    watched = _in_new_folder(lambda folder: _ours(folder, 50, is_watched=True))
    mine, its, ratio = _compare(watched, _in_new_folder(lambda folder: _ours(folder, 50)), rounds)
    return ["trial with 50 reports, watched", mine / NUM_TRIALS, "not watched", its / NUM_TRIALS, ratio, "1 ms above"]


@contextmanager
def _watched(options: SearchOptions) -> Iterator[SearchObserver]:
    """The live view on a terminal of 80 columns and 24 rows, which nobody sees."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    threading.Thread(target=_read_on, args=(master,), daemon=True).start()
    watching = LiveDisplay(lambda _: None).watching(SearchPart(options, []))
    with os.fdopen(slave, "w") as terminal, redirect_stdout(terminal), watching as observer:
        yield observer


def _read_on(master: int) -> None:
    with suppress(OSError):  # until the terminal is closed
        while os.read(master, 65536):
            pass
    os.close(master)


def _search(workspace: Workspace, options: SearchOptions, runtime: Runtime, *, is_watched: bool = False) -> float:
    study = open_study(workspace, options, StudyChoice(allows_duplicates=True), print)
    with _watched(options) if is_watched else nullcontext(SilentObserver()) as observer:
        search = Search(options, workspace, runtime, study, observer)
        start = time.perf_counter()
        search.run()
        seconds = time.perf_counter() - start
    study.close()
    return seconds


# --- a trial in a container, and --help --------------------------------------------------------------


def _container_row(image: str, rounds: int) -> list[object]:
    from rml_search.runtime.docker import DockerRuntime

    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        write_synthetic_data(workspace.root / "data", num_train=64, num_test=16, size=64, seed=0)
        layers = Path(shutil.copy(CHECKOUT / "layers_small_unet.json", workspace.root / "layers.json"))
        options = SearchOptions(
            1,
            5,
            ("adam",),
            ("bce",),
            (layers,),
            workspace.root / "data",
            (0.001, 0.001),
            image_size=(64, 64),
            batch_size=8,
        )
        runtime = DockerRuntime(workspace, image, gpu=False)
        trial = workspace.trial(0)

        def in_search() -> float:
            for path in workspace.study_files():
                path.unlink(missing_ok=True)
            return _search(workspace, options, runtime)

        def bare() -> float:
            command = ["docker", "run", "--rm", "-u", f"{os.getuid()}:{os.getgid()}", "-w", CONTAINER_DIRECTORY]
            command += ["-v", f"{workspace.root}:{CONTAINER_DIRECTORY}", image]
            command += ["rmldnn", f"--config={trial.config.relative_to(workspace.root)}"]
            trial.checkpoints.mkdir(exist_ok=True)
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - start

        return ["trial in a container", *_named(_compare(in_search, bare, rounds), "docker run"), "ratio at most 1.05"]


def _help_row(rounds: int) -> list[object]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "greet.py")
        program.write_text(TYPER_PROGRAM)

        def ask(path: Path) -> float:
            start = time.perf_counter()
            subprocess.run([sys.executable, path, "--help"], check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - start

        times = _compare(lambda: ask(CHECKOUT / "rml_optimization.py"), lambda: ask(program), rounds)
        return ["--help", *_named(times, "a Typer program"), "ratio at most 1.5"]


def _named(times: tuple[float, float, float], name: str) -> list[object]:
    mine, its, ratio = times
    return [mine, name, its, ratio]


if __name__ == "__main__":
    main()
