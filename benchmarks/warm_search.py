"""A search whose trials share a process, against one that starts a process for each.

    python benchmarks/warm_search.py [--trials 20] [--epochs 5] [--size 96] [--rounds 1] [--jobs 1 2]
        [--docker-image rmldnn-torch:latest] [--gpu]

Searches on the demo's images with the small network, on the CPU or on a GPU, one trial after the other and two at a
time; with an image in containers, where a search keeps one for each trial that runs at a time, or starts one for each
trial. Warm and cold searches take turns, so that what else the machine does meets both. Beside the wall time of whole
searches it prints, as medians over trials, the time from the start of a trial (its configuration file) to the first
line of its first epoch, and to the end of its log. Trials of warm and cold searches must have the same accuracies.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tabulate import tabulate

CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from rml_search.demo import write_demo_files
from rml_search.paths import Workspace
from rml_search.results import read_list_acc
from rml_search.runtime.warm import COLD_VARIABLE


@dataclass(frozen=True)
class Measured:
    """A search: seconds in all, and of each trial until its first line of an epoch and until its end."""

    seconds: float
    to_first_line: tuple[float, ...]
    to_end: tuple[float, ...]
    accuracies: tuple[float | None, ...]


def search(folder: Path, arguments: argparse.Namespace, *, cold: bool, jobs: int) -> Measured:
    """Runs one search in a new folder beside the data."""
    workspace = Workspace(folder / f"{'cold' if cold else 'warm'} {jobs}")
    shutil.rmtree(workspace.root, ignore_errors=True)
    workspace.root.mkdir()
    device = "--gpu" if arguments.gpu else "--no-gpu"
    command = [sys.executable, str(CHECKOUT / "rml_optimization.py"), device, "--seed", "7"]
    image = arguments.docker_image
    command += ["--runtime", "local"] if image is None else ["--docker-image", image]
    command += ["--num-trials", str(arguments.trials), "--num-epochs", str(arguments.epochs), "--jobs", str(jobs)]
    command += ["--optimizers", "adam,rmsprop,sgd", "--loss", "bce,dice", "--batch-size", "8", "--sampler", "random"]
    command += ["--pruner", "none", "--no-report"]
    command += ["--layers", "../layers_small_unet.json", "--data", "../data"]
    command += ["--image-size", str(arguments.size), str(arguments.size)]
    environment = {**os.environ, COLD_VARIABLE: str(int(cold))}
    started = time.monotonic()
    run = subprocess.run(command, cwd=workspace.root, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if run.returncode:
        sys.exit(run.stderr[-2000:])
    records = read_list_acc(workspace)
    times = [trial_times(workspace, record.number) for record in records]
    return Measured(seconds, *map(tuple, zip(*times, strict=True)), tuple(record.max_acc for record in records))


def trial_times(workspace: Workspace, number: int) -> tuple[float, float]:
    """Seconds from a trial's configuration to the first line of an epoch, and to the end of its log."""
    paths = workspace.trial(number)
    started = paths.config.stat().st_mtime
    stamps = [(stamp(line), line) for line in paths.log.read_text().splitlines() if line.startswith("[")]
    first = next(moment for moment, line in stamps if "Train Epoch" in line)
    return first - started, stamps[-1][0] - started


def stamp(line: str) -> float:
    """The time in front of a line of the log, as seconds since 1970."""
    return datetime.strptime(line[1 : line.index("]")], "%Y-%b-%d %H:%M:%S.%f").timestamp()


def row(name: str, warm: Measured, cold: Measured) -> list[str]:
    """A line of the table."""
    pairs = [
        (warm.seconds, cold.seconds),
        # The first trial of a warm search is as cold as any.
        (statistics.median(warm.to_first_line[1:]), statistics.median(cold.to_first_line[1:])),
        (statistics.median(warm.to_end[1:]), statistics.median(cold.to_end[1:])),
    ]
    return [name, *(f"{a:.2f} / {b:.2f} = 1 / {b / a:.2f}" for a, b in pairs)]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    for name, default in (("trials", 20), ("epochs", 5), ("size", 96), ("rounds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--docker-image", metavar="IMAGE", help="search in containers of this image")
    parser.add_argument("--gpu", action="store_true", help="search on a GPU")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_files(folder)
        for _ in range(arguments.rounds):
            for jobs in arguments.jobs:
                warm = search(folder, arguments, cold=False, jobs=jobs)
                cold = search(folder, arguments, cold=True, jobs=jobs)
                # Two at a time take their suggestions in the order in which they end: random ones are the same.
                if jobs == 1 and warm.accuracies != cold.accuracies:
                    sys.exit("warm and cold trials have come to different accuracies")
                rows.append(row(f"--jobs {jobs}", warm, cold))
    print(json.dumps(vars(arguments)))
    heads = ["seconds, warm / cold", "search", "trial to its first epoch's line", "trial"]
    print(tabulate(rows, headers=heads, tablefmt="rst"))


if __name__ == "__main__":
    main()
