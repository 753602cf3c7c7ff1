"""A whole search: the study, what is kept, and what ends it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from contextlib import closing
from datetime import datetime

import optuna
import pytest

from rml_optuna import STUDY_NAME, open_study
from rml_search.errors import AllTrialsFailedError, EngineFailedError, NoResultsError, WorkspaceInUseError, WriteError
from rml_search.interruption import Interrupted, interruptible
from rml_search.limits import Limits
from rml_search.lock import only_search_in
from rml_search.options import StudyChoice
from rml_search.paths import Workspace
from rml_search.results import (
    best_record,
    earlier_results_aside,
    finish_move_back,
    move_aside,
    move_back,
    read_list_acc,
)
from rml_search.search import Search
from rml_study.storage import storage_url


class Recorder:
    """An observer that keeps what it was told."""

    def __init__(self):
        self.events = []

    def trial_started(self, number, place, hyperparameters):
        self.events.append(("start", number))

    def trials_advanced(self, shares):
        pass

    def epoch_finished(self, number, epoch):
        self.events.append(("epoch", number, epoch.epoch, epoch.accuracy))

    def trial_finished(self, result, best):
        self.events.append(("end", result.number, result.state.value, None if best is None else best.number))

    def note(self, text):
        self.events.append(("note", text))


def search(workspace, options, runtime, *, study=None, **settings):
    told = []
    opened = open_study(workspace, options, study or StudyChoice(), told.append)
    running = Search(options, workspace, runtime, opened, Recorder(), **settings)
    running.observer.events += [("note", text) for text in told]
    return running


def finished_search(workspace, options, runtime):
    running = search(workspace, options, runtime)
    running.run()
    running.study.close()


def test_best_epoch_of_the_best_trial_is_kept(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5, 0.8]), script([0.6, 0.9, 0.7]), script([0.85]))
    running = search(workspace, make_options(num_trials=3), runtime)
    running.run()
    assert best_record(running.records).number == 1
    assert workspace.best_checkpoint.read_text().endswith("0001/checkpoints: epoch 2")
    config = json.loads(workspace.best_config.read_text())["neural_network"]
    assert config["checkpoints"] == {"load": "./best_model/best_model_file.pt"}
    assert config["layers"] == "./best_model/layers.json"
    assert config["data"]["test_output_path"] == "./predictions/"
    assert config["loss"]["function"] == runtime.documents[1]["loss"]["function"]
    assert workspace.best_layers.read_text() == (workspace.root / "layers.json").read_text()
    assert list(workspace.trials.glob("*/checkpoints/*")) == []


def test_list_acc_has_the_tutorials_keys_first(workspace, make_options, scripted, script):
    running = search(workspace, make_options(), scripted(script([0.5, 0.8]), script(code=1)))
    running.run()
    entries = json.loads(workspace.list_acc.read_text())
    assert list(entries[0]) == [
        "max_acc", "optimizer", "lr", "loss", "epoch_max_acc", "number", "state", "seconds", "reason",
        "checkpoint_sha256", "tried_again", "hyperparameters", "checkpoint",
    ]  # fmt: skip
    assert (entries[0]["max_acc"], entries[0]["epoch_max_acc"], entries[0]["state"]) == (0.8, 2, "complete")
    assert (entries[1]["max_acc"], entries[1]["state"]) == (None, "failed")
    assert "exit code 1" in entries[1]["reason"]
    assert [record.number for record in read_list_acc(workspace)] == [0, 1]


def test_study_can_be_opened_with_optuna(workspace, make_options, scripted, script):
    search(workspace, make_options(), scripted(script([0.5, 0.8]), script(code=1))).run()
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage_url(workspace))
    complete, failed = study.trials
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert complete.value == 0.8
    assert complete.intermediate_values == {1: 0.5, 2: 0.8}
    assert failed.state is optuna.trial.TrialState.FAIL
    assert failed.user_attrs["record"]["reason"]
    distribution = complete.distributions["learning_rate"]
    assert (distribution.low, distribution.high, distribution.log) == (0.001, 0.01, True)
    assert complete.distributions["optimizer"].choices == ("adam", "sgd")


def test_same_seed_same_trials(workspace, make_options, scripted, script, tmp_path):
    def documents(seed):
        runtime = scripted(*[script([0.1 * n]) for n in range(1, 7)])
        search(workspace, make_options(num_trials=6, seed=seed), runtime).run()
        move_aside(workspace, datetime(2026, 1, seed))
        return [(document["optimizer"], document["loss"]) for document in runtime.documents]

    assert documents(3) == documents(3)
    assert documents(3) != documents(4)


def test_a_failure_in_between_does_not_end_the_search(workspace, make_options, scripted, script):
    scripts = [script([0.5]), *[script(code=1)] * 2, script([0.4]), *[script(code=1)] * 2, script([0.6])]
    running = search(workspace, make_options(num_trials=7), scripted(*scripts))
    running.run()
    assert len(running.records) == 7
    assert best_record(running.records).number == 6


@pytest.mark.parametrize(("successes", "which"), [(0, "all 3"), (2, "the last 3")])
def test_failures_in_a_row_end_the_search(workspace, make_options, scripted, script, successes, which):
    runtime = scripted(*[script([0.5])] * successes, *[script(code=1, words=["no such command"])] * 5)
    running = search(workspace, make_options(num_trials=7), runtime)
    with pytest.raises(AllTrialsFailedError, match=f"{which} trials failed.*no such command"):
        running.run()
    assert len(runtime.runs) == successes + 3
    assert len(json.loads(workspace.list_acc.read_text())) == successes + 3


def test_a_search_without_any_success_ends_with_an_error(workspace, make_options, scripted, script):
    running = search(workspace, make_options(num_trials=2), scripted(*[script(code=1)] * 2))
    with pytest.raises(AllTrialsFailedError, match="all 2 trials failed"):
        running.run()


def test_engines_that_say_that_all_is_well_and_print_no_accuracy_fail(workspace, make_options, scripted, script):
    runtime = scripted(*[script(code=0, words=["hello"])] * 3)
    with pytest.raises(AllTrialsFailedError, match=r"all 3 trials failed.*no accuracy.*hello") as caught:
        search(workspace, make_options(num_trials=7), runtime).run()
    assert (caught.value.exit_code, len(runtime.runs)) == (3, 3)


def test_a_failure_that_every_trial_would_share_ends_the_search_at_once(workspace, make_options, scripted, script):
    runtime = scripted(script(code=66, words=["Error: no layer class Konv2D"]))
    with pytest.raises(EngineFailedError, match="no layer class Konv2D") as caught:
        search(workspace, make_options(), runtime).run()
    assert caught.value.exit_code == 66


def test_an_interruption_keeps_what_had_finished_and_closes_the_engine(workspace, make_options, scripted, script):
    runtime = scripted(script([0.7]), script([0.9], interrupts=True))
    running = search(workspace, make_options(num_trials=5), runtime)
    with pytest.raises(Interrupted), interruptible():
        running.run()
    assert runtime.engines[1].closed
    assert [(r.state.value, r.reason) for r in read_list_acc(workspace)] == [
        ("complete", "its log ends with epoch 1 of 9"),
        ("failed", "interrupted"),
    ]
    assert workspace.best_checkpoint.read_text().endswith("0000/checkpoints: epoch 1")


def test_an_engine_that_hears_of_the_end_before_the_search_has_not_failed(
    workspace, make_options, scripted, script, monkeypatch
):
    """A batch system sends SIGTERM to all processes of a job; no trial may be tried again here after a failure."""

    def hear_last(self):
        for running in self._running.values():
            running.thread.join()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Search, "_next_event", hear_last)
    runtime = scripted(script([0.7], code=143, note="the engine was stopped by SIGTERM", is_machines_fault=True))
    running = search(workspace, make_options(num_trials=1), runtime, limits=Limits(retries=0))
    with pytest.raises(Interrupted), interruptible():
        running.run()
    (record,) = read_list_acc(workspace)
    assert (record.state.value, record.reason, record.tried_again) == ("failed", "interrupted", True)


@pytest.mark.parametrize("method", ["ask", "tell"])
def test_a_signal_while_the_study_is_at_work_leaves_no_trial_running(
    workspace, make_options, scripted, script, monkeypatch, method
):
    original = getattr(optuna.Study, method)

    def interrupted(study, *arguments, **settings):
        answer = original(study, *arguments, **settings)
        os.kill(os.getpid(), signal.SIGTERM)
        return answer

    monkeypatch.setattr(optuna.Study, method, interrupted)
    running = search(workspace, make_options(num_trials=5), scripted(script([0.7], hangs=method == "ask")))
    with pytest.raises(Interrupted), interruptible():
        running.run()
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage_url(workspace))
    state, reason = {"ask": ("failed", "interrupted"), "tell": ("complete", "its log ends with epoch 1 of 9")}[method]
    assert not [trial for trial in study.trials if trial.state is optuna.trial.TrialState.RUNNING]
    assert study.trials[0].user_attrs["record"]["reason"] == reason
    assert [(record.state.value, record.reason) for record in read_list_acc(workspace)] == [(state, reason)]


def test_observer_is_told_in_order(workspace, make_options, scripted, script):
    running = search(workspace, make_options(), scripted(script([0.5]), script([0.4])))
    running.run()
    assert running.observer.events == [
        ("start", 0), ("epoch", 0, 1, 0.5), ("end", 0, "complete", 0),
        ("start", 1), ("epoch", 1, 1, 0.4), ("end", 1, "complete", 0),
    ]  # fmt: skip


def test_earlier_results_move_aside_whole(workspace, make_options, scripted, script):
    finished_search(workspace, make_options(), scripted(script([0.5]), script([0.4])))
    before = workspace.list_acc.read_text()
    when = datetime(2026, 11, 23, 8, 30)
    first = move_aside(workspace, when)
    assert move_aside(workspace, when) is None
    assert sorted(path.name for path in first.iterdir()) == ["best_model", "list_acc.json", "study.db", "trials"]
    assert (first / "list_acc.json").read_text() == before
    finished_search(workspace, make_options(), scripted(script([0.3]), script([0.2])))
    second = move_aside(workspace, when)
    assert first != second
    assert (first / "best_model" / "best_model_file.pt").exists()


def test_a_study_moves_with_what_its_journal_holds(workspace, tmp_path):
    killed = tmp_path / "killed.db"
    database = sqlite3.connect(killed)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE trials (number INTEGER)")
    database.execute("INSERT INTO trials VALUES (7)")
    database.commit()
    for ending in ("", "-wal", "-shm"):  # as a kill leaves them: all is in the journal
        shutil.copy(f"{killed}{ending}", f"{workspace.study_database}{ending}")
    database.close()
    aside = move_aside(workspace, datetime(2026, 1, 1))
    assert [path.name for path in aside.iterdir()] == ["study.db"]
    with closing(sqlite3.connect(aside / "study.db")) as moved:
        assert moved.execute("SELECT number FROM trials").fetchall() == [(7,)]
    move_back(workspace, aside)
    assert workspace.study_database.is_file()


def test_a_move_that_was_killed_is_undone(workspace, make_options, scripted, script, monkeypatch):
    finished_search(workspace, make_options(), scripted(script([0.5]), script([0.4])))
    before = {path.name for path in workspace.results() if path.exists()}
    rename = type(workspace.root).rename

    def die(path, target):
        if path.name == "trials":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(workspace.root), "rename", die)
        with pytest.raises(KeyboardInterrupt):
            move_aside(workspace, datetime(2026, 1, 1))
    assert not workspace.list_acc.exists()
    finish_move_back(workspace)
    assert {path.name for path in workspace.results() if path.exists()} == before
    assert list((workspace.root / "earlier").iterdir()) == []


@pytest.mark.parametrize("name", ["a?b", "a%20b", "{x}", "?mode=ro", "a#b", "a:b@c", "a b"])
def test_study_lies_in_its_folder_whatever_that_is_called(tmp_path, name):
    workspace = Workspace(tmp_path / name)
    workspace.root.mkdir()
    optuna.create_study(storage=storage_url(workspace))
    assert workspace.study_database.is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_earlier_results_come_back_if_nothing_has_worked(workspace, make_options, scripted, script):
    search(workspace, make_options(), scripted(script([0.5]), script([0.4]))).run()
    before = workspace.list_acc.read_text()
    told = []
    with pytest.raises(AllTrialsFailedError), earlier_results_aside(workspace, told.append):
        search(workspace, make_options(), scripted(*[script(code=1)] * 2)).run()
    assert workspace.list_acc.read_text() == before
    assert workspace.best_checkpoint.exists()
    assert "were restored; the files of this one are in" in told[-1]
    (failed,) = (workspace.root / "earlier").iterdir()
    assert "failed" in (failed / "list_acc.json").read_text()


def test_earlier_results_stay_aside_once_there_are_better_ones(workspace, make_options, scripted, script):
    search(workspace, make_options(), scripted(script([0.5]), script([0.4]))).run()
    with pytest.raises(Interrupted), interruptible(), earlier_results_aside(workspace, print):
        search(workspace, make_options(), scripted(script([0.7]), script(interrupts=True))).run()
    assert read_list_acc(workspace)[0].max_acc == 0.7


def test_moving_aside_is_all_or_nothing(workspace, make_options, scripted, script, monkeypatch):
    finished_search(workspace, make_options(), scripted(script([0.5]), script([0.4])))
    rename = type(workspace.root).rename

    def refuse_database(path, target):
        if path.name == "study.db":
            raise PermissionError(13, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(type(workspace.root), "rename", refuse_database)
    with pytest.raises(WriteError, match=r"cannot move .*study.db aside: Permission denied"):
        move_aside(workspace, datetime(2026, 1, 1))
    assert {path.name for path in workspace.results() if path.exists()} == {
        "best_model", "list_acc.json", "study.db", "trials",
    }  # fmt: skip
    assert list((workspace.root / "earlier").iterdir()) == []


def test_two_searches_in_one_folder_are_refused(workspace, tmp_path):
    with only_search_in(workspace):
        with pytest.raises(WorkspaceInUseError, match="a search is running in"), only_search_in(workspace):
            pass
        with only_search_in(Workspace(tmp_path)):
            pass
    with only_search_in(workspace):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "does not contain a list of trials"),
        ("[]", "does not contain a list of trials"),
        ("{", "cannot be read"),
        ("[3]", "trial 0"),
        ('[{"max_acc": "high", "optimizer": "adam", "lr": 1, "loss": "bce", "epoch_max_acc": 1}]', "trial 0: max_acc"),
        ('[{"max_acc": NaN, "optimizer": "adam", "lr": 1, "loss": "bce", "epoch_max_acc": 1}]', "trial 0: max_acc"),
        ('[{"max_acc": 0.5, "lr": 1, "loss": "bce", "epoch_max_acc": 1}]', "trial 0: optimizer"),
    ],
)
def test_a_list_that_is_none_is_one_line(workspace, text, message):
    workspace.list_acc.write_text(text)
    with pytest.raises(NoResultsError, match=message):
        read_list_acc(workspace)


def test_a_network_file_that_changes_meanwhile_makes_no_difference(workspace, make_options, scripted, script):
    before = (workspace.root / "layers.json").read_text()
    runtime = scripted(script([0.5]), script([0.9]))
    running = search(workspace, make_options(), runtime)
    running.observer.trial_started = lambda *_: (workspace.root / "layers.json").write_text("{}")
    running.run()
    assert [document["layers"] for document in runtime.documents] == ["./trials/layers.json"] * 2
    assert workspace.best_layers.read_text() == before
