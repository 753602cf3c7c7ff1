"""Trials several at a time, with a share of the cores each, against the same trials one after another with all cores.

    python benchmarks/packing.py [--trials 8] [--epochs 5] [--size 32] [--rounds 3] [--jobs N] [--gpu]

Warm searches on the demo's images with the small network, as benchmarks/warm_search.py runs them: `--jobs N`, by
default as many as there are cores, `--jobs 1` with all cores, and `--jobs 1` with one thread, which shows what the
threads gain. They take turns in every round; the medians of the wall times stand in the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from tabulate import tabulate

from rml_search.demo import write_demo_files
from rml_search.devices import num_cpus
from warm_search import Measured, search

THREADS_VARIABLE = "OMP_NUM_THREADS"


def alone(folder: Path, arguments: argparse.Namespace, num_threads: int) -> Measured:
    """One trial after another, each with so many threads."""
    os.environ[THREADS_VARIABLE] = str(num_threads)
    try:
        return search(folder, arguments, cold=False, jobs=1)
    finally:
        del os.environ[THREADS_VARIABLE]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    for name, default in (("trials", 8), ("epochs", 5), ("size", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    cores = num_cpus()
    parser.add_argument("--jobs", type=int, default=cores, help="trials at a time")
    parser.add_argument("--docker-image", metavar="IMAGE", help="search in containers of this image")
    parser.add_argument("--gpu", action="store_true", help="search on a GPU")
    arguments = parser.parse_args()
    if THREADS_VARIABLE in os.environ:
        sys.exit(f"unset {THREADS_VARIABLE}: this benchmark sets it")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_files(folder)
        for _ in range(arguments.rounds):
            searches = (
                search(folder, arguments, cold=False, jobs=arguments.jobs),
                alone(folder, arguments, cores),
                alone(folder, arguments, 1),
            )
            rows.append([measured.seconds for measured in searches])
    medians = [statistics.median(column) for column in zip(*rows, strict=True)]
    print(json.dumps(vars(arguments)))
    heads = [f"seconds: {arguments.jobs} at a time", f"1 at a time, {cores} threads", "1 at a time, 1 thread"]
    print(tabulate([*rows, medians], headers=heads, tablefmt="rst", floatfmt=".1f"))
    print(f"{medians[1] / medians[0]:.2f} and {medians[2] / medians[0]:.2f} times as fast as one after another")


if __name__ == "__main__":
    main()
