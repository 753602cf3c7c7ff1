"""What a run prints and the two histories that it writes, in the forms of ``rmldnn_contract.training_log``."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO

from typing_extensions import Self

from rmldnn_contract.training_log import (
    RULE,
    TRAIN_FILE_HEADER,
    EvalBatch,
    TrainBatch,
    format_test_file_line,
    format_train_file_line,
    stamp,
)
from rmldnn_torch.files import writing


class Log:
    """Lines on standard output, each with its time in front and each flushed at once, for who reads along.

    With ``silent`` nothing is printed: of several processes one alone keeps the log.
    """

    def __init__(self, stream: TextIO | None = None, *, silent: bool = False) -> None:
        self._stream = sys.stdout if stream is None else stream
        self.silent = silent

    def line(self, text: str = "") -> None:
        """Prints one line."""
        if self.silent:
            return
        with writing(Path("the standard output")):
            self._stream.write(stamp(text, datetime.now()) + "\n")
            self._stream.flush()

    def rule(self) -> None:
        """Prints the line of dashes that stands around an evaluation."""
        self.line(RULE)

    def block(self, title: str, entries: Mapping[str, object]) -> None:
        """Prints a title and indented names with their values, such as ``   Model name: model_1``."""
        self.line(f"{title}:")
        for name, value in entries.items():
            self.line(f"   {name}: {value}")


class Pace:
    """Lets through a line every so many ``seconds`` at most, and the last of a loop always.

    A line needs numbers from the device, and waiting for them stops a fast loop.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = -math.inf

    def is_due(self, number: int, count: int) -> bool:
        """Whether the ``number``-th of ``count`` batches (counted from 1) gets its line."""
        now = time.monotonic()
        if number < count and now - self._last < self._seconds:
            return False
        self._last = now
        return True


class Histories:
    """``<base>_train.txt`` and ``<base>_test.txt``: a line for each line of the log, with more decimals.

    ``outfile`` is the document's (``out.txt`` gives ``out_train.txt``); with None nothing is written. The
    files are begun anew by each run, and only those are made that ``trains`` and ``evaluates`` ask for.
    """

    def __init__(self, outfile: str | None, *, trains: bool, evaluates: bool) -> None:
        self._start = time.monotonic()
        self._train = _open(outfile, "train", TRAIN_FILE_HEADER) if trains else None
        self._test = _open(outfile, "test") if evaluates else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in (self._train, self._test):
            if file is not None:
                # What was written has been flushed line by line: a full disk has been reported by then.
                with contextlib.suppress(OSError):
                    file.close()

    def add_train(self, batch: TrainBatch) -> None:
        """Adds a training batch."""
        _append(self._train, format_train_file_line(time.monotonic() - self._start, batch))

    def add_evaluation(self, evaluation: EvalBatch) -> None:
        """Adds the evaluation of an epoch. One without targets has no accuracy to write."""
        if evaluation.accuracy is not None:
            _append(self._test, format_test_file_line(time.monotonic() - self._start, evaluation))


@dataclass(frozen=True)
class Reporter:
    """Tells of batches and epochs: in the log, and those that count in the histories."""

    log: Log
    histories: Histories

    def start_pace(self) -> Pace:
        """For a loop over batches: ten lines a second. A silent log needs the numbers of the last batch only."""
        return Pace(math.inf if self.log.silent else 0.1)

    def train_batch(self, batch: TrainBatch) -> None:
        """Prints a training batch and adds it to its history."""
        self.log.line(batch.format())
        self.histories.add_train(batch)

    def eval_batch(self, evaluation: EvalBatch) -> None:
        """Prints an evaluation batch; the last one is the epoch's and goes into its history too."""
        self.log.line(evaluation.format())
        if evaluation.is_last:
            self.histories.add_evaluation(evaluation)


def history_path(outfile: str, kind: str) -> Path:
    """The path of a history: ``runs/out.txt`` and ``train`` give ``runs/out_train.txt``."""
    path = Path(outfile)
    return path.with_name(f"{path.stem}_{kind}.txt")


def _open(outfile: str | None, kind: str, header: str | None = None) -> TextIO | None:
    if outfile is None:
        return None
    path = history_path(outfile, kind)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8", buffering=1)
        if header is not None:
            file.write(header + "\n")
        return file


def _append(file: TextIO | None, line: str) -> None:
    if file is not None:
        with writing(Path(file.name)):
            file.write(line + "\n")
