"""Evaluation of a network on a data set: loss, accuracy, predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from rmldnn_contract.data import Data, PrecisionName
from rmldnn_contract.training_log import EvalBatch
from rmldnn_torch.data import Batch, Loader, TargetKind
from rmldnn_torch.distributed import Processes
from rmldnn_torch.log import Reporter
from rmldnn_torch.losses import activate
from rmldnn_torch.metrics import Accuracy, dice_accuracy, label_accuracy
from rmldnn_torch.predictions import PredictionFile, prediction_file, prediction_path
from rmldnn_torch.slice_predictions import Assembly, assembled_predictions, restore_slice
from rmldnn_torch.task import Task


@dataclass(frozen=True)
class PredictionOutputs:
    """Where the predictions of the last epoch go.

    Attributes:
        samples: the file with one dataset for each sample; None for none.
        assembled: the file in which slices are put together again; None for none.
        precision: of the second.
    """

    samples: Path | None = None
    assembled: Path | None = None
    precision: PrecisionName = "single"


def prediction_outputs(data: Data, rank: int) -> PredictionOutputs:
    """Where the document wants the predictions of the process ``rank``."""
    return PredictionOutputs(
        samples=None if data.test_output_path is None else prediction_path(data.test_output_path, rank),
        assembled=None if data.hdf5_outfile is None else Path(data.hdf5_outfile),
        precision=data.hdf5_precision,
    )


@dataclass(frozen=True)
class _OpenPredictions:
    """The files of predictions, while they are written."""

    file: PredictionFile | None = None
    assembly: Assembly | None = None

    def write(self, loader: Loader, batch: Batch, predictions: Tensor) -> None:
        slices = loader.dataset.slices
        if slices is None:
            if self.file is not None:
                self.file.write(batch.names, predictions)
            return
        for name, index, prediction in zip(batch.names, batch.indices, predictions, strict=True):
            if self.file is not None:
                cut, block = restore_slice(slices, index, prediction)
                self.file.write([name], torch.from_numpy(cut.without_dropped_axes(block))[None])
            if self.assembly is not None:
                self.assembly.add(index, prediction)


@dataclass(frozen=True)
class Evaluator:
    """Runs a network over the test samples.

    Attributes:
        loader: the test samples, in a fixed order.
        outputs: where the predictions of the last epoch go.
    """

    task: Task
    loader: Loader
    processes: Processes
    reporter: Reporter
    outputs: PredictionOutputs = field(default_factory=PredictionOutputs)

    def evaluate(self, epoch: int, num_epochs: int) -> EvalBatch:
        """Evaluates once, prints the running values and gives those of the whole data set.

        Losses of batches are weighted by their samples, and the accuracy counts all pixels or labels together. So
        neither depends on the batch size, but for losses that are no means over samples: Dice, Jaccard, and NLL with
        weights or an ``ignore_index``. The line has neither where there are no targets or no loss. In the last epoch
        the predictions are written as they come.

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

    @contextmanager
    def _open_predictions(self, *, is_last: bool) -> Iterator[_OpenPredictions | None]:
        outputs, slices = self.outputs, self.loader.dataset.slices
        if not is_last or (outputs.samples is None and outputs.assembled is None):
            yield None
            return
        with ExitStack() as stack:
            file, assembly = None, None
            if outputs.samples is not None:
                file = stack.enter_context(prediction_file(outputs.samples))
            if outputs.assembled is not None and slices is not None:
                assembly = Assembly(slices, self.task.network.output_channels)
                stack.enter_context(
                    assembled_predictions(outputs.assembled, outputs.precision, assembly, self.processes)
                )
            yield _OpenPredictions(file, assembly)

    @torch.inference_mode()
    def _evaluate(self, result: EvalBatch, predictions: _OpenPredictions | None) -> EvalBatch:
        sums = self._zero_sums()
        pace = self.reporter.start_pace()
        # All evaluations see the same random patches, so that their numbers can be compared.
        for number, batch in enumerate(self.loader.batches(epoch=0), start=1):
            if len(batch):
                output = self.task.compute_logits(batch)
                sums += self._measure(batch, output)
                if predictions is not None:
                    predictions.write(self.loader, batch, activate(output, self.task.network.output_activation))
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
            if self._accuracy is not None:
                sums[2:] = self._accuracy.count(output, batch.targets)
        return sums

    def _zero_sums(self) -> Tensor:
        # Float64 holds pixel counts exactly, up to 2^53.
        size = 2 + (0 if self._accuracy is None else self._accuracy.num_counts)
        return torch.zeros(size, dtype=torch.float64, device=self.loader.settings.device)

    @cached_property
    def _accuracy(self) -> Accuracy | None:
        """How good the predictions are, where the targets are classes: labels, masks, or values of one class."""
        kind, network, ignore_index = self.loader.dataset.target_kind, self.task.network, self.task.ignore_index
        if kind is TargetKind.LABELS:
            return label_accuracy(network.output_activation, ignore_index)
        is_one_class = network.output_channels == 1 and network.output_activation == "sigmoid"
        if kind is None or not (kind.is_mask or is_one_class):
            return None
        return dice_accuracy(network.output_channels, network.output_activation, ignore_index)

    def _averages(self, sums: Sequence[float]) -> tuple[float | None, float | None]:
        loss_sum, num_samples, *counts = sums
        if not num_samples:
            return None, None
        loss = loss_sum / num_samples
        if self._accuracy is None:
            return loss, None
        return loss, self._accuracy.value(torch.tensor(counts, dtype=torch.float64))
