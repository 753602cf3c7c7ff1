"""Turns that take long or are lost, ends that do not wait for ever, and what must not be left or told."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from rml_search.driver import is_gone, this_driver
from rml_search.errors import OptionError, StudyError
from rml_search.interruption import interruptible
from rml_search.limits import Limits
from rml_search.options import SamplerName, StudyChoice
from rml_search.results import TrialState
from rml_search.run_record import describe_run
from rml_search.search import Search
from rml_shared.storage import _TCP

from .test_drivers import make_folder, output, start
from .test_shared_study import result

TURN_SECONDS = 3


@pytest.fixture(
    params=[
        "journal",
        pytest.param("postgres", marks=pytest.mark.database),
        pytest.param("mariadb", marks=pytest.mark.database),
    ]
)
def two_drivers(request, join, monkeypatch):
    """Two drivers of a study, each of which has its turn for seconds only."""
    monkeypatch.setattr("rml_shared.turns.TURN_SECONDS", TURN_SECONDS)
    kind = request.param
    where = {} if kind == "journal" else {"storage": request.getfixturevalue(kind).url, "study_name": "turns"}
    first, second = (join(num_trials=99, **where) for _ in range(2))
    second._patience.seconds = 20.0
    return first, second


@pytest.mark.slow
def test_a_turn_is_kept_however_long_it_takes(two_drivers):
    first, second = two_drivers
    began, over = threading.Event(), threading.Event()

    def hold():
        with first.storage.turn():
            began.set()
            time.sleep(2.5 * TURN_SECONDS)
            over.set()

    holder = threading.Thread(target=hold)
    holder.start()
    assert began.wait(10)
    assert second.ask() is not None
    assert over.is_set()
    holder.join()


@pytest.mark.slow
def test_the_turn_of_a_machine_without_power_is_over_in_the_end(two_drivers, monkeypatch):
    first, second = two_drivers
    monkeypatch.setattr("rml_search.heartbeats.Heartbeat.start", lambda _: None)
    with first.storage.turn():  # whose connection stays, and nothing comes from it
        assert second.ask() is not None


def test_who_has_lost_the_turn_of_a_journal_leaves_that_of_another(join, tmp_path):
    study = join()
    lock = tmp_path / "study.journal.turn.lock"
    with study.storage.turn():
        lock.write_text("another's")
    assert lock.read_text() == "another's"
    lock.unlink()
    with study.storage.turn():
        pass
    assert not lock.exists()


def test_half_a_line_that_a_full_disk_has_left_does_not_spoil_a_journal(join, tmp_path):
    first = join(num_trials=9)
    suggestion = first.ask()
    with (tmp_path / "study.journal").open("a") as journal:
        journal.write('{"op_code":2,"worker_i')
    first.finish(result(suggestion, 0.7), None)
    second = join(num_trials=9)
    assert [record.max_acc for record in second.records()] == [0.7]
    assert second.ask().number == 1


def test_another_file_is_not_cut_off(join, tmp_path):
    text = tmp_path / "text.journal"
    text.write_text("no line end")
    with pytest.raises(StudyError, match=r"text\.journal is not an Optuna journal"):
        join(storage=str(text))
    assert text.read_text() == "no line end"


def test_another_file_whose_line_has_an_end_is_not_written_to(join, tmp_path):
    text = tmp_path / "text.journal"
    text.write_text("a line\n")
    with pytest.raises(StudyError, match=r"text\.journal is not an Optuna journal"):
        join(storage=str(text))
    assert text.read_text() == "a line\n"


def test_an_empty_place_of_checkpoints_is_not_the_current_folder(join):
    with pytest.raises(OptionError, match="--artifacts must not be empty"):
        join(artifacts="")


def test_what_a_lost_power_has_left_at_the_end_does_not_spoil_a_journal(join, tmp_path):
    first = join(num_trials=9)
    first.finish(result(first.ask(), 0.7), None)
    with (tmp_path / "study.journal").open("ab") as journal:
        journal.write(bytes(100))
    assert [record.max_acc for record in join(num_trials=9).records()] == [0.7]


def test_a_journal_that_is_damaged_while_it_is_in_use_is_one_line(join, tmp_path):
    study = join(num_trials=9)
    with (tmp_path / "study.journal").open("a") as journal:
        journal.write('{"op_code":2,"worker_i\n{"op_code":2,"worker_i\n')
    with pytest.raises(StudyError, match=r"the journal \S+/study\.journal is damaged"):
        study.ask()


def test_a_trial_that_others_have_taken_while_it_was_drawn_is_no_error(join, monkeypatch):
    first, second = join(num_trials=9), join(num_trials=9)
    original = first.storage.optuna.set_trial_user_attr

    def lose_the_turn(*arguments):
        monkeypatch.setattr(first.storage.optuna, "set_trial_user_attr", original)
        second.recover()
        original(*arguments)

    monkeypatch.setattr(first.storage.optuna, "set_trial_user_attr", lose_the_turn)
    suggestion = first.ask()
    assert suggestion.number == 1
    assert [(record.number, record.tried_again) for record in first.records()] == [(0, True)]


def test_who_ends_a_search_does_not_wait_for_its_storage(join, monkeypatch):
    study = join()
    suggestion = study.ask()
    study._patience.seconds = 20.0
    monkeypatch.setattr("rml_shared.patience.PARTING_SECONDS", 0.1)

    def away(*_):
        raise ConnectionResetError("gone")

    def end_a_search():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            study.try_again(result(suggestion, state=TrialState.FAILED), 0)

    begun = time.monotonic()
    with monkeypatch.context() as patched, interruptible():
        patched.setattr(study.storage.optuna, "set_trial_user_attr", away)
        with pytest.raises(StudyError, match=r"cannot be used \(gone\)"), study.errors(study.workspace):
            end_a_search()
    assert time.monotonic() - begun < 10


def test_a_disk_that_is_full_here_is_no_fault_of_the_storage(join):
    study = join()
    with pytest.raises(OSError, match="No space left"), study.errors(study.workspace):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_the_place_of_checkpoints_is_looked_up_again_when_the_storage_was_away(join, monkeypatch):
    study = join(num_trials=9)
    monkeypatch.setattr("rml_shared.patience._PAUSE_SECONDS", 0.0)
    suggestion = study.ask()
    checkpoint = study.workspace.trial(suggestion.number).checkpoint(1)
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    study.finish(result(suggestion), "0" * 64)
    checkpoint.unlink()
    better = study.ask()
    study.finish(result(better, 0.9), None)
    original, calls = study.storage.optuna.get_trial_system_attrs, []

    def fail_at_first(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise ConnectionResetError("gone")
        return original(*arguments)

    monkeypatch.setattr(study.storage.optuna, "get_trial_system_attrs", fail_at_first)
    study._drop_beaten_models(study.models)
    assert len(calls) == 2
    assert list(study.workspace.root.parent.glob("**/study.artifacts/*")) == []


def test_a_search_that_only_waits_says_that_its_time_is_over(join, workspace, make_options):
    busy, waiting = join(num_trials=1), join(num_trials=1)
    busy.ask()
    search = Search(make_options(num_trials=1), workspace, None, waiting, None, Limits(search_seconds=1.0))
    search._started = time.monotonic() - 2.0
    assert not search._waits_for_others()
    assert search.ended_early == "time limit of 1 s reached (--timeout)"


def test_a_checkpoint_on_another_machine_is_not_looked_for_here(join, workspace):
    other, study = join(num_trials=9), join(num_trials=9)
    other.driver = replace(other.driver, host="node7")
    other._tell_beat(0)
    suggestion = other.ask()
    other.finish(result(suggestion), None)
    study.models = None
    (record,) = study.records()
    assert f"trial {record.number}, is on node7 in {workspace.root}" in study.where(record)


def test_a_process_that_the_system_hides_may_be_at_work(monkeypatch):
    driver = this_driver()
    monkeypatch.setattr("rml_search.driver._started", lambda _: None)
    assert is_gone(replace(driver, process=2**22 + 1).name)  # more than Linux has

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr("rml_search.driver.os.kill", refuse)
    assert not is_gone(driver.name)


def test_who_cannot_join_leaves_nothing_behind(join):
    before = threading.active_count()
    point = '{"optimizer": "nobody", "learning_rate": 0.002, "loss": "dice"}'
    with pytest.raises(OptionError, match="is not in the search space"):
        join(study=StudyChoice(enqueued=(point,)))
    assert threading.active_count() == before
    assert join().num_running_elsewhere() == 0


def test_who_waits_for_others_does_not_ask_all_the_time(join, workspace, make_options, monkeypatch):
    choice = StudyChoice(sampler=SamplerName.GRID)
    options = {"num_trials": 99, "lr_range": (0.01, 0.01)}  # 2 optimizers, 2 losses
    busy, waiting = (join(study=choice, **options) for _ in range(2))
    taken = [busy.ask() for _ in range(4)]
    search, asked = Search(make_options(**options), workspace, None, waiting, None), []
    ask = waiting.ask
    monkeypatch.setattr(waiting, "ask", lambda: asked.append(time.monotonic()) or ask())
    for _ in range(5):
        search._start_trials(None)
    assert len(asked) == 1
    assert search.ended_early is None
    for suggestion in taken:
        busy.finish(result(suggestion), None)
    search._ask_again_at = 0.0
    search._start_trials(None)
    assert len(asked) == 2
    assert search.ended_early == "every point of the search space has been tried"


@pytest.mark.database
def test_the_longest_line_of_an_engine_can_be_stored(join, server):
    study = join(storage=server.url, study_name="long", num_trials=1)
    study._patience.seconds = 1.0
    study.finish(result(study.ask(), state=TrialState.FAILED, reason="#" * 100_000), None)
    assert study.records()[0].reason == "#" * 2000


@pytest.mark.database
@pytest.mark.slow
def test_a_server_that_says_nothing_is_one_that_is_away(join, mariadb, monkeypatch):
    monkeypatch.setitem(_TCP["pymysql"], "read_timeout", 1)
    told: list[str] = []
    study = join(storage=mariadb.url, study_name="silent", num_trials=1, show=told.append)
    suggestion = study.ask()
    mariadb.process.send_signal(signal.SIGSTOP)
    again = threading.Timer(4.0, mariadb.process.send_signal, [signal.SIGCONT])
    again.start()
    study.finish(result(suggestion), None)
    again.join()
    assert "does not respond" in told[-2]
    assert [record.max_acc for record in study.records()] == [0.5]


@pytest.mark.database
def test_names_that_are_one_to_mysql_have_one_turn(join, mariadb):
    studies = [join(storage=mariadb.url, study_name=name) for name in ("Café", "cafe")]
    assert studies[0].identity == studies[1].identity
    assert studies[0].storage._turn.name == studies[1].storage._turn.name


@pytest.mark.database
def test_a_driver_keeps_two_connections(join, postgres):
    import psycopg

    study = join(storage=postgres.url, study_name="connections", heartbeat_seconds=0.1, num_trials=9)
    for _ in range(3):
        study.finish(result(study.ask()), None)
        time.sleep(0.2)
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'optuna' AND pid != pg_backend_pid()"
    deadline = time.monotonic() + 10
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        while connection.execute(query).fetchone()[0] > 2:  # a heartbeat may just need another one
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.database
def test_a_name_that_a_database_cannot_store_is_told(join, server):
    with pytest.raises(StudyError, match="choose a shorter --study-name"):
        join(storage=server.url, study_name="x" * 600)


@pytest.mark.parametrize("address", ["postgresql://user:geheim@host/db", "mysql://host/db?user=me&password=geheim"])
def test_a_password_is_neither_shown_nor_kept(join, address):
    for words in (["--storage", address], [f"--storage={address}"]):
        assert "geheim" not in describe_run(["rml-optimization", *words, "--seed", "3"], []).command
    local = address.replace("host", "127.0.0.1:1")
    with pytest.raises(StudyError, match="cannot be used") as caught:
        join(storage=local)
    assert "geheim" not in str(caught.value)


@pytest.mark.database
@pytest.mark.slow
def test_who_has_not_the_best_model_does_not_say_so(postgres, tmp_path):
    names = ["first", "second"]
    workspaces = [make_folder(tmp_path / name) for name in names]
    for workspace, name in zip(workspaces, names, strict=True):
        driver = start(workspace, name, "--storage", postgres.url, "--study-name", "apart", "--num-trials", "1")
        assert driver.wait(timeout=120) == 0, output(workspace, name)
    assert "The best model is in best_model" in output(workspaces[0], "first")
    text = output(workspaces[1], "second")
    assert f"in {workspaces[0].root}: see --artifacts" in text.replace("\n", " ")
    assert "The best model is in" not in text
    assert "The history is in" in text
