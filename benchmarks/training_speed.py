"""Training speed of our engine and of what people use instead, measured side by side on this machine.

    make benchmark                                   # everything, about half an hour on two cores
    python benchmarks/training_speed.py --only ours,plain --case small_unet --kind steps

Every contestant trains the same network on the same batch or the same images with Adam and binary cross-entropy, each
time in a process of its own, in turn, so that a machine that changes its pace changes it for all. ``steps`` are
optimizer steps on a batch in memory; ``epochs`` take image files to checkpoints: decoding, resizing, training,
evaluating, logging, saving. Printed are the medians over the rounds: training images per second, the peak of the
process's memory, and the speed as a multiple of the plain PyTorch loop in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from contestants.case import Case

CHECKOUT = Path(__file__).resolve().parent.parent
BASELINE = ("plain", "float32")
CONTESTANTS = {
    "ours": "this engine",
    "plain": "plain PyTorch loop",
    "monai_loop": "MONAI",
    "keras_torch": "Keras 3 on PyTorch",
    "keras_tensorflow": "Keras 2 on TensorFlow",
}


@dataclass(frozen=True)
class Workload:
    """What is trained, on a CPU and on a GPU: batch sizes, steps, and training and test images of an epoch."""

    network: str
    size: int
    cpu_batch: int
    cpu_steps: int
    cpu_images: tuple[int, int]
    cuda_batch: int = 32
    cuda_steps: int = 50
    cuda_images: tuple[int, int] = (702, 78)


WORKLOADS = {
    "resunet": Workload("layers_resunet.json", 256, cpu_batch=4, cpu_steps=8, cpu_images=(32, 8)),
    "small_unet": Workload("layers_small_unet.json", 128, cpu_batch=16, cpu_steps=20, cpu_images=(192, 32)),
}
EPOCHS = 2


@dataclass(frozen=True)
class Measurement:
    """What a contestant answers."""

    images_per_second: float
    peak_mib: float


def main() -> None:
    """Measures and prints."""
    options = _parse_options()
    print(f"{_machine(options.device)}; {options.rounds} rounds", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.case:
            for kind in options.kind:
                case = _case(WORKLOADS[name], kind, options.device, Path(folder, name))
                measured = _measure(case, options.only, options.rounds)
                print(f"\n{name}, {case.size}x{case.size}, batch {case.batch}, {kind}", flush=True)
                print(_table(measured, case), flush=True)


def _parse_options() -> argparse.Namespace:
    def names(known: Collection[str]) -> Callable[[str], list[str]]:
        def split(text: str) -> list[str]:
            chosen = text.split(",")
            unknown = set(chosen) - set(known)
            if unknown:
                raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}")
            return chosen

        return split

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=names(CONTESTANTS), default=list(CONTESTANTS), help="contestants, with commas")
    parser.add_argument("--case", type=names(WORKLOADS), default=list(WORKLOADS), help="networks, with commas")
    parser.add_argument("--kind", type=names(("steps", "epochs")), default=["steps", "epochs"], help="steps,epochs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if _has_cuda() else "cpu")
    return parser.parse_args()


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _machine(device: str) -> str:
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return f"{model}, {len(os.sched_getaffinity(0))} cores, PyTorch {torch.__version__}"


def _case(workload: Workload, kind: str, device: Literal["cpu", "cuda"], folder: Path) -> Case:
    on_gpu = device == "cuda"
    case = Case(
        network=str(CHECKOUT / workload.network),
        size=workload.size,
        batch=workload.cuda_batch if on_gpu else workload.cpu_batch,
        precision="float32",
        device=device,
    )
    if kind == "steps":
        return replace(case, steps=workload.cuda_steps if on_gpu else workload.cpu_steps)
    if not folder.exists():
        _write_images(folder, *(workload.cuda_images if on_gpu else workload.cpu_images))
    return replace(case, epochs=EPOCHS, data=str(folder))


def _write_images(folder: Path, num_train: int, num_test: int) -> None:
    """Synthetic scans in about the size of the real ones."""
    sys.path.insert(0, str(CHECKOUT))
    from rml_search.synthetic import write_synthetic_data

    write_synthetic_data(folder, num_train=num_train, num_test=num_test, size=500, seed=0)


def _measure(case: Case, contestants: list[str], rounds: int) -> dict[tuple[str, str], list[Measurement]]:
    measured: dict[tuple[str, str], list[Measurement]] = {}
    for _ in range(rounds):
        for name, precision in _entries(contestants, case):
            measurement = _run(name, replace(case, precision=precision))
            measured.setdefault((name, precision), []).append(measurement)
    return measured


def _entries(contestants: list[str], case: Case) -> Iterator[tuple[str, Literal["float32", "bf16"]]]:
    for name in contestants:
        yield name, "float32"
        if name != "monai_loop" or case.device == "cuda":  # MONAI's trainer casts on CUDA alone
            yield name, "bf16"


def _run(name: str, case: Case) -> Measurement:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "benchmarks")])}
    if case.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-m", f"contestants.{name}", case.as_argument()]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{name} failed:\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return Measurement(**json.loads(run.stdout.splitlines()[-1]))


def _table(measured: dict[tuple[str, str], list[Measurement]], case: Case) -> str:
    speeds = {
        entry: statistics.median(measurement.images_per_second for measurement in measurements)
        for entry, measurements in measured.items()
    }
    peaks = {entry: max(m.peak_mib for m in measurements) for entry, measurements in measured.items()}
    floor = _floor(case) if case.device == "cuda" else None
    rows = [
        {
            "": CONTESTANTS[entry[0]],
            "precision": entry[1],
            "images/s": f"{speed:.1f}",
            "min-max": "{:.1f}-{:.1f}".format(*_range(measured[entry])),
            "peak MiB": f"{peaks[entry]:.0f}",
            "x plain": f"{speed / speeds[BASELINE]:.2f}" if BASELINE in speeds else "-",
            **({} if floor is None else {"of the floor": f"{speed / floor:.0%}"}),
        }
        for entry, speed in sorted(speeds.items(), key=lambda item: -item[1])
    ]
    return tabulate(rows, headers="keys", disable_numparse=True, colalign=("left", "left", *["right"] * 4))


def _range(measurements: list[Measurement]) -> tuple[float, float]:
    speeds = [measurement.images_per_second for measurement in measurements]
    return min(speeds), max(speeds)


def _floor(case: Case) -> float:
    """Images per second if nothing but the network's products were computed, at the rate of this card in bf16."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from contestants.torch_case import Logits

    network = Logits(case)
    images = torch.zeros(1, 3, case.size, case.size)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for _ in range(3):
        matrix @ matrix
    start.record()
    for _ in range(20):
        matrix @ matrix
    end.record()
    torch.cuda.synchronize()
    rate = 20 * 2 * 8192**3 / (start.elapsed_time(end) / 1000)
    return rate / counter.get_total_flops()


if __name__ == "__main__":
    main()
