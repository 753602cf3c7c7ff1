"""The tutorial's search with the built-in engine, from the command to the scores of its best model.

    python benchmarks/tutorial_search.py --data DIR [--trials 50] [--epochs 50] [--size 256] [--batch-size 32]
        [--layers FILE] [--search-space FILE] [--pruners none percentile] [--modes warm cold] [--out DIR]
        [-- OPTIONS OF THE SEARCH]

DIR is a dataset of `rml-optimization prepare`. For each pruner and mode it runs a search of optimizer, loss and
learning rate, on a GPU where there is one, and then the best model on the test images. Of each search it prints the
wall time, the epochs that were trained, the seconds from the command to the first line of an epoch and, as a median
over the later trials, from a trial's start to that line; of the best model the accuracy as rmldnn defines it, and the
mean Dice and IoU of the lesion over the test images. Trials that failed are left out. What stands behind `--` goes to
the search: `-- --jobs 2`, or `-- --validation-fraction 0.15`, which leaves the test images alone until the end.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tabulate import tabulate

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from rml_search.paths import Workspace
from rml_search.results import read_list_acc
from rml_search.runtime.warm import COLD_VARIABLE
from rmldnn_contract.training_log import parse_test_file
from warm_search import trial_times

_DEVICE = re.compile(r"Process 1: (.+)")
_ACCURACY = re.compile(r"Accuracy \(Dice\) *\| *([0-9.]+)")


@dataclass(frozen=True)
class Scores:
    """Of the best model, on the test images: rmldnn's accuracy, and the means over images of the lesion's."""

    accuracy: float
    dice: float
    iou: float


def search(folder: Path, options: argparse.Namespace, pruner: str, *, cold: bool) -> list[object]:
    """Runs one search and its inference in a new folder; gives its line of the table."""
    workspace = Workspace(folder)
    folder.mkdir(parents=True)
    command = ["--num-trials", options.trials, "--num-epochs", options.epochs, "--runtime", "local", "--seed", "1"]
    command += ["--optimizers", "adam,rmsprop,sgd", "--loss", "bce,dice", "--lr-scheduler", "--pruner", pruner]
    command += ["--layers", options.layers.resolve(), "--data", options.data.resolve(), "--no-report", "--plain"]
    command += ["--image-size", options.size, options.size, "--batch-size", options.batch_size, *options.more]
    if options.search_space is not None:
        command += ["--search-space", options.search_space.resolve()]
    before, started = datetime.now().timestamp(), time.monotonic()
    run_program(folder, command, cold=cold)
    seconds = time.monotonic() - started
    records = [record for record in read_list_acc(workspace) if record.max_acc is not None]
    times = [trial_times(workspace, record.number)[0] for record in records]
    first = workspace.trial(records[0].number).config.stat().st_mtime - before + times[0]
    epochs = sum(len(parse_test_file(workspace.trial(record.number).test_file.read_text())) for record in records)
    scores = infer(folder)
    name = f"{pruner}, {'cold' if cold else 'warm'}"
    later = statistics.median(times[1:]) if times[1:] else None
    return [name, seconds, epochs, first, later, scores.accuracy, scores.dice, scores.iou]


def infer(folder: Path) -> Scores:
    """Runs the best model on the test images."""
    output = run_program(folder, ["infer", "--runtime", "local"])
    workspace = Workspace(folder)
    with workspace.scores(workspace.predictions).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    accuracy = float(_ACCURACY.findall(output)[-1])
    return Scores(accuracy, *(statistics.fmean(float(row[key]) for row in rows) for key in ("dice", "iou")))


def run_program(folder: Path, arguments: Sequence[object], *, cold: bool = False) -> str:
    """What the program prints; ends this one where it fails."""
    command = [sys.executable, str(CHECKOUT / "rml_optimization.py"), *map(str, arguments)]
    environment = {**os.environ, COLD_VARIABLE: str(int(cold))}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(run.stderr[-2000:])
    return run.stdout


def device_of(folder: Path) -> str:
    """What the first trial was trained on, as its log says."""
    found = _DEVICE.search(Workspace(folder).trial(0).log.read_text(encoding="utf-8"))
    return "unknown" if found is None else found[1]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with {train,test}/{inputs,targets}")
    for name, default in (("trials", 50), ("epochs", 50), ("size", 256), ("batch-size", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--layers", type=Path, default=CHECKOUT / "layers_resunet.json")
    parser.add_argument("--search-space", type=Path, help="more hyperparameters, as the search has them")
    parser.add_argument("--pruners", nargs="+", default=["none", "percentile"])
    parser.add_argument("--modes", nargs="+", choices=["warm", "cold"], default=["warm"])
    parser.add_argument("--out", type=Path, help="keep the searches in this new folder")
    parser.add_argument("more", nargs="*", help="options of the search, behind --")
    options = parser.parse_args()
    heads = ["search", "seconds", "epochs", "first line", "later trials", "accuracy", "lesion Dice", "lesion IoU"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.out is None else options.out
        rows = [
            search(folder / f"{pruner} {mode}", options, pruner, cold=mode == "cold")
            for pruner in options.pruners
            for mode in options.modes
        ]
        print("Trained on:", device_of(folder / f"{options.pruners[0]} {options.modes[0]}"))
    digits = ("", ".0f", "", ".1f", ".2f", ".3f", ".3f", ".3f")
    print(tabulate(rows, headers=heads, tablefmt="rst", floatfmt=digits))


if __name__ == "__main__":
    main()
