"""Evaluation of a network on a data set: loss, accuracy, predictions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rmldnn_contract.training_log import EvalBatch
from rmldnn_torch.data import Batch, Loader
from rmldnn_torch.distributed import Processes
from rmldnn_torch.log import Reporter
from rmldnn_torch.losses import activate
from rmldnn_torch.metrics import dice_coefficient, dice_counts, num_dice_classes
from rmldnn_torch.predictions import PredictionFile, prediction_file
from rmldnn_torch.task import Task


@dataclass(frozen=True)
class Evaluator:
    """Runs a network over the test samples.

    Attributes:
        loader: the test samples, in a fixed order.
        predictions: the file that takes the predictions of the last epoch; None for none.
    """

    task: Task
    loader: Loader
    processes: Processes
    reporter: Reporter
    predictions: Path | None = None

    def evaluate(self, epoch: int, num_epochs: int) -> EvalBatch:
        """Evaluates once, prints the running values and gives those of the whole data set.

        Loss and accuracy are weighted by samples and pixels: they do not depend on the batch size. The line has
        neither where there are no targets or no loss. In the last epoch the predictions are written as they come.

        Raises:
            NetworkError: the samples do not fit the network, or its output not the targets.
            DataError: a sample cannot be read.
            OutputError: a file cannot be written.
        """
        self.task.network.eval()
        self.processes.copy_buffers(self.task.network)
        self.reporter.log.rule()
        with self._open_predictions(is_last=epoch == num_epochs) as predictions:
            result = self._evaluate(EvalBatch(epoch, num_epochs, 0, len(self.loader)), predictions)
        self.reporter.log.rule()
        return result

    def _open_predictions(self, *, is_last: bool) -> AbstractContextManager[PredictionFile | None]:
        return nullcontext() if self.predictions is None or not is_last else prediction_file(self.predictions)

    @torch.inference_mode()
    def _evaluate(self, result: EvalBatch, predictions: PredictionFile | None) -> EvalBatch:
        sums = self._zero_sums()
        pace = self.reporter.start_pace()
        # All evaluations see the same random patches, so that their numbers can be compared.
        for number, batch in enumerate(self.loader.batches(epoch=0), start=1):
            if len(batch):
                output = self.task.compute_logits(batch)
                sums += self._measure(batch, output)
                if predictions is not None:
                    predictions.write(batch.names, activate(output, self.task.network.output_activation))
            total = self.processes.sum(sums)
            if pace.is_due(number, len(self.loader)):
                loss, accuracy = self._averages(total.tolist())
                result = replace(result, batch=number, loss=loss, accuracy=accuracy)
                self.reporter.eval_batch(result)
        return result

    def _measure(self, batch: Batch, output: Tensor) -> Tensor:
        """The sums of one batch: loss times samples, samples, and the counts of the accuracy."""
        sums = self._zero_sums()
        if self.task.loss is not None and batch.targets is not None:
            sums[0] = self.task.loss(output, batch.targets) * len(batch)
            sums[1] = len(batch)
            if self._has_accuracy:
                activation = self.task.network.output_activation
                sums[2:] = dice_counts(output, batch.targets, activation, self.task.ignore_index).flatten()
        return sums

    def _zero_sums(self) -> Tensor:
        # Float64 holds pixel counts exactly, up to 2^53.
        size = 2 + 2 * num_dice_classes(self.task.network.output_channels)
        return torch.zeros(size, dtype=torch.float64, device=self.loader.settings.device)

    @property
    def _has_accuracy(self) -> bool:
        """Whether the targets are classes: masks, or grey values of one class."""
        kind = self.loader.dataset.target_kind
        is_one_class = self.task.network.output_channels == 1 and self.task.network.output_activation == "sigmoid"
        return kind is not None and (kind.is_mask or is_one_class)

    def _averages(self, sums: Sequence[float]) -> tuple[float | None, float | None]:
        loss_sum, num_samples, *counts = sums
        if not num_samples:
            return None, None
        loss = loss_sum / num_samples
        if not self._has_accuracy:
            return loss, None
        return loss, dice_coefficient(torch.tensor(counts, dtype=torch.float64).reshape(2, -1))
