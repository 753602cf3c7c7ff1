"""How many trials at a time are found to be the fastest, with engines that print batches at known rates."""

from __future__ import annotations

import fcntl
import threading
import time
from contextlib import contextmanager

import pytest

from rml_commands.run import run_search
from rml_optuna import open_study
from rml_search import packing
from rml_search.devices import Slot, free_memory
from rml_search.errors import OptionError
from rml_search.options import JobChoice, RuntimeChoice, SharedChoice, StudyChoice, parse_jobs
from rml_search.packing import Packing, Patience, Rate, choose, describe_rates
from rml_search.plan import SearchPlan
from rml_search.runtime.base import EngineExit
from rml_search.runtime.choice import ChosenRuntime

BATCH = "[2022-Mar-24 21:44:12.182169] Train Epoch [{:3}/  9] : Batch [{:5}/    4] (Loss = 0.7028; |g| = 0.5123)"
QUICK = Patience(window_seconds=0.6, num_batches=3, limit_seconds=5)


class RatedRuntime:
    """A runtime of engines that each train so many batches a second, by how many of them there are.

    They tell of no more than ``lines`` of them a second.
    """

    name, in_container = "rated", False

    def __init__(self, rates, lines=1000):
        self.rates = rates
        self.lines = lines
        self.engine = RatedEngine
        self.running = 0
        self.runs = []

    @contextmanager
    def start(self, run):
        self.running += 1
        self.runs.append(run)
        try:
            yield self.engine(self)
        finally:
            self.running -= 1


class RatedEngine:
    def __init__(self, runtime):
        self.runtime = runtime
        self.ended = threading.Event()

    def lines(self):
        yield "Loading ..."
        done, moment = 0.0, time.monotonic()
        while rate := self.runtime.rates.get(self.runtime.running, 20):
            if self.ended.wait(1 / min(rate, self.runtime.lines)):
                return
            before, moment = moment, time.monotonic()
            done += rate * (moment - before)
            yield BATCH.format(int(done) // 4 + 1, int(done) % 4 + 1)

    def stop(self):
        self.ended.set()

    def wait(self):
        return EngineExit(0)


@pytest.fixture
def measure(workspace, make_options, monkeypatch):
    def run(rates, *, cores=4, gpus=0, free=lambda device: 0, devices=(), lines=1000, **options):
        monkeypatch.setattr(packing, "num_cpus", lambda: cores)
        monkeypatch.setattr("rml_search.devices.num_cpus", lambda: cores)
        monkeypatch.setattr(packing, "free_memory", free)
        runtime = RatedRuntime(rates, lines)
        packed = Packing(make_options(**options), workspace, runtime, JobChoice(None, devices), gpus, QUICK)
        measured = packed.measure()
        assert not (workspace.root / ".jobs_auto").exists()
        return packed, runtime, measured

    return run


@pytest.mark.parametrize(
    ("rates", "number"),
    [
        ([], 1),
        ([Rate(1, 5)], 1),
        ([Rate(1, 5), Rate(2, 5.2)], 1),
        ([Rate(1, 5), Rate(2, 5.3)], 2),
        ([Rate(1, 5), Rate(2, 7), Rate(4, 6)], 2),
        ([Rate(1, 5), Rate(2, 7), Rate(4, 9)], 4),
    ],
)
def test_more_at_a_time_must_be_faster_by_a_twentieth(rates, number):
    assert choose(rates) == number


def test_the_fastest_number_is_found_and_no_larger_one_tried(workspace, measure):
    packed, runtime, rates = measure({1: 20, 2: 18, 4: 5, 8: 100}, cores=8)
    assert [rate.num_jobs for rate in rates] == [1, 2, 4]
    assert choose(rates) == 2
    assert rates[0].batches_per_second == pytest.approx(20, rel=0.3)
    assert rates[1].batches_per_second == pytest.approx(36, rel=0.3)
    assert [run.num_threads for run in runtime.runs] == [None, 4, 4, 2, 2, 2, 2]
    assert packed.slots(2) == (Slot(None, 4),) * 2
    assert runtime.running == 0


def test_there_are_no_more_trials_than_cores(measure):
    _, runtime, rates = measure({1: 20, 2: 20}, cores=2)
    assert choose(rates) == 2
    assert len(runtime.runs) == 3


def test_a_number_with_which_one_fails_is_not_taken(measure):
    _, _, rates = measure({1: 20, 2: 0})
    assert [rate.num_jobs for rate in rates] == [1]
    _, _, nothing = measure({1: 0})
    assert nothing == []
    assert describe_rates(1, nothing) == "Trials at a time: 1, since none trained when it was to be measured"


def test_memory_for_twice_as_many_must_be_there(measure):
    answers = iter([1000, 520, 1000, 40])
    _, _, rates = measure({1: 20, 2: 20, 4: 20}, free=lambda device: next(answers))
    assert [rate.num_jobs for rate in rates] == [1]  # twice 480 is more than nine tenths of 1000
    answers = iter([1000, 600, 1000, 200])
    _, _, rates = measure({1: 20, 2: 20, 4: 20}, free=lambda device: next(answers))
    assert [rate.num_jobs for rate in rates] == [1, 2]


def test_gpus_are_all_given_what_was_measured_on_the_first(measure):
    asked = []
    packed, runtime, rates = measure(
        {1: 20, 2: 18, 4: 5}, cores=16, gpus=4, devices=("1", "3"), free=lambda device: asked.append(device) or 1000
    )
    assert choose(rates) == 2
    assert {run.device for run in runtime.runs} == {"1"} == set(asked)
    assert packed.slots(2) == (Slot("1", 4), Slot("3", 4)) * 2


def test_fast_trainings_count_by_their_batches_not_by_their_lines(measure):
    """Each tells ten lines a second, however many there are: twice as many lines are no gain."""
    _, _, rates = measure({1: 80, 2: 40}, lines=10)
    assert [rate.batches_per_second for rate in rates] == pytest.approx([80, 80], rel=0.2)


def test_the_only_gpu_is_measured_too(measure, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    asked = []
    packed, runtime, rates = measure({1: 20, 2: 18, 4: 5}, gpus=1, free=lambda device: asked.append(device) or 1000)
    assert [rate.num_jobs for rate in rates] == [1, 2, 4]
    assert {run.device for run in runtime.runs} == {"0"} == set(asked)
    assert packed.slots(2) == (Slot("0", 2),) * 2


def test_trials_of_several_processes_take_all_gpus_one_at_a_time(measure):
    packed, runtime, rates = measure({1: 20}, gpus=2, num_procs=2)
    assert (rates, runtime.runs) == ([], [])
    assert packed.slots(choose(rates)) == (Slot(),)


def test_drivers_in_one_folder_measure_one_after_the_other(workspace, make_options, scripted, script, monkeypatch):
    runtime = scripted(script([0.5, 0.6, 0.7]))
    runtime.remove_leftovers = lambda is_gone: None
    monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: ChosenRuntime(runtime, "a test"))
    monkeypatch.setattr("rml_commands.run.check_networks", lambda options: options)
    monkeypatch.chdir(workspace.root)
    measured = []

    def measure(packed):
        lock = workspace.lock.with_name(f"{workspace.lock.name}.setup")
        with lock.open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        measured.append(packed)
        return [Rate(1, 5.0)]

    monkeypatch.setattr(Packing, "measure", measure)
    plan = SearchPlan(jobs=JobChoice(None), writes_report=False, shared=SharedChoice("study.journal"))
    run_search(make_options(num_trials=1), plan, workspace, RuntimeChoice(gpu=False), print)
    assert len(measured) == 1


def test_checkpoints_do_not_pile_up_while_trials_are_measured(workspace, make_options, monkeypatch):
    monkeypatch.setattr(packing, "num_cpus", lambda: 1)
    saved, there = set(), []

    class SavingEngine(RatedEngine):
        def lines(self):
            folder = workspace.part(".jobs_auto").trial(0).checkpoints
            for number, line in enumerate(super().lines()):
                saved.add(folder / f"model_checkpoint_{number // 4}.pt")
                (folder / f"model_checkpoint_{number // 4}.pt").touch()
                yield line
                there.append(len(list(folder.iterdir())))

    runtime = RatedRuntime({1: 40})
    runtime.engine = SavingEngine
    Packing(make_options(), workspace, runtime, JobChoice(None, ()), 0, QUICK).measure()
    assert len(saved) > 4
    assert max(there) <= 3


def test_the_decision_is_told_and_kept(workspace, make_options, scripted, script, monkeypatch):
    runtime = scripted(*[script([0.5, 0.6, 0.7])] * 3)
    chosen = ChosenRuntime(runtime, "a test")
    monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
    monkeypatch.setattr("rml_search.devices.num_cpus", lambda: 4)
    monkeypatch.setattr(packing, "num_cpus", lambda: 4)
    monkeypatch.setattr("rml_commands.run.check_networks", lambda options: options)
    monkeypatch.setattr(Packing, "measure", lambda self: [Rate(1, 5.0), Rate(2, 7.25)])
    plan = SearchPlan(jobs=JobChoice(None), writes_report=False)

    def search(num_trials):
        told = []
        run_search(make_options(num_trials=num_trials), plan, workspace, RuntimeChoice(gpu=False), told.append)
        return [line for line in told if line.startswith("Trials at a time")]

    expected = "Trials at a time: 2, as measured on one device in batches a second: 1 trained 5, 2 trained 7.25"
    assert search(2) == [expected]
    monkeypatch.setattr(Packing, "measure", lambda self: pytest.fail("measured again"))
    assert search(3) == ["Trials at a time: 2 on each device, as measured when the search began"]
    assert [run.num_threads for run in runtime.runs] == [2] * 3
    study = open_study(workspace, make_options(), StudyChoice(), print)
    assert study.measured_jobs("64 cores, 0 GPUs, all") is None
    study.close()


@pytest.mark.parametrize(("text", "number"), [("auto", None), (" Auto ", None), ("1", 1), ("16", 16)])
def test_what_jobs_may_be(text, number):
    assert parse_jobs(text) == number


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5"])
def test_what_jobs_may_not_be(text):
    with pytest.raises(OptionError, match=f"--jobs must be at least 1, or auto, not {text}"):
        parse_jobs(text)


@pytest.mark.parametrize(("answer", "number"), [("143000 MiB", 143000 * 2**20), ("[N/A]", 0)])
def test_memory_of_a_gpu_that_may_not_tell(tmp_path, monkeypatch, answer, number):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '0, 7 MiB'\necho '1, {answer}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert free_memory("1") == number
    assert free_memory("GPU-8f") == 0
