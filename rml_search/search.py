"""The loop of a search: trials are started, watched, ended and remembered until there are enough."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from rml_search.devices import Slot
from rml_search.errors import AllTrialsFailedError, RuntimeUnavailableError
from rml_search.interruption import interruptions_allowed, uninterrupted
from rml_search.limits import Limits
from rml_search.network_file import network_texts
from rml_search.observer import SearchObserver
from rml_search.options import SearchOptions
from rml_search.paths import Workspace, shown
from rml_search.results import (
    TrialRecord,
    TrialResult,
    TrialState,
    best_epoch,
    best_record,
)
from rml_search.runtime.base import Runtime
from rml_search.search_files import SearchFiles
from rml_search.shared_failure import every_trial_would_fail, shared_failure
from rml_search.study import Study, Suggestion
from rml_search.trial import TrialRunner
from rml_search.trial_control import TrialControl, Verdict
from rml_search.whole_files import write_atomically
from rmldnn_contract.training_log import EpochRecord

#: How often limits in time are looked at, and the observer is told how far running trials have come.
_TICK_SECONDS = 0.25

#: How often the observer is told of trials that other drivers run.
_OTHERS_SECONDS = 2.0

#: How long to wait before the engine is tried again that could not be started; each time that much longer.
RETRY_SECONDS = 5.0

#: How long to wait before a study is asked again that had nothing to try while others run the last trials.
ASK_AGAIN_SECONDS = 2.0


@dataclass
class _Running:
    """A trial at work, in a thread of its own."""

    suggestion: Suggestion
    slot: Slot
    control: TrialControl = field(default_factory=TrialControl)
    epochs: list[EpochRecord] = field(default_factory=list)
    thread: threading.Thread | None = None
    outcome: TrialResult | BaseException | None = None

    def failure(self, error: BaseException) -> TrialResult:
        """The trial as one that an error has ended."""
        reason = str(error) or type(error).__name__
        seconds = time.monotonic() - self.control.started
        number, hyperparameters = self.suggestion.number, self.suggestion.hyperparameters
        return TrialResult(number, hyperparameters, TrialState.FAILED, tuple(self.epochs), seconds, reason)


@dataclass(frozen=True)
class _Event:
    """An epoch of a trial has ended; without an epoch the trial has."""

    number: int
    epoch: EpochRecord | None = None


@dataclass
class Search:
    """A search in a working directory; the study knows what an earlier part of it has brought.

    Trials run in threads, and nothing but their engines: the study, the files of results and the observer are the
    business of the thread that calls :meth:`run`. After every trial ``study``, ``list_acc.json`` and ``best_model/``
    agree; where the process is killed in between, the next search makes them agree first.

    Attributes:
        slots: one for each trial that may run at a time.
        keep_top: of how many trials, the best ones, the checkpoints are kept.
        ended_early: why the search has ended with fewer trials than were asked for; None if it has not.
    """

    options: SearchOptions
    workspace: Workspace
    runtime: Runtime
    study: Study
    observer: SearchObserver
    limits: Limits = field(default_factory=Limits)
    slots: Sequence[Slot] = (Slot(),)
    keep_top: int = 1
    ended_early: str | None = None
    _events: queue.SimpleQueue[_Event] = field(default_factory=queue.SimpleQueue)
    _running: dict[int, _Running] = field(default_factory=dict)
    _failures_in_a_row: int = 0
    _has_told_of_others: bool = False
    _ask_again_at: float = 0.0
    _told_of_others: float = -math.inf
    _told_of_progress: float = -math.inf
    _started: float = 0.0

    def __post_init__(self) -> None:
        self._files = SearchFiles(self.options, self.workspace, self.study, self.observer, self.keep_top)

    @property
    def has_best_model(self) -> bool:
        """Whether ``best_model/`` is the best trial's, not one that was the best until then."""
        return self._files.has_best_model

    @property
    def records(self) -> Sequence[TrialRecord]:
        """All trials that have ended, those of earlier parts included."""
        return self.study.records()

    def run(self) -> None:
        """Runs trials until as many have ended as the options ask for, or a limit is reached.

        Raises:
            AllTrialsFailedError: nothing works, or has worked several times in a row.
            EngineFailedError: a trial failed for a reason that every other one shares.
            RuntimeUnavailableError: the engine cannot be started any more.
            Interrupted: the person or the system wants the search to end; the same search goes on later.
        """
        self._started = time.monotonic()
        # Copies of its own, since the person may change the files while the search runs.
        self.workspace.trials.mkdir(parents=True, exist_ok=True)
        for index, text in enumerate(network_texts(self.options)):
            write_atomically(self.workspace.trial_layers(index), text)
        runner = TrialRunner(self.options, self.workspace, self.runtime)
        with uninterrupted():
            self._files.settle(verify=True)
            self._heed_target(best_record(self.records))
            if self._num_counted() >= self.options.num_trials:
                self.observer.note(f"All {self.options.num_trials} trials have run: increase --num-trials to add more")
            try:
                self._loop(runner)
            except BaseException as error:
                self._break_off(_why(error))
                raise
            self._files.settle()
        if best_record(self.records) is None:
            if self.ended_early is not None:
                raise AllTrialsFailedError(f"the search ended before any trial succeeded: {self.ended_early}")
            raise self._all_failed()

    def _loop(self, runner: TrialRunner) -> None:
        while True:
            with interruptions_allowed():
                pass  # a signal that has come meanwhile is raised before another trial begins
            self._start_trials(runner)
            if not self._running and not self._waits_for_others():
                return
            with interruptions_allowed():
                event = self._next_event()
            if event is not None:
                self._handle(event)
            self.study.keep_up()
            self._tell_of_progress()
            self._tell_of_others()
            self._enforce_limits()

    def _next_event(self) -> _Event | None:
        try:
            return self._events.get(timeout=_TICK_SECONDS)
        except queue.Empty:
            return None

    def _tell_of_progress(self) -> None:
        now = time.monotonic()
        if now - self._told_of_progress >= _TICK_SECONDS:
            self._told_of_progress = now
            shares = {number: running.control.share_of_training for number, running in self._running.items()}
            self.observer.trials_advanced(shares)

    def _tell_of_others(self) -> None:
        now = time.monotonic()
        if now - self._told_of_others < _OTHERS_SECONDS:
            return
        self._told_of_others = now
        running = self.study.running_elsewhere()
        if running is not None:
            self.observer.others_seen(self.records, running)

    def _num_counted(self) -> int:
        return sum(not record.tried_again for record in self.records)

    def _num_begun(self) -> int:
        """The trials that count: those that have ended, and those that run, here and elsewhere."""
        return self._num_counted() + len(self._running) + self.study.num_running_elsewhere()

    def _waits_for_others(self) -> bool:
        """Whether other drivers are at work on trials that this one may have to run again, and will show at the end."""
        if self._is_out_of_time():
            self._enforce_limits()  # which tells why the search ends
            return False
        num_elsewhere = self.study.num_running_elsewhere()
        if num_elsewhere and not self._has_told_of_others:
            self.observer.note(f"Waiting for {num_elsewhere} trial{'s' * (num_elsewhere > 1)} of other drivers")
            self._has_told_of_others = True
        self._heed_target(best_record(self.records))
        is_short = self.ended_early is None and self._num_begun() < self.options.num_trials
        return num_elsewhere > 0 or is_short

    # --- starting --------------------------------------------------------------------------------------

    def _start_trials(self, runner: TrialRunner) -> None:
        while self.ended_early is None and len(self._running) < len(self.slots):
            num_begun = self._num_begun()
            if num_begun >= self.options.num_trials or time.monotonic() < self._ask_again_at:
                return
            suggestion = self.study.ask()
            if suggestion is None:
                self._ask_again_at = time.monotonic() + ASK_AGAIN_SECONDS
                if self._num_begun() < self.options.num_trials and not self.study.num_running_elsewhere():
                    self.ended_early = "every point of the search space has been tried"
                return
            self._start(runner, suggestion, place=num_begun + 1)

    def _start(self, runner: TrialRunner, suggestion: Suggestion, *, place: int) -> None:
        taken = [running.slot for running in self._running.values()]
        free = list(self.slots)
        for slot in taken:
            free.remove(slot)
        running = _Running(suggestion, free[0])
        self._running[suggestion.number] = running
        self.observer.trial_started(suggestion.number, place, suggestion.hyperparameters)
        running.thread = threading.Thread(target=self._work, args=(runner, running), name=f"trial {suggestion.number}")
        running.thread.start()

    def _work(self, runner: TrialRunner, running: _Running) -> None:
        """What the thread of a trial does."""
        number = running.suggestion.number

        def on_epoch(epoch: EpochRecord) -> None:
            self._events.put(_Event(number, epoch))

        try:
            running.outcome = runner.run(running.suggestion, on_epoch, running.control, running.slot)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the search
            running.outcome = error
        self._events.put(_Event(number))

    # --- watching --------------------------------------------------------------------------------------

    def _handle(self, event: _Event) -> None:
        running = self._running.get(event.number)
        if running is None:
            return
        if event.epoch is None:
            self._end(running)
            return
        running.epochs.append(event.epoch)
        is_hopeless = self.study.report(event.number, event.epoch)
        self.observer.epoch_finished(event.number, event.epoch)
        if is_hopeless and not self._may_still_win(running, event.epoch):
            reason = f"pruned after epoch {event.epoch.epoch} of {event.epoch.num_epochs}"
            running.control.end(Verdict(TrialState.PRUNED, reason))

    def _may_still_win(self, running: _Running, epoch: EpochRecord) -> bool:
        """Whether this epoch is the best of all trials, so that its checkpoint must be waited for."""
        best = best_record(self.records)
        is_best = best is None or (epoch.accuracy or 0.0) >= (best.max_acc or 0.0)
        return is_best and best_epoch(running.epochs) is epoch

    def _is_out_of_time(self) -> bool:
        seconds = self.limits.search_seconds
        return seconds is not None and time.monotonic() - self._started > seconds

    def _enforce_limits(self) -> None:
        now, limits = time.monotonic(), self.limits
        if self._is_out_of_time() and not self.ended_early:
            self.ended_early = f"time limit of {limits.search_seconds:g} s reached (--timeout)"
            self._end_all(Verdict(TrialState.FAILED, "stopped at the end of --timeout", is_broken_off=True))
        for running in self._running.values():
            control = running.control
            if limits.trial_seconds is not None and now - control.started > limits.trial_seconds:
                reason = f"stopped after {limits.trial_seconds:g} s (--trial-timeout)"
                control.end(Verdict(TrialState.PRUNED, reason, needs_checkpoint=True))
            if limits.stall_seconds is not None and now - control.last_sign > limits.stall_seconds:
                reason = f"the engine printed nothing for {limits.stall_seconds:g} s (--stall-timeout)"
                control.end(Verdict(TrialState.FAILED, reason, is_machines_fault=True))

    # --- ending ----------------------------------------------------------------------------------------

    def _end(self, running: _Running) -> None:
        if running.thread is not None:
            running.thread.join()
        del self._running[running.suggestion.number]
        outcome, attempt = running.outcome, running.suggestion.attempt
        if isinstance(outcome, TrialResult):
            self._remember(outcome, attempt)
            self._stop_if_hopeless(outcome)
            return
        if outcome is None:
            raise RuntimeError(f"the thread of trial {running.suggestion.number} has ended without a result")
        has_worked = any(record.state is not TrialState.FAILED for record in self.records)
        self._remember(replace(running.failure(outcome), is_broken_off=True), attempt + 1)
        if not (isinstance(outcome, RuntimeUnavailableError) and has_worked and attempt < self.limits.retries):
            raise outcome
        with interruptions_allowed():
            time.sleep(RETRY_SECONDS * (attempt + 1))

    def _remember(self, result: TrialResult, attempt: int) -> None:
        """Tells the study, and makes the files agree with it."""
        fails_by_chance = result.state is TrialState.FAILED and result.is_machines_fault
        could_not_run = result.is_broken_off or every_trial_would_fail(result, self.options)
        if could_not_run and result.state is TrialState.FAILED:
            result = replace(result, is_tried_again=True)
            self.study.try_again(result, attempt)
        elif fails_by_chance and attempt < self.limits.retries:
            result = replace(result, is_tried_again=True)
            self.study.try_again(result, attempt + 1)
        else:
            self.study.finish(result, self._files.digest_if_kept(result))
            failed = result.state is TrialState.FAILED
            self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
        self._files.settle()
        self.observer.trial_finished(result, best_record(self.records))

    def _stop_if_hopeless(self, result: TrialResult) -> None:
        if every_trial_would_fail(result, self.options):
            raise shared_failure(result, self.options, self.workspace)
        if self._failures_in_a_row >= self.limits.max_consecutive_failures:
            raise self._all_failed()
        self._heed_target(best_record(self.records))

    def _heed_target(self, best: TrialRecord | None) -> None:
        target = self.limits.target_accuracy
        if target is None or best is None or best.max_acc is None or self.ended_early is not None:
            return
        if best.max_acc >= target:
            self.ended_early = f"trial {best.number} reached {best.max_acc:.3f} (--target-accuracy)"
            self._end_all(Verdict(TrialState.FAILED, "stopped at --target-accuracy", is_broken_off=True))

    def _end_all(self, verdict: Verdict) -> None:
        """Ends all running trials at the same time: each may take seconds to obey."""
        threads = [threading.Thread(target=running.control.end, args=(verdict,)) for running in self._running.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _break_off(self, reason: str) -> None:
        """Ends all running trials; those that have ended by themselves meanwhile count."""
        self._end_all(Verdict(TrialState.FAILED, reason, is_broken_off=True))
        for running in _by_number(self._running.values()):
            if running.thread is not None:
                running.thread.join()
            del self._running[running.suggestion.number]
            outcome = running.outcome
            if not isinstance(outcome, TrialResult) or outcome.is_machines_fault:  # as by a signal to all processes
                outcome = replace(running.failure(RuntimeError(reason)), is_broken_off=True)
            self._remember(outcome, running.suggestion.attempt)

    def _all_failed(self) -> AllTrialsFailedError:
        records = [record for record in self.records if record.state is TrialState.FAILED]
        which = f"all {len(records)}" if len(records) == len(self.records) else f"the last {self._failures_in_a_row}"
        return AllTrialsFailedError(
            f"{which} trials failed, the last one with: {records[-1].reason}; "
            f"their logs are in {shown(self.workspace.trials)}"
        )


def _why(error: BaseException) -> str:
    """Why running trials are broken off: not for what ended the search where that was a person, or a reader gone."""
    return str(error) if isinstance(error, Exception) and not isinstance(error, BrokenPipeError) else "interrupted"


def _by_number(running: Iterable[_Running]) -> list[_Running]:
    return sorted(running, key=lambda trial: trial.suggestion.number)
