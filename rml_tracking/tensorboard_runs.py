"""Trials in TensorBoard: a run for each, with its hyperparameters, its curves and how it has ended.

The only module that imports TensorBoard. Optuna's own callback needs TensorFlow, and knows neither epochs nor trials
that were pruned or failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from rml_search.hyperparameters import Hyperparameters
from rml_search.results import TrialRecord, TrialState
from rml_search.tracking import PastTrial
from rmldnn_contract.training_log import EpochRecord

_FLUSH_SECONDS = 5
_STATUS = {
    TrialState.COMPLETE: api_pb2.STATUS_SUCCESS,
    TrialState.PRUNED: api_pb2.STATUS_SUCCESS,
    TrialState.FAILED: api_pb2.STATUS_FAILURE,
}


class TensorBoardLog:
    """The event files of one search; the ``TrialLog`` of ``rml_search.tracking``.

    Attributes:
        folder: of this search alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writers: dict[int, EventFileWriter] = {}

    def begin(self, number: int, hyperparameters: Hyperparameters, when: float) -> None:
        """The hyperparameters, as the HParams tab shows them."""
        summary = hparams_pb(hyperparameters.point, trial_id=f"trial {number}", start_time_secs=when)
        self._write(number, summary, when)

    def add_epoch(self, number: int, epoch: EpochRecord, when: float) -> None:
        """Accuracy and losses, which are curves over the epochs."""
        curves = {"accuracy": epoch.accuracy, "loss/test": epoch.test_loss, "loss/train": epoch.train_loss}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in curves.items() if value is not None]
        self._write(number, Summary(value=values), when, epoch.epoch)

    def end(self, record: TrialRecord, when: float) -> None:
        """The best accuracy, the state and why, as text and as the HParams tab's status."""
        values = [
            _text("state", record.state.value if record.reason is None else f"{record.state.value}: {record.reason}")
        ]
        if record.max_acc is not None:
            values.append(Summary.Value(tag="best accuracy", simple_value=record.max_acc))
        self._write(record.number, Summary(value=values), when, record.epoch_max_acc or 0)
        ended = plugin_data_pb2.SessionEndInfo(status=_STATUS[record.state], end_time_secs=when)
        data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
        value = Summary.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=data, tensor=metadata.NULL_TENSOR)
        self._write(record.number, Summary(value=[value]), when)
        self._writers.pop(record.number).close()

    def catch_up(self, trials: Sequence[PastTrial]) -> None:
        """Writes the trials whose end is not there, from their beginning."""
        for trial in trials:
            number = trial.record.number
            events = sorted(self._trial_folder(number).glob("events.out.tfevents.*"))
            if any(_tells_an_end(file) for file in events):
                continue
            for file in events:  # what a killed search has begun would else stand there twice
                file.unlink()
            self._writers.pop(number, None)
            self.begin(number, Hyperparameters.from_point(trial.record.point), trial.ended - trial.record.seconds)
            for epoch in trial.epochs:
                self.add_epoch(number, epoch, trial.ended)
            self.end(trial.record, trial.ended)

    def close(self) -> None:
        """Closes the files of trials that have not ended."""
        for writer in self._writers.values():
            writer.close()

    def _trial_folder(self, number: int) -> Path:
        return self.folder / f"trial_{number:04}"

    def _write(self, number: int, summary: Summary, when: float, step: int = 0) -> None:
        if number not in self._writers:
            self._writers[number] = EventFileWriter(str(self._trial_folder(number)), flush_secs=_FLUSH_SECONDS)
        self._writers[number].add_event(Event(wall_time=when, step=step, summary=summary))


def _text(tag: str, text: str) -> Summary.Value:
    data = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary.Value(tag=tag, metadata=data, tensor=TensorProto(dtype=DT_STRING, string_val=[text.encode()]))


def _tells_an_end(file: Path) -> bool:
    tags = (value.tag for event in EventFileLoader(str(file)).Load() for value in event.summary.value)
    return metadata.SESSION_END_INFO_TAG in tags
