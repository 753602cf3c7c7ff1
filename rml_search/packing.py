"""How many trials at a time a device is given with ``--jobs auto``: as many as train the most batches a second.

Measured with the engine itself, on the search's own data and network, checkpoints and evaluations of the epochs that
pass meanwhile included. The numbers of trials tried are 1, 2, 4 and so on, until one gains too little, does not fit
into memory, or has more trials than cores. The way for GPUs, whose trials share the cores too, was not tried on any.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from rml_search.devices import Slot, free_memory, num_cpus, plan_slots
from rml_search.errors import SearchError
from rml_search.hyperparameters import Hyperparameters
from rml_search.network_file import network_texts
from rml_search.options import JobChoice, SearchOptions
from rml_search.paths import TrialPaths, Workspace
from rml_search.results import TrialState, drop_checkpoints
from rml_search.runtime.base import EngineRun, Runtime
from rml_search.runtime.warm import kept_warm
from rml_search.space_check import plain_point
from rml_search.study import Suggestion
from rml_search.trial import TrialRunner
from rml_search.trial_control import TrialControl, Verdict
from rml_search.whole_files import write_atomically
from rmldnn_contract.training_log import TrainBatch, parse_line

#: More trials at a time must be faster by this factor: they also wait longer for what others have found.
_LEAST_GAIN = 1.05
#: Of the memory that is free at first.
_MOST_MEMORY = 0.9
_MAX_JOBS_ON_A_GPU = 8
#: Training for the measurement alone never comes to its end.
_FOREVER = 1_000_000


@dataclass(frozen=True)
class Patience:
    """How long one number of trials is measured.

    Attributes:
        window_seconds: at the least, once all of them train.
        num_batches: at the least, of each of them.
        limit_seconds: until all train, and again until there are so many batches.
    """

    window_seconds: float = 5.0
    num_batches: int = 5
    limit_seconds: float = 120.0


@dataclass(frozen=True)
class Rate:
    """What so many trials at a time have done on a device: training batches a second, all of them together."""

    num_jobs: int
    batches_per_second: float


def describe_rates(num_jobs: int, rates: Sequence[Rate]) -> str:
    """The line that tells of the decision."""
    if not rates:
        return f"Trials at a time: {num_jobs}, because no trial trained during the measurement"
    told = ", ".join(f"{rate.num_jobs} trained {rate.batches_per_second:.3g}" for rate in rates)
    return f"Trials at a time: {num_jobs}, as measured on one device, in batches per second: {told}"


def choose(rates: Sequence[Rate]) -> int:
    """The smallest number that no larger one beats by enough; 1 where nothing was measured."""
    best = Rate(1, 0.0)
    for rate in sorted(rates, key=lambda rate: rate.num_jobs):
        if best.batches_per_second == 0 or rate.batches_per_second >= _LEAST_GAIN * best.batches_per_second:
            best = rate
    return best.num_jobs


@dataclass(frozen=True)
class Packing:
    """What is measured, and where."""

    options: SearchOptions
    workspace: Workspace
    runtime: Runtime
    jobs: JobChoice
    num_gpus: int
    patience: Patience = field(default_factory=Patience)

    @property
    def place(self) -> str:
        """What a decision holds for: another machine decides for itself."""
        processes = f", {self.options.num_procs} processes" if self.options.num_procs > 1 else ""
        return f"{num_cpus()} cores, {self.num_gpus} GPUs, {','.join(self.jobs.devices) or 'all'}{processes}"

    @property
    def _devices(self) -> tuple[str, ...]:
        """The GPUs that trials are dealt out over, each by its number, also where it is the only one.

        None where there are none, and where a trial of several processes takes them all itself.
        """
        if self.options.num_procs > 1:
            return ()
        return self.jobs.devices or tuple(map(str, range(self.num_gpus)))

    def slots(self, num_jobs: int) -> tuple[Slot, ...]:
        """Those of a search with so many trials at a time on each device."""
        total = num_jobs * max(1, len(self._devices))
        return plan_slots(total, self._devices, num_gpus=self.num_gpus, num_procs=self.options.num_procs)

    def measure(self) -> list[Rate]:
        """Tries one number of trials after the other; those that failed are left out."""
        if self.num_gpus and self.options.num_procs > 1:
            return []
        rates: list[Rate] = []
        largest = _MAX_JOBS_ON_A_GPU if self.num_gpus else num_cpus()
        num_jobs = 1
        with self._scratch() as runner, kept_warm(self.runtime) as runtime:
            while num_jobs <= largest:
                slots = [slot for slot in self.slots(num_jobs) if slot.device == self.slots(1)[0].device][:num_jobs]
                before = free_memory(slots[0].device)
                rate, after = self._measure(runtime, runner, slots)
                if rate is None:
                    return rates
                rates.append(rate)
                gains = choose(rates) == num_jobs
                if not gains or 2 * (before - after) > _MOST_MEMORY * before:
                    return rates
                num_jobs *= 2
        return rates

    @contextmanager
    def _scratch(self) -> Iterator[TrialRunner]:
        """A folder for these trials in the working directory, where containers see it."""
        folder = self.workspace.part(".jobs_auto")
        shutil.rmtree(folder.trials.parent, ignore_errors=True)
        folder.trials.mkdir(parents=True)
        try:
            for index, text in enumerate(network_texts(self.options)):
                write_atomically(folder.trial_layers(index), text, durably=False)
            yield TrialRunner(replace(self.options, num_epochs=_FOREVER), folder, self.runtime)
        finally:
            shutil.rmtree(folder.trials.parent, ignore_errors=True)

    def _measure(self, runtime: Runtime, runner: TrialRunner, slots: Sequence[Slot]) -> tuple[Rate | None, int]:
        """The rate with one trial in each slot, None if one fails; and the memory that was free then."""
        hyperparameters = Hyperparameters.from_point(plain_point(self.options.space, {}))
        trials = []
        for number, slot in enumerate(slots):
            paths = runner.workspace.trial(number)
            run = runner.prepare(Suggestion(number, hyperparameters), paths, slot)
            trials.append(_Trial(runtime, run, paths))
        try:
            for trial in trials:
                trial.thread.start()
            batches = _batches_per_second(trials, self.patience)
            memory = free_memory(slots[0].device)
        finally:
            for trial in trials:
                trial.end()
        return None if batches is None else Rate(len(slots), batches), memory


def _batches_per_second(trials: Sequence[_Trial], patience: Patience) -> float | None:
    def wait_until(condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + patience.limit_seconds
        while not condition():
            if time.monotonic() > deadline or any(trial.has_ended for trial in trials):
                return False
            time.sleep(0.05)
        return True

    if not wait_until(lambda: all(trial.told.num_batches for trial in trials)):
        return None
    end, first = time.monotonic() + patience.window_seconds, [trial.told for trial in trials]

    def is_enough() -> bool:
        done = (trial.told.num_batches - before.num_batches for trial, before in zip(trials, first, strict=True))
        return time.monotonic() >= end and all(number >= patience.num_batches for number in done)

    is_whole = wait_until(is_enough)
    last = [trial.told for trial in trials]
    if not is_whole and any(trial.has_ended for trial in trials):
        return None
    return sum(after.batches_per_second_since(before) for before, after in zip(first, last, strict=True))


@dataclass(frozen=True)
class _Told:
    """What a training has told last: how many batches are done, and when it said so."""

    num_batches: int = 0
    when: float = 0.0

    def batches_per_second_since(self, earlier: _Told) -> float:
        """From one line to the other, whatever lies between: engines that are fast tell of some batches only."""
        seconds = self.when - earlier.when
        return (self.num_batches - earlier.num_batches) / seconds if seconds > 0 else 0.0


class _Trial:
    """A training whose batches are counted in a thread of its own."""

    def __init__(self, runtime: Runtime, run: EngineRun, paths: TrialPaths) -> None:
        self.told = _Told()
        self.has_ended = False
        self._runtime = runtime
        self._run = run
        self._paths = paths
        self._control = TrialControl()
        self.thread = threading.Thread(target=self._train, name="trial to be measured", daemon=True)

    def end(self) -> None:
        """Ends it; returns when it has ended."""
        self._control.end(Verdict(TrialState.FAILED, "it was measured", is_broken_off=True))
        if self.thread.ident is not None:
            self.thread.join()

    def _note(self, batch: TrainBatch) -> None:
        self.told = _Told((batch.epoch - 1) * batch.num_batches + batch.batch, time.monotonic())
        # That of the last epoch may still be on its way to the disk.
        drop_checkpoints(self._paths, before=batch.epoch - 1)

    def _train(self) -> None:
        try:
            with self._runtime.start(self._run) as engine:
                self._control.attach(engine)
                for line in engine.lines():
                    said = parse_line(line)
                    if isinstance(said, TrainBatch):
                        self._note(said)
                engine.wait()
        except SearchError:
            pass  # the search itself will tell of it
        finally:
            self.has_ended = True
