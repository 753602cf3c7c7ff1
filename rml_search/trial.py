"""One trial: write its configuration, run the engine, read the accuracy of every epoch, judge the end."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from rml_search.devices import Slot
from rml_search.driver import this_driver
from rml_search.mounts import Mount, for_container
from rml_search.options import SearchOptions
from rml_search.paths import TrialPaths, Workspace
from rml_search.results import TrialResult, TrialState, best_epoch, drop_checkpoints
from rml_search.runtime.base import EngineExit, EngineRun, Runtime
from rml_search.search_space import SEED
from rml_search.study import Suggestion
from rml_search.trial_config import training_configuration
from rml_search.trial_control import TrialControl, Verdict
from rml_search.whole_files import write_atomically
from rmldnn_contract.exit_status import ConfigurationError
from rmldnn_contract.training_log import (
    EpochReader,
    EpochRecord,
    EvalBatch,
    Failure,
    TrainBatch,
    parse_line,
    parse_test_file,
    without_stamp,
)

#: Whom containers belong to.
_DRIVER = this_driver()

#: Told of every epoch as its line is printed.
EpochCallback = Callable[[EpochRecord], None]


@dataclass(frozen=True)
class TrialRunner:
    """Runs the trials of one search; several threads may, each its own trial."""

    options: SearchOptions
    workspace: Workspace
    runtime: Runtime

    def run(
        self,
        suggestion: Suggestion,
        on_epoch: EpochCallback,
        control: TrialControl | None = None,
        slot: Slot | None = None,
    ) -> TrialResult:
        """Trains with these hyperparameters; a failure of the engine is a result, not an exception.

        Args:
            on_epoch: called in this thread.
            control: by which other threads may end the trial.
            slot: the device and the threads that the trial gets; None: all there are.

        Raises:
            SearchError: the runtime can start nothing, for this trial or any other.
        """
        control = control or TrialControl()
        paths = self.workspace.trial(suggestion.number)
        try:
            run = self.prepare(suggestion, paths, slot or Slot())
        except ConfigurationError as error:  # values of a person's search space that exclude each other
            seconds = time.monotonic() - control.started
            return TrialResult(
                suggestion.number, suggestion.hyperparameters, TrialState.FAILED, (), seconds, reason=str(error)
            )
        watch = _LogWatch(paths, on_epoch, control)
        with paths.log.open("w", encoding="utf-8", buffering=1) as log, self.runtime.start(run) as engine:
            control.attach(engine)
            for line in engine.lines():
                control.note_sign_of_life()
                log.write(line + "\n")
                watch.read(line)
                if watch.fault is not None:
                    control.end(Verdict(TrialState.FAILED, watch.fault))
                    break
            watch.finish()
            ended = engine.wait()
        return _judge(suggestion, control, watch, ended, paths)

    def prepare(self, suggestion: Suggestion, paths: TrialPaths, slot: Slot) -> EngineRun:
        """Writes the configuration of a trial, and says how the engine is started with it.

        Raises:
            ConfigurationError: values of the hyperparameters exclude each other.
        """
        paths.checkpoints.mkdir(parents=True, exist_ok=True)
        configuration = training_configuration(self.options, suggestion.hyperparameters, paths, self.workspace)
        mounts: tuple[Mount, ...] = ()
        if self.runtime.in_container:
            configuration, mounts = for_container(configuration, self.workspace)
        write_atomically(paths.config, configuration.to_json(), durably=False)
        return EngineRun(
            config=paths.config.relative_to(self.workspace.root),
            num_procs=self.options.num_procs,
            seed=_seed(self.options, suggestion),
            mounts=mounts,
            labels={"serves": "search", "trial": str(suggestion.number), "driver": _DRIVER.name},
            device=slot.device,
            num_threads=slot.num_threads,
        )


def _seed(options: SearchOptions, suggestion: Suggestion) -> int | None:
    """The trial's own seed where it has one, else that of the search."""
    own = dict(suggestion.hyperparameters.others).get(SEED)
    return options.seed if own is None else int(own)


def _judge(
    suggestion: Suggestion, control: TrialControl, watch: _LogWatch, ended: EngineExit, paths: TrialPaths
) -> TrialResult:
    verdict = control.verdict
    if verdict is None:
        reason = watch.fault or _why_it_failed(ended, watch, paths)
        state = TrialState.COMPLETE if reason is None else TrialState.FAILED
        told = reason or _what_is_missing(watch)
        verdict = Verdict(state, told, is_machines_fault=ended.is_machines_fault)
        # An exit code of 0 says nothing of what was wrong, nor that other trials would fail alike.
        status = ended.status if reason is not None and watch.fault is None and ended.code != 0 else None
    else:
        status = None
    if watch.fault is not None and verdict.state is not TrialState.FAILED:  # found in the last lines, after the stop
        verdict = replace(verdict, state=TrialState.FAILED, reason=watch.fault, needs_checkpoint=False)
    if verdict.needs_checkpoint:
        verdict = _with_checkpoint(verdict, watch, paths)
    return TrialResult(
        number=suggestion.number,
        hyperparameters=suggestion.hyperparameters,
        state=verdict.state,
        epochs=tuple(watch.epochs),
        seconds=time.monotonic() - control.started,
        reason=verdict.reason or None,
        exit_status=status,
        is_machines_fault=verdict.is_machines_fault,
        is_broken_off=verdict.is_broken_off,
    )


def _with_checkpoint(verdict: Verdict, watch: _LogWatch, paths: TrialPaths) -> Verdict:
    """The verdict on a trial that was stopped early: without a checkpoint it has nothing to show."""
    best = best_epoch(watch.epochs)
    if best is not None and paths.checkpoint(best.epoch).is_file():
        return verdict
    return replace(verdict, state=TrialState.FAILED, reason=f"{verdict.reason}, before its first checkpoint")


class _LogWatch:
    """What the log of a trial has told so far."""

    def __init__(self, paths: TrialPaths, on_epoch: EpochCallback, control: TrialControl) -> None:
        self.epochs: list[EpochRecord] = []
        self.fault: str | None = None
        self.failure: str | None = None
        self.last_line = ""
        self._paths = paths
        self._on_epoch = on_epoch
        self._control = control
        self._reader = EpochReader()
        self._superseded: Path | None = None

    def read(self, line: str) -> None:
        """Takes in one line."""
        self._drop_superseded()
        match parse_line(line):
            case Failure(message):
                self.failure = message
            case TrainBatch(epoch=epoch, loss=loss) if not math.isfinite(loss):
                self.fault = f"the loss became {loss} in epoch {epoch}"
            case TrainBatch() as batch:
                self._control.share_of_training = batch.share_of_training
            case EvalBatch(epoch=epoch, loss=loss, accuracy=accuracy):
                self._check_evaluation(epoch, loss, accuracy)
        text = without_stamp(line).strip()
        # Ruled lines, as mpirun draws them around its messages, say nothing.
        self.last_line = text if re.search(r"\w", text) else self.last_line
        self._add(self._reader.feed(line))

    def finish(self) -> None:
        """Takes in that the log has ended; an accuracy that it did not print may stand in the engine's file."""
        self._add(self._reader.finish())
        if any(epoch.accuracy is not None for epoch in self.epochs) or self.fault:
            return
        accuracies = _read_test_file(self._paths)
        records = [EpochRecord(epoch, max(accuracies), value) for epoch, value in sorted(accuracies.items())]
        for record in records:
            self._check_evaluation(record.epoch, None, record.accuracy)
        self.epochs.clear()
        self._add(records)

    def _check_evaluation(self, epoch: int, loss: float | None, accuracy: float | None) -> None:
        for name, value in (("loss", loss), ("accuracy", accuracy)):
            if value is not None and not math.isfinite(value):
                self.fault = f"the {name} on the test images became {value} in epoch {epoch}"
        if accuracy is not None and math.isfinite(accuracy) and not 0 <= accuracy <= 1:
            self.fault = f"the accuracy on the test images in epoch {epoch} is {accuracy}, not between 0 and 1"

    def _add(self, records: Iterable[EpochRecord]) -> None:
        for record in records:
            self.epochs.append(record)
            best = best_epoch(self.epochs)
            drop_checkpoints(self._paths, keep=[best.epoch] if best else [], before=record.epoch)
            if best is not None and best is not record:
                # It may still be on its way to the disk: then it goes with the first line after that.
                self._superseded = self._paths.checkpoint(record.epoch)
                self._drop_superseded()
            if record.accuracy is not None:
                self._on_epoch(record)

    def _drop_superseded(self) -> None:
        """Deletes the checkpoint of the last epoch, once it is there, where an earlier one was better."""
        if self._superseded is not None and self._superseded.exists():
            self._superseded.unlink()
            self._superseded = None


def _read_test_file(paths: TrialPaths) -> dict[int, float]:
    try:
        return parse_test_file(paths.test_file.read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return {}


def _why_it_failed(ended: EngineExit, watch: _LogWatch, paths: TrialPaths) -> str | None:
    if ended.code != 0:
        return watch.failure or ended.note or _last_words(ended, watch)
    best = best_epoch(watch.epochs)
    if best is None:
        return f"the engine printed no accuracy; its last line was: {watch.last_line or '(none)'}"
    if not paths.checkpoint(best.epoch).is_file():
        return f"the engine left no checkpoint of epoch {best.epoch}, its best"
    return None


def _what_is_missing(watch: _LogWatch) -> str:
    """Of a trial that ended well: a training may end early by itself, but a person should know."""
    last = watch.epochs[-1]
    return "" if last.epoch >= last.num_epochs else f"its log ends with epoch {last.epoch} of {last.num_epochs}"


def _last_words(ended: EngineExit, watch: _LogWatch) -> str:
    words = f"; its last line was: {watch.last_line}" if watch.last_line else " and printed nothing"
    return f"the engine ended with exit code {ended.code}{words}"
