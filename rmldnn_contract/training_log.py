"""The lines of an rmldnn log, out and in: each format beside the pattern that reads it.

The forms are those of RocketML's published logs. Loss and accuracy on an ``Eval`` line are running
values: those of the epoch stand on the line of its last batch. Losses are printed with four decimals,
accuracies with three, so that is all that a reader can know.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

RULE = "-" * 45
ERROR_PREFIX = "Error: "

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# Words that only begin so, such as "inference", are no numbers.
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|\bnan\b(?:\([^)]*\))?|\binf(?:inity)?\b)"
# Of more digits than any count has, a number is rubbish, and Python may not be able to compute with it.
_COUNT = r"\s*(\d{1,15})\s*"
_POSITION = rf"Epoch\s*\[{_COUNT}/{_COUNT}\]\s*:\s*Batch\s*\[{_COUNT}/{_COUNT}\]"
_STAMP = re.compile(r"^\s*\[\d{4}-\w{3}-\d{2} \d{2}:\d{2}:\d{2}(?:\.\d+)?\]\s?")
_TRAIN = re.compile(
    rf"Train\s+{_POSITION}.*?Loss\s*[=:]\s*({_NUMBER})(?:.*?\|g\|\s*[=:]\s*({_NUMBER}))?", re.IGNORECASE
)
_EVAL = re.compile(
    rf"Eval\s+{_POSITION}(?:.*?Loss\s*[=:]\s*({_NUMBER}))?(?:.*?Accuracy\s*[=:]\s*({_NUMBER}))?", re.IGNORECASE
)
_DONE = re.compile(r"All done \(return value = (-?\d+)\)")


def stamp(text: str, when: datetime) -> str:
    """``text`` as a line of the log, with the time in front, as in ``[2022-Mar-24 21:44:12.182169] ``."""
    return f"[{when.year:04}-{_MONTHS[when.month - 1]}-{when:%d %H:%M:%S.%f}] {text}"


def without_stamp(line: str) -> str:
    """A line of the log without its time and line end."""
    return _STAMP.sub("", line.rstrip("\r\n"))


@dataclass(frozen=True)
class TrainBatch:
    """One training batch: ``loss`` of the batch, ``gradient_norm`` the 2-norm of its gradient."""

    epoch: int
    num_epochs: int
    batch: int
    num_batches: int
    loss: float
    gradient_norm: float | None = None
    data_percent: int = 0
    compute_percent: int = 0

    @property
    def share_of_training(self) -> float:
        """How much of the whole training is done with it, 0 to 1; evaluations are not counted."""
        if not (self.num_batches and self.num_epochs):
            return 0.0
        return min(1.0, (self.epoch - 1 + self.batch / self.num_batches) / self.num_epochs)

    def format(self) -> str:
        """The line without its time."""
        norm = math.nan if self.gradient_norm is None else self.gradient_norm
        return (
            f"Train Epoch [{self.epoch:3}/{self.num_epochs:3}] : Batch [{self.batch:5}/{self.num_batches:5}] "
            f"(Loss = {self.loss:.4f}; |g| = {norm:.4f}) "
            f"[Data: {self.data_percent}%; Compute: {self.compute_percent}%]"
        )


@dataclass(frozen=True)
class EvalBatch:
    """One evaluation batch: ``loss`` and ``accuracy`` (0 to 1) over the batches of this epoch so far.

    Both are None where an inference runs without targets.
    """

    epoch: int
    num_epochs: int
    batch: int
    num_batches: int
    loss: float | None = None
    accuracy: float | None = None

    @property
    def is_last(self) -> bool:
        """Whether the values are those of the whole epoch."""
        return self.batch == self.num_batches

    def format(self) -> str:
        """The line without its time."""
        line = f"Eval  Epoch [{self.epoch:3}/{self.num_epochs:3}] : Batch [{self.batch:5}/{self.num_batches:5}]"
        if self.loss is not None:
            line += f" (Loss: {self.loss:.4f})"
        if self.accuracy is not None:
            line += f" | Accuracy: {self.accuracy:.3f}"
        return line


@dataclass(frozen=True)
class Finished:
    """The last line of a run that came to its end."""

    return_value: int = 0

    def format(self) -> str:
        """The line without its time."""
        return f"All done (return value = {self.return_value})."


@dataclass(frozen=True)
class Failure:
    """A line in which the engine says what went wrong."""

    message: str

    def format(self) -> str:
        """The line without its time."""
        return ERROR_PREFIX + self.message


LogLine = TrainBatch | EvalBatch | Finished | Failure


def parse_line(line: str) -> LogLine | None:
    """What a line of the log says; None for a line that tells nothing of batches, end or error."""
    text = without_stamp(line)
    if match := _TRAIN.search(text):
        epoch, num_epochs, batch, num_batches = (int(group) for group in match.groups()[:4])
        loss, norm = match.groups()[4:]
        data, compute = (re.search(rf"{name}:\s*(\d+)%", text) for name in ("Data", "Compute"))
        return TrainBatch(
            epoch,
            num_epochs,
            batch,
            num_batches,
            loss=_number(loss),
            gradient_norm=None if norm is None else _number(norm),
            data_percent=int(data[1]) if data else 0,
            compute_percent=int(compute[1]) if compute else 0,
        )
    if match := _EVAL.search(text):
        epoch, num_epochs, batch, num_batches = (int(group) for group in match.groups()[:4])
        loss, accuracy = (None if group is None else _number(group) for group in match.groups()[4:])
        return EvalBatch(epoch, num_epochs, batch, num_batches, loss=loss, accuracy=accuracy)
    if match := _DONE.search(text):
        return Finished(int(match[1]))
    if text.startswith(ERROR_PREFIX):
        return Failure(text.removeprefix(ERROR_PREFIX).strip())
    return None


def _number(text: str) -> float:
    # C prints not-a-number as "nan", "-nan" or "-nan(ind)".
    return math.nan if "nan" in text.lower() else float(text)


@dataclass(frozen=True)
class EpochRecord:
    """What the log says of one epoch: the last training loss, and loss and accuracy of the evaluation."""

    epoch: int
    num_epochs: int
    accuracy: float | None
    test_loss: float | None = None
    train_loss: float | None = None


class EpochReader:
    """Turns the lines of a log, as they come, into one record for each evaluated epoch.

    An epoch is over with the line of its last evaluation batch. Where that line is missing (a log that
    prints every so many batches), it is over when another epoch or the end of the log comes, and its
    last evaluation line stands for it.
    """

    def __init__(self) -> None:
        self._train_loss: float | None = None
        self._pending: EvalBatch | None = None

    def feed(self, line: str) -> list[EpochRecord]:
        """The epochs that this line completes: none, or one."""
        match parse_line(line):
            case TrainBatch() as train:
                completed = self.finish()
                self._train_loss = train.loss
                return completed
            case EvalBatch() as evaluation:
                completed = [] if self._continues(evaluation) else self.finish()
                self._pending = evaluation
                return completed + self.finish() if evaluation.is_last else completed
            case Finished():
                return self.finish()
            case _:
                return []

    def finish(self) -> list[EpochRecord]:
        """The epoch that is not yet complete, if any: call it when the log has ended."""
        if self._pending is None:
            return []
        last, self._pending = self._pending, None
        train_loss, self._train_loss = self._train_loss, None
        return [EpochRecord(last.epoch, last.num_epochs, last.accuracy, last.loss, train_loss)]

    def _continues(self, evaluation: EvalBatch) -> bool:
        return self._pending is None or self._pending.epoch == evaluation.epoch


def read_epochs(lines: Iterable[str]) -> Iterator[EpochRecord]:
    """One record for each evaluated epoch of a whole log."""
    reader = EpochReader()
    for line in lines:
        yield from reader.feed(line)
    yield from reader.finish()


# --- the files <outfile>_train.txt and <outfile>_test.txt ---------------------------------------------

TRAIN_FILE_HEADER = "# time [s]  epoch  batch  loss  |g|"


def format_train_file_line(seconds: float, batch: TrainBatch) -> str:
    """A line of ``<outfile>_train.txt``: seconds since the start, epoch, batch, loss, norm of the gradient."""
    norm = math.nan if batch.gradient_norm is None else batch.gradient_norm
    return f"{seconds:.3f} {batch.epoch} {batch.batch} {batch.loss:.6f} {norm:.6f}"


def format_test_file_line(seconds: float, evaluation: EvalBatch) -> str:
    """A line of ``<outfile>_test.txt``: epoch first and accuracy last, in plain decimals.

    Between them seconds since the start, and loss. The file has no other lines: readers of RocketML's file look for
    numbers on every line.
    """
    loss = math.nan if evaluation.loss is None else evaluation.loss
    accuracy = math.nan if evaluation.accuracy is None else evaluation.accuracy
    return f"{evaluation.epoch} {seconds:.3f} {loss:.6f} {accuracy:.6f}"


def parse_test_file(text: str) -> dict[int, float]:
    """Accuracy by epoch of ``<outfile>_test.txt``, in whatever columns stand between the two.

    The one known fact of RocketML's file: on each line the first number is the epoch, the last one the
    accuracy. Comments and blank lines are passed over.
    """
    accuracies: dict[int, float] = {}
    for line in text.splitlines():
        numbers = re.findall(_NUMBER, line.split("#", 1)[0], re.IGNORECASE)
        if len(numbers) >= 2 and (epoch := _number(numbers[0])).is_integer():
            accuracies[int(epoch)] = _number(numbers[-1])
    return accuracies
