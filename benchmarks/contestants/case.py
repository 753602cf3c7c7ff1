"""What every contestant is given, and how it answers."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

WARM_UP_STEPS = 3
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        network: a Keras network file whose last activation is a sigmoid with one channel.
        size: width and height of the images in pixels.
        batch: images in each batch.
        precision: "float32" or "bf16".
        device: "cpu" or "cuda".
        steps: optimizer steps to time on one batch that stays in memory; 0 to time epochs.
        epochs: epochs to time, from the first file that is opened to the last checkpoint.
        data: the folder of images and masks for epochs: {train,test}/{inputs,targets}/*.png.
    """

    network: str
    size: int
    batch: int
    precision: Literal["float32", "bf16"]
    device: Literal["cpu", "cuda"] = "cpu"
    steps: int = 0
    epochs: int = 0
    data: str = ""

    def as_argument(self) -> str:
        """The case as one word of a command line."""
        return json.dumps(asdict(self))

    def files(self, split: str) -> list[tuple[Path, Path]]:
        """The images of "train" or "test", each with its mask."""
        images = sorted(Path(self.data, split, "inputs").iterdir())
        return [(image, Path(self.data, split, "targets", image.name)) for image in images]


def read_case() -> Case:
    """The case on the command line."""
    return Case(**json.loads(sys.argv[1]))


def random_batch(case: Case) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images (batch, size, size, 3) and masks (batch, size, size, 1), the same numbers for all contestants."""
    rng = np.random.default_rng(0)
    images = rng.random((case.batch, case.size, case.size, 3), dtype=np.float32)
    masks = (images.mean(axis=3, keepdims=True) > 0.5).astype(np.float32)
    return images, masks


def time_steps(case: Case, step: Callable[[], object], wait: Callable[[], object] = lambda: None) -> None:
    """Answers with the images per second of ``step``, median over steps; ``wait`` waits for the device."""
    seconds = []
    for _ in range(WARM_UP_STEPS + case.steps):
        start = time.perf_counter()
        step()
        wait()
        seconds.append(time.perf_counter() - start)
    answer_steps(case, seconds)


def answer_steps(case: Case, seconds: Sequence[float]) -> None:
    """Answers with the images per second of steps that took so long, those of the warm-up among them."""
    answer(case.batch / statistics.median(seconds[WARM_UP_STEPS:]))


def time_epochs(case: Case, train: Callable[[Path], object]) -> None:
    """Answers with the training images per second of ``train``, evaluations and all else included.

    ``train`` is given a folder for its checkpoints, which hold the weights and not the optimizer's state.
    """
    folder = Path(tempfile.mkdtemp())
    start = time.perf_counter()
    train(folder)
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    answer(len(case.files("train")) * case.epochs / seconds)


def answer(images_per_second: float, *, of_child: bool = False) -> None:
    """Prints what was measured, with this process's peak memory (or that of its child), and ends the process.

    It is the memory of the machine: that of the processes that a loader starts is not in it.
    """
    usage = resource.getrusage(resource.RUSAGE_CHILDREN if of_child else resource.RUSAGE_SELF)
    print(json.dumps({"images_per_second": images_per_second, "peak_mib": usage.ru_maxrss / 1024}), flush=True)
    os._exit(0)  # some libraries take seconds to tear themselves down
