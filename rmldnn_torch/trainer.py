"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from rmldnn_contract.config import Checkpoints
from rmldnn_contract.exit_status import DataError, DivergedError
from rmldnn_contract.training_log import TrainBatch
from rmldnn_torch.checkpoint_writer import CheckpointWriter
from rmldnn_torch.cuda_graphs import RecordedGradients, Recordings
from rmldnn_torch.data import Batch, Loader
from rmldnn_torch.distributed import Processes
from rmldnn_torch.evaluation import Evaluator
from rmldnn_torch.log import Reporter
from rmldnn_torch.optimizers import Optimization
from rmldnn_torch.task import Task

_REMEDY = "lower the learning rate, or take another optimizer or loss"


@dataclass(frozen=True)
class Trainer:
    """Trains a network for a number of epochs.

    Attributes:
        loader: the training samples.
        evaluator: judges the network after each epoch; None without test samples.
        checkpoints: where, and after how many epochs each, the weights are saved.
        recordings: of the training step, which repeat it by one launch; None where every step is computed anew.
    """

    task: Task
    loader: Loader
    optimization: Optimization
    evaluator: Evaluator | None
    processes: Processes
    reporter: Reporter
    checkpoints: Checkpoints
    recordings: Recordings | None = None

    def train(self, num_epochs: int) -> None:
        """Runs all epochs.

        Raises:
            DivergedError: the loss is no longer a finite number.
            NetworkError: the samples do not fit the network, or its output not the targets.
            DataError: a sample cannot be read.
            OutputError: a file cannot be written.
        """
        with CheckpointWriter() as writer:
            for epoch in range(1, num_epochs + 1):
                self._train_epoch(epoch, num_epochs)
                self._evaluate(epoch, num_epochs)
                self._save_checkpoint(epoch, writer)
                self._schedule()

    def _train_epoch(self, epoch: int, num_epochs: int) -> None:
        self.task.network.train()
        pace, clock = self.reporter.start_pace(), _Clock()
        num_batches = len(self.loader)
        loss_sum = self._zero()
        for number, batch in enumerate(clock.waiting_for(self.loader.batches(epoch)), start=1):
            loss = self._compute_gradients(batch)
            loss_sum += loss
            if pace.is_due(number, num_batches):
                line = TrainBatch(epoch, num_epochs, number, num_batches, *self._numbers(loss), *clock.percent())
                self.reporter.train_batch(line)
                _check_is_finite(line, loss_sum)
            self._step(batch)

    def _compute_gradients(self, batch: Batch) -> Tensor:
        """Leaves the gradients of the whole batch in the parameters, and gives its loss."""
        self.optimization.clear_gradients()
        loss = self._zero()
        if len(batch):
            loss = self._propagate(batch)
        return self.processes.average_gradients(self._parameters, loss, len(batch))

    @cached_property
    def _propagate(self) -> Callable[[Batch], Tensor]:
        """Leaves the gradients of this process's part of a batch in the parameters, and gives its loss."""
        if self.recordings is None:
            return self._propagate_eagerly
        return RecordedGradients(self._propagate_eagerly, self.task.network, self.recordings, self.reporter.log.line)

    def _propagate_eagerly(self, batch: Batch) -> Tensor:
        loss = self._compute_loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _step(self, batch: Batch) -> None:
        self.optimization.step(self._objective(batch) if self.optimization.searches else None)

    def _objective(self, batch: Batch) -> Callable[[], float]:
        """The loss of a batch as a function of the weights; it leaves the gradients in them.

        Dropout draws the same numbers in every call: else there would be no function to minimize. The moving
        averages of BatchNormalization follow every call.
        """
        seed = int(torch.randint(2**62, ()))

        def evaluate() -> float:
            torch.manual_seed(seed)
            loss = float(self._compute_gradients(batch))
            if not math.isfinite(loss):
                raise DivergedError(f"the loss is not a finite number any more: {_REMEDY}")
            return loss

        return evaluate

    def _compute_loss(self, batch: Batch) -> Tensor:
        assert self.task.loss is not None  # noqa: S101 - the document requires a loss and targets for training
        assert batch.targets is not None  # noqa: S101
        try:
            return self.task.loss(self.task.compute_logits(batch), batch.targets)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise DataError(
                "BatchNormalization cannot take the variance of a single value: choose a batch_size that leaves no "
                "image alone in a batch, or larger images"
            ) from error

    def _numbers(self, loss: Tensor) -> tuple[float, float]:
        """Loss and norm of the gradient, fetched from the device together."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        loss_value, norm_value = torch.stack([loss, norm]).tolist()
        return loss_value, norm_value

    def _evaluate(self, epoch: int, num_epochs: int) -> None:
        if self.evaluator is None:
            return
        loss = self.evaluator.evaluate(epoch, num_epochs).loss
        if loss is not None and not math.isfinite(loss):
            raise DivergedError(f"the test loss is not a finite number any more (epoch {epoch}): {_REMEDY}")

    def _save_checkpoint(self, epoch: int, writer: CheckpointWriter) -> None:
        if self.checkpoints.save is None or epoch % self.checkpoints.interval or self.processes.share.rank != 0:
            return
        writer.save(Path(self.checkpoints.save, f"model_checkpoint_{epoch}.pt"), self.task.network, epoch)

    def _schedule(self) -> None:
        scheduler = self.optimization.scheduler
        if scheduler is None:
            return
        before = scheduler.get_last_lr()
        scheduler.step()
        after = scheduler.get_last_lr()
        if self.optimization.verbose and after != before:
            self.reporter.log.line(f"Learning rate: {after[0]:.6g}")

    def _zero(self) -> Tensor:
        return torch.zeros((), device=self.loader.settings.device)

    @cached_property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.task.network.parameters() if parameter.requires_grad]


def _check_is_finite(line: TrainBatch, loss_sum: Tensor) -> None:
    """The sum of the epoch's losses also tells of batches that had no line of their own."""
    if not math.isfinite(float(loss_sum)):
        raise DivergedError(
            f"the loss is not a finite number any more (epoch {line.epoch}, batch {line.batch}): {_REMEDY}"
        )


@dataclass
class _Clock:
    """How much of the time since the last line was spent on waiting for data."""

    _started: float = field(default_factory=time.perf_counter)
    _waited: float = 0.0

    def waiting_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, with the time that each took to come."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def percent(self) -> tuple[int, int]:
        """The percentages of waiting and of computing since the last call; they sum to 100."""
        now = time.perf_counter()
        waiting = round(100 * self._waited / max(now - self._started, 1e-9))
        self._started, self._waited = now, 0.0
        return waiting, 100 - waiting
