"""The storage that lets reports wait: samplers, pruners and other readers find what plain Optuna gives them."""

from __future__ import annotations

import math
import random

import optuna
import pytest
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from rml_optuna import STUDY_NAME, OptunaStudy, open_study
from rml_search.limits import Limits
from rml_search.options import PrunerName, StudyChoice
from rml_search.plain_output import PlainObserver
from rml_search.search import Search
from rml_study import buffered_storage
from rml_study.buffered_storage import WAIT_SECONDS, BufferedStorage
from rml_study.samplers import build_pruner
from rml_study.storage import open_storage, storage_url
from rmldnn_contract.training_log import EpochRecord

NUM_EPOCHS = 20


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def storage(workspace, clock):
    opened = BufferedStorage(open_storage(workspace), clock)
    yield opened
    opened.close()


@pytest.fixture
def study(storage):
    return optuna.create_study(
        storage=storage, study_name="s", direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1)
    )


def read_by_plain_optuna(workspace):
    return optuna.load_study(study_name="s", storage=storage_url(workspace)).trials


def curves(seed):
    """Accuracies of trials that rise to different heights with noise, as those of real trainings do."""
    draw = random.Random(seed)
    for _ in range(24):
        top, pace = draw.uniform(0.5, 0.9), draw.uniform(1, 8)
        yield [top * (1 - math.exp(-epoch / pace)) + draw.gauss(0, 0.02) for epoch in range(1, NUM_EPOCHS + 1)]


def decisions(study, seed):
    """What the pruner says of each epoch, where three trials run at a time and those pruned end."""
    told, running, waiting = [], [], list(curves(seed))
    while waiting or running:
        while waiting and len(running) < 3:
            running.append((study.ask(), waiting.pop(0)))
        for trial, curve in list(running):
            epoch = len([entry for entry in told if entry[0] == trial.number]) + 1
            trial.report(curve[epoch - 1], epoch)
            is_hopeless = trial.should_prune()
            told.append((trial.number, epoch, is_hopeless))
            if is_hopeless or epoch == NUM_EPOCHS:
                state = TrialState.PRUNED if is_hopeless else TrialState.COMPLETE
                study.tell(trial, None if is_hopeless else max(curve), state=state)
                running.remove((trial, curve))
    return told


@pytest.mark.parametrize("name", PrunerName)
def test_pruners_decide_as_with_plain_optuna(storage, name):
    def study_in(place):
        pruner = build_pruner(name, NUM_EPOCHS)
        return optuna.create_study(storage=place, study_name="s", direction="maximize", pruner=pruner)

    ours, plain = study_in(storage), study_in(optuna.storages.InMemoryStorage())
    told = decisions(ours, seed=4)
    assert told == decisions(plain, seed=4)
    assert any(is_hopeless for *_, is_hopeless in told) == (name is not PrunerName.NONE)
    for trial, other in zip(ours.trials, plain.trials, strict=True):
        assert (trial.state, trial.value, trial.intermediate_values) == (
            other.state, other.value, other.intermediate_values,
        )  # fmt: skip
        assert trial.system_attrs == other.system_attrs


def test_samplers_draw_as_with_plain_optuna(storage):
    def drawn(place):
        sampler = optuna.samplers.TPESampler(seed=3, n_startup_trials=4, constant_liar=True)
        study = optuna.create_study(storage=place, study_name="s", direction="maximize", sampler=sampler)
        study.enqueue_trial({"rate": 0.002})
        points = []
        for _ in range(8):
            trials = [study.ask() for _ in range(2)]
            for trial in trials:
                rate, loss = trial.suggest_float("rate", 0.001, 0.01, log=True), trial.suggest_categorical("loss", "ab")
                points.append((rate, loss))
            for trial in trials:
                study.tell(trial, trial.params["rate"] + (trial.params["loss"] == "a"))
        return points

    points = drawn(storage)
    assert points == drawn(optuna.storages.InMemoryStorage())
    assert points[0][0] == 0.002
    assert len(set(points)) == 16


def test_plain_optuna_reads_all_that_was_written(workspace, storage, study):
    study.enqueue_trial({"rate": 0.002}, user_attrs={"asked": True})
    for number in range(2):
        trial = study.ask()
        trial.suggest_float("rate", 0.001, 0.01, log=True)
        trial.suggest_categorical("loss", ["bce", "dice"])
        trial.set_user_attr("record", {"number": number, "of": "ümlauts'\""})
        trial.set_user_attr("record", {"number": number})
        trial.report(0.25, 1)
        trial.report(math.nan, 2)
        trial.report(0.5, 4)
        if number == 0:
            study.tell(trial, 0.5)
    storage.save()
    for trial, other in zip(study.trials, read_by_plain_optuna(workspace), strict=True):
        for name in ("number", "state", "values", "params", "distributions", "user_attrs", "system_attrs"):
            assert getattr(trial, name) == getattr(other, name), name
        assert trial.datetime_start == other.datetime_start
        assert repr(trial.intermediate_values) == repr(other.intermediate_values) == "{1: 0.25, 2: nan, 4: 0.5}"
    first, second = study.trials
    assert first.params["rate"] == 0.002
    assert first.user_attrs == {"asked": True, "record": {"number": 0}}
    assert (first.state, second.state) == (TrialState.COMPLETE, TrialState.RUNNING)


def test_reports_are_written_together_after_a_second(workspace, storage, study, clock):
    statements = []
    sqlalchemy.event.listen(
        storage.backend.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    trial = study.ask()
    for epoch in range(1, 51):
        trial.report(epoch / 100, epoch)
        clock.now += WAIT_SECONDS / 100
        storage.save_what_is_due()
    assert read_by_plain_optuna(workspace)[0].intermediate_values == {}
    clock.now += WAIT_SECONDS / 2
    storage.save_what_is_due()
    assert read_by_plain_optuna(workspace)[0].intermediate_values == {e: e / 100 for e in range(1, 51)}
    assert len([sql for sql in statements if sql.startswith("INSERT INTO trial_intermediate_values")]) == 1
    clock.now += WAIT_SECONDS  # slow epochs are written as they come
    trial.report(0.7, 51)
    assert len(read_by_plain_optuna(workspace)[0].intermediate_values) == 51
    trial.report(0.8, 52)
    study.tell(trial, 0.8)
    (told,) = read_by_plain_optuna(workspace)
    assert (told.state, told.value, told.last_step) == (TrialState.COMPLETE, 0.8, 52)


def test_what_another_process_writes_is_seen_after_a_second(workspace, storage, study, clock):
    assert study.trials == []
    other = optuna.load_study(study_name="s", storage=storage_url(workspace))
    other.add_trial(optuna.create_trial(value=0.9))
    assert study.trials == []
    clock.now += WAIT_SECONDS
    assert [trial.value for trial in study.trials] == [0.9]
    trial = study.ask()
    assert trial.number == 1
    # It takes what waits in line from us, and ends our trial.
    study.enqueue_trial({"rate": 0.002})
    assert other.ask().number == 2
    assert study.ask().number == 3
    other.tell(trial.number, state=TrialState.FAIL)
    trial.report(0.5, 1)
    clock.now += WAIT_SECONDS
    storage.save_what_is_due()
    with pytest.raises(UpdateFinishedTrialError):
        trial.report(0.6, 2)
    with pytest.raises(UpdateFinishedTrialError):
        study.tell(trial, 0.6)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "RUNNING", "RUNNING"]
    assert read_by_plain_optuna(workspace)[1].intermediate_values == {}


def test_a_distribution_that_does_not_fit_is_refused(study):
    study.ask().suggest_float("rate", 0.001, 0.01)
    with pytest.raises(ValueError, match="distribution"):
        study.ask().suggest_categorical("rate", ["a"])


def test_epochs_are_in_the_database_while_the_next_one_takes_its_time(
    workspace, make_options, scripted, script, monkeypatch
):
    monkeypatch.setattr(buffered_storage, "WAIT_SECONDS", 0.5)
    seen = []
    finish = OptunaStudy.finish

    def look_first(study, *arguments):
        plain = optuna.load_study(study_name=STUDY_NAME, storage=storage_url(workspace))
        seen.append(plain.trials[0].intermediate_values)
        finish(study, *arguments)

    monkeypatch.setattr(OptunaStudy, "finish", look_first)
    study = open_study(workspace, make_options(), StudyChoice(), print)
    runtime = scripted(script([0.5, 0.6], hangs=True))
    limits = Limits(trial_seconds=2.0)
    Search(make_options(num_trials=1), workspace, runtime, study, PlainObserver(make_options(), print), limits).run()
    assert seen == [{1: 0.5, 2: 0.6}]


def test_a_trial_that_is_killed_while_its_reports_wait_runs_again(workspace, make_options, scripted, script):
    killed = open_study(workspace, make_options(), StudyChoice(), print)
    suggestion = killed.ask()
    killed.report(suggestion.number, EpochRecord(1, 3, accuracy=0.5))
    again = open_study(workspace, make_options(), StudyChoice(), print).ask()
    assert again.number == suggestion.number + 1
    assert again.hyperparameters == suggestion.hyperparameters
