"""What ends trials and searches early, and what is tried again."""

from __future__ import annotations

import pytest

from rml_optuna import open_study
from rml_search import search as search_module
from rml_search.devices import Slot, plan_slots
from rml_search.errors import AllTrialsFailedError, OptionError, RuntimeUnavailableError
from rml_search.limits import Limits
from rml_search.options import PrunerName, SamplerName, StudyChoice
from rml_search.results import read_list_acc
from rml_search.search import Search

from .test_resume import Noting, check_agreement


def run(workspace, options, runtime, choice=None, **settings):
    observer = Noting()
    study = open_study(workspace, options, choice or StudyChoice(), observer.note)
    running = Search(options, workspace, runtime, study, observer, **settings)
    try:
        running.run()
        running.all_records = running.records
    finally:
        study.close()
    return running


def states(workspace):
    return [(record.state.value, record.tried_again) for record in read_list_acc(workspace)]


def test_a_hopeless_trial_is_pruned_and_its_engine_stopped(workspace, make_options, scripted, script):
    good = [script([0.5, 0.6, 0.7, 0.8]) for _ in range(5)]
    bad = script([0.6, 0.3, 0.2, 0.1, 0.1, 0.1], hangs=True)
    runtime = scripted(*good, bad)
    run(workspace, make_options(num_trials=6, num_epochs=9), runtime, StudyChoice(pruner=PrunerName.MEDIAN))
    last = read_list_acc(workspace)[-1]
    assert (last.state.value, last.max_acc, last.epoch_max_acc) == ("pruned", 0.6, 1)
    assert last.reason.startswith("pruned after epoch ")
    assert runtime.engines[-1].stopped
    assert not any(engine.stopped for engine in runtime.engines[:-1])


@pytest.mark.parametrize("keep_top", [1, 9])
def test_pruning_before_a_checkpoint_is_no_failure(workspace, make_options, scripted, script, keep_top):
    """Engines tell of an epoch before they save it; three such trials in a row must not end the search."""
    good = [script([0.5, 0.6, 0.7, 0.8]) for _ in range(5)]
    bad = [script([0.1, 0.2, 0.3, 0.3, 0.3, 0.3], hangs=True, num_checkpoints=0) for _ in range(3)]
    options = make_options(num_trials=9, num_epochs=9)
    choice = StudyChoice(pruner=PrunerName.MEDIAN)
    run(workspace, options, scripted(*good, *bad, script([0.9])), choice, keep_top=keep_top)
    assert [state for state, _ in states(workspace)] == ["complete"] * 5 + ["pruned"] * 3 + ["complete"]
    assert workspace.best_checkpoint.read_text().endswith("0008/checkpoints: epoch 1")


def test_a_pruned_trial_may_be_the_best_one(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5]), script([0.9, 0.2, 0.1, 0.1, 0.1, 0.1], hangs=True))
    choice = StudyChoice(pruner=PrunerName.PATIENT)
    run(workspace, make_options(num_trials=2, num_epochs=9), runtime, choice)
    last = read_list_acc(workspace)[-1]
    assert (last.state.value, last.max_acc, last.epoch_max_acc) == ("pruned", 0.9, 1)
    assert workspace.best_checkpoint.read_text().endswith("0001/checkpoints: epoch 1")


def test_a_trial_ends_at_its_timeout_with_what_it_has(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5, 0.7], hangs=True), script([0.6]))
    run(workspace, make_options(num_trials=2), runtime, limits=Limits(trial_seconds=0.3))
    first, second = read_list_acc(workspace)
    assert (first.state.value, first.max_acc, first.reason) == ("pruned", 0.7, "stopped after 0.3 s (--trial-timeout)")
    assert second.state.value == "complete"
    assert workspace.best_checkpoint.read_text().endswith("0000/checkpoints: epoch 2")


def test_a_timeout_before_the_first_epoch_is_a_failure(workspace, make_options, scripted, script):
    runtime = scripted(script(hangs=True), script([0.6]))
    run(workspace, make_options(num_trials=2), runtime, limits=Limits(trial_seconds=0.3))
    first, _ = read_list_acc(workspace)
    assert first.state.value == "failed"
    assert first.reason == "stopped after 0.3 s (--trial-timeout), before its first checkpoint"


def test_an_engine_that_hangs_is_stopped_and_its_trial_tried_again(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5], hangs=True), script([0.6]))
    run(workspace, make_options(num_trials=1), runtime, limits=Limits(stall_seconds=0.3))
    assert states(workspace) == [("failed", True), ("complete", False)]
    assert "printed nothing for 0.3 s (--stall-timeout)" in read_list_acc(workspace)[0].reason
    assert runtime.documents[0]["optimizer"] == runtime.documents[1]["optimizer"]
    check_agreement(workspace, 1)


def test_failures_of_the_machine_are_tried_again_so_often_and_no_oftener(workspace, make_options, scripted, script):
    killed = script([0.5], code=137, note="the container was killed", is_machines_fault=True)
    runtime = scripted(killed, killed, killed, script([0.4]))
    run(workspace, make_options(num_trials=2), runtime, limits=Limits(retries=2))
    assert states(workspace) == [("failed", True), ("failed", True), ("failed", False), ("complete", False)]


def test_an_engine_that_cannot_be_started_is_waited_for(workspace, make_options, scripted, script, monkeypatch):
    monkeypatch.setattr(search_module, "RETRY_SECONDS", 0.01)
    runtime = scripted(script([0.5]), script([0.6]))
    start = runtime.start
    gone = []

    def sometimes(engine_run):
        if len(runtime.runs) == 1 and not gone:
            gone.append(True)
            raise RuntimeUnavailableError("no Docker engine responds")
        return start(engine_run)

    runtime.start = sometimes
    run(workspace, make_options(num_trials=2), runtime)
    assert states(workspace) == [("complete", False), ("failed", True), ("complete", False)]


def test_an_engine_that_never_starts_ends_the_search_and_it_can_go_on(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5]))
    start = runtime.start

    def never(engine_run):
        raise RuntimeUnavailableError("no Docker engine responds")

    runtime.start = never
    with pytest.raises(RuntimeUnavailableError):
        run(workspace, make_options(num_trials=1), runtime)
    assert states(workspace) == [("failed", True)]
    runtime.start = start
    run(workspace, make_options(num_trials=1), runtime)
    check_agreement(workspace, 1)


def test_the_search_ends_at_its_timeout_and_goes_on_later(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5]), script([0.7], hangs=True))
    running = run(workspace, make_options(num_trials=3), runtime, limits=Limits(search_seconds=0.5))
    assert running.ended_early == "time limit of 0.5 s reached (--timeout)"
    assert states(workspace) == [("complete", False), ("failed", True)]
    run(workspace, make_options(num_trials=3), scripted(script([0.6]), script([0.4])))
    check_agreement(workspace, 3)


def test_the_search_ends_when_the_target_is_reached(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5]), script([0.7]), script([0.9]))
    running = run(workspace, make_options(num_trials=5), runtime, limits=Limits(target_accuracy=0.7))
    assert running.ended_early == "trial 1 reached 0.700 (--target-accuracy)"
    assert len(runtime.runs) == 2


def test_trials_run_beside_each_other(workspace, make_options, scripted, script):
    scripts = [script([0.1 * number, 0.2 * number], seconds=0.4) for number in range(1, 5)]
    runtime = scripted(*scripts)
    running = run(workspace, make_options(num_trials=4), runtime, slots=(Slot("0", 1), Slot("1", 1)))
    assert runtime.most_at_a_time == 2
    assert len(running.all_records) == 4
    assert {(engine_run.device, engine_run.num_threads) for engine_run in runtime.runs} == {("0", 1), ("1", 1)}
    check_agreement(workspace, 4)


def test_failures_beside_each_other_end_all(workspace, make_options, scripted, script):
    runtime = scripted(script(code=1), script([0.5], hangs=True))
    with pytest.raises(AllTrialsFailedError):
        run(
            workspace,
            make_options(num_trials=4),
            runtime,
            slots=(Slot(), Slot()),
            limits=Limits(max_consecutive_failures=1),
        )
    assert states(workspace) == [("failed", False), ("failed", True)]


def test_a_space_of_points_ends_the_search_when_each_was_tried(workspace, make_options, scripted, script):
    options = make_options(num_trials=9, lr_range=(0.001, 0.001))
    runtime = scripted(*[script([0.5])] * 9)
    running = run(workspace, options, runtime)
    assert running.ended_early == "every point of the search space has been tried"
    assert len({(d["optimizer"]["type"], d["loss"]["function"]) for d in runtime.documents}) == 4 == len(runtime.runs)
    again = run(workspace, options, scripted(*[script([0.6])] * 9), StudyChoice(allows_duplicates=True))
    assert len(again.all_records) == 9


@pytest.mark.parametrize(
    "choice",
    [
        *(StudyChoice(sampler=sampler) for sampler in SamplerName),
        *(StudyChoice(pruner=pruner) for pruner in PrunerName),
    ],
    ids=lambda choice: f"{choice.sampler.value}-{choice.pruner.value}",
)
def test_every_sampler_and_pruner_runs_a_search(workspace, make_options, scripted, script, choice):
    run(workspace, make_options(num_trials=7), scripted(*[script([0.5, 0.6, 0.7])] * 7), choice)
    assert states(workspace) == [("complete", False)] * 7


def test_what_a_person_puts_in_line_comes_first(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5]), script([0.6]), script([0.7]))
    enqueued = ('{"optimizer": "sgd", "learning_rate": 0.004, "loss": "dice"}', '{"loss": "dice"}')
    run(workspace, make_options(num_trials=3), runtime, StudyChoice(enqueued=enqueued))
    first, second, _ = read_list_acc(workspace)
    assert (first.optimizer, first.lr, first.loss) == ("sgd", 0.004, "dice")
    assert second.loss == "dice"


def test_another_study_is_learnt_from_and_not_counted(workspace, make_options, scripted, script, tmp_path):
    run(workspace, make_options(num_trials=3), scripted(*[script([0.5])] * 3))
    other = tmp_path / "other.db"
    workspace.study_database.rename(other)
    for path in workspace.results():
        if path.exists():
            path.rename(tmp_path / path.name)
    running = run(workspace, make_options(num_trials=2), scripted(*[script([0.6])] * 2), StudyChoice(warm_start=other))
    assert running.observer.notes == [f"The sampler learns from 3 trials in {other}"]
    assert len(running.all_records) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"search_seconds": 0}, "--timeout must be a positive number of seconds, not 0"),
        ({"trial_seconds": float("nan")}, "--trial-timeout must be a positive number"),
        ({"stall_seconds": -1}, "--stall-timeout must be"),
        ({"target_accuracy": 1.5}, "--target-accuracy must be above 0 and at most 1, not 1.5"),
        ({"max_consecutive_failures": 0}, "--max-consecutive-failures must be at least 1"),
        ({"retries": -1}, "--retries must be at least 0"),
    ],
)
def test_limits_that_cannot_be(settings, message):
    with pytest.raises(OptionError, match=message):
        Limits(**settings)


def test_slots(monkeypatch):
    monkeypatch.setattr("rml_search.devices.num_cpus", lambda: 8)
    assert plan_slots(1, (), num_gpus=0) == (Slot(),)
    assert plan_slots(1, (), num_gpus=4) == (Slot(),)
    assert plan_slots(2, (), num_gpus=0) == (Slot(None, 4),) * 2
    assert plan_slots(16, (), num_gpus=0)[0] == Slot(None, 1)
    assert plan_slots(4, (), num_gpus=2) == (Slot("0", 2), Slot("1", 2), Slot("0", 2), Slot("1", 2))
    assert plan_slots(2, ("1", "3"), num_gpus=4) == (Slot("1", 4), Slot("3", 4))
    assert plan_slots(1, ("3",), num_gpus=4) == (Slot("3", None),)
    for arguments, message in [
        ((0, (), 0, 1), "--jobs must be at least 1"),
        ((1, ("0",), 0, 1), "--devices names GPUs, but this search runs on the CPU"),
        ((1, ("4",), 4, 1), "there is no GPU 4, only 0, 1, 2, 3"),
        ((2, (), 4, 2), "--num-procs above 1 uses the GPUs itself"),
    ]:
        jobs, devices, gpus, procs = arguments
        with pytest.raises(OptionError, match=message):
            plan_slots(jobs, devices, num_gpus=gpus, num_procs=procs)
