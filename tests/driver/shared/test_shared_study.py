"""One study, several drivers: who runs what, what is given back, and what happens to a storage that is away."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest

from rml_search.errors import OptionError, StudyError
from rml_search.heartbeats import ENDED, GRACE_BEATS
from rml_search.options import SamplerName, StudyChoice
from rml_search.results import TrialResult, TrialState
from rmldnn_contract.training_log import EpochRecord


def result(suggestion, accuracy=0.5, **changes):
    epochs = (EpochRecord(1, 3, accuracy),)
    whole = TrialResult(suggestion.number, suggestion.hyperparameters, TrialState.COMPLETE, epochs, 1.0)
    return replace(whole, **changes)


def silence(watcher, beats=GRACE_BEATS + 1, living=()):
    """So much time passes for a driver that hears nothing but of the living."""
    for number in range(1, beats + 1):
        for study in living:
            study._tell_beat(number)
        watcher._watch._looked -= watcher.heartbeat_seconds
        with watcher.storage.turn():
            watcher.recover()


@pytest.mark.parametrize(
    "storage",
    [
        "journal",
        pytest.param("postgres", marks=pytest.mark.database),
        pytest.param("mariadb", marks=pytest.mark.database),
    ],
)
def test_drivers_never_begin_more_trials_than_asked_for_nor_one_twice(join, storage, request):
    where = {"storage": request.getfixturevalue(storage).url, "study_name": "race"} if storage != "journal" else {}
    studies = [join(num_trials=9, **where) for _ in range(3)]
    taken: list[object] = []

    def draw(study):
        while (suggestion := study.ask()) is not None:
            taken.append(suggestion)
            study.finish(result(suggestion), None)

    threads = [threading.Thread(target=draw, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(suggestion.number for suggestion in taken) == list(range(9))
    assert len({str(suggestion.hyperparameters) for suggestion in taken}) == 9
    for study in studies:
        study._read = None  # what it knows of others may be a second old
    records = [study.records() for study in studies]
    assert records[0] == records[1] == records[2]
    assert len(records[0]) == 9


def test_the_points_of_a_grid_are_shared_out(join):
    choice = StudyChoice(sampler=SamplerName.GRID)
    first, second = (join(num_trials=99, lr_range=(0.01, 0.01), study=choice) for _ in range(2))
    taken = [study.ask() for _ in range(2) for study in (first, second)]
    assert len({str(suggestion.hyperparameters) for suggestion in taken}) == 4  # 2 optimizers, 2 losses
    assert first.ask() is None


def test_the_trials_of_a_living_driver_are_left_to_it(join):
    first = join(num_trials=9)
    suggestion = first.ask()
    second = join(num_trials=9)
    assert second.num_running_elsewhere() == 1
    other = second.ask()
    assert other.number != suggestion.number
    assert other.hyperparameters != suggestion.hyperparameters
    first.finish(result(suggestion), None)
    assert [record.number for record in second.records()] == [suggestion.number]


def test_what_a_lost_driver_ran_is_tried_again_once_though_two_notice(join):
    told: list[str] = []
    lost = join(num_trials=9, heartbeat_seconds=10.0)
    suggestion = lost.ask()
    second, third = (join(num_trials=9, heartbeat_seconds=10.0, show=told.append) for _ in range(2))
    lost._heartbeat.stop()
    silence(second, living=[third])
    silence(third, living=[second])
    again = [second.ask(), third.ask()]
    assert [one.hyperparameters == suggestion.hyperparameters for one in again] == [True, False]
    assert [(record.number, record.tried_again) for record in second.records()] == [(suggestion.number, True)]
    assert told.count("1 trial of a lost driver: retried first") == 1


def test_a_driver_that_beats_is_not_lost_however_long_its_trial_takes(join):
    busy, other = join(num_trials=9, heartbeat_seconds=10.0), join(num_trials=9, heartbeat_seconds=10.0)
    busy.ask()
    for number in range(1, 30):
        busy._tell_beat(number)
        silence(other, beats=1)
    assert other.num_running_elsewhere() == 1
    assert other.records() == []


def test_a_driver_that_has_left_gives_its_trial_back_at_once(join):
    first, second = join(num_trials=9), join(num_trials=9)
    suggestion = first.ask()
    first._tell_beat(ENDED)
    assert second.ask().hyperparameters == suggestion.hyperparameters


def test_who_comes_back_after_it_was_taken_for_lost_changes_nothing(join):
    told: list[str] = []
    late, other = (
        join(num_trials=9, heartbeat_seconds=10.0, show=told.append),
        join(num_trials=9, heartbeat_seconds=10.0),
    )
    suggestion = late.ask()
    silence(other)
    again = other.ask()
    assert again.hyperparameters == suggestion.hyperparameters
    assert late.report(suggestion.number, EpochRecord(1, 3, 0.9)) is True, "it should end"
    late.finish(result(suggestion, 0.99), None)
    other.finish(result(again, 0.6), None)
    assert [record.max_acc for record in late.records()] == [None, 0.6]
    assert told[-1] == "Trial 0: other drivers considered this driver lost and retried it"


def test_a_trial_that_was_being_drawn_when_its_driver_died_runs_again(join):
    first, second = join(num_trials=9), join(num_trials=9)
    first.study.ask()  # and killed before anybody knew whose it is
    assert second.ask().number == 1
    assert second.num_running_elsewhere() == 0


def test_an_answer_that_was_lost_on_the_way_is_no_second_trial(join, monkeypatch):
    study = join(num_trials=2)
    monkeypatch.setattr("rml_shared.patience._PAUSE_SECONDS", 0.0)
    original, calls = study.storage.optuna.set_trial_user_attr, []

    def fail_after_writing(*arguments):
        original(*arguments)
        calls.append(arguments)
        if len(calls) in {1, 3}:
            raise ConnectionResetError("gone")

    monkeypatch.setattr(study.storage.optuna, "set_trial_user_attr", fail_after_writing)
    suggestion = study.ask()
    study.finish(result(suggestion), None)
    ended = [record for record in study.records() if not record.tried_again]
    assert [record.max_acc for record in ended] == [0.5]
    assert suggestion.number == 1  # trial 0 was not heard of again, and its hyperparameters are tried as trial 1
    assert suggestion.hyperparameters.learning_rate == study.records()[0].lr
    assert study.ask() is not None
    assert study.ask() is None


def test_other_settings_are_another_study_and_paths_are_not(join, workspace, tmp_path):
    join()
    with pytest.raises(
        StudyError, match=r"the study rml-optimization in .*study\.journal was started with --loss bce,dice"
    ):
        join(losses=("bce",))
    elsewhere = tmp_path / "other machine"
    (workspace.root / "data").rename(elsewhere)
    copy = tmp_path / "network.json"
    copy.write_bytes((workspace.root / "layers.json").read_bytes())
    join(data=elsewhere, layers=(copy,))
    copy.write_text(json.dumps([]))
    with pytest.raises(StudyError, match="another network"):
        join(data=elsewhere, layers=(copy,))


def test_studies_of_one_storage_do_not_meet(join):
    first, second = join(study_name="one"), join(study_name="two")
    first.ask()
    assert second.num_running_elsewhere() == 0
    assert first.identity != second.identity


def test_points_asked_for_by_two_drivers_are_tried_once(join):
    choice = StudyChoice(enqueued=('{"optimizer": "sgd", "learning_rate": 0.002, "loss": "dice"}',))
    first, second = join(num_trials=9, study=choice), join(num_trials=9, study=choice)
    points = [study.ask().hyperparameters for study in (first, second)]
    assert [point.learning_rate == 0.002 for point in points] == [True, False]


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("study.db", "--storage takes postgresql://"),
        ("sqlite:///study.db", "not sqlite, which works on one machine only"),
        ("oracle://host/db", "not oracle, use postgresql"),
        ("postgresql://user:geheim@host", r"postgresql://user:\*\*\*@host names no database"),
        ("journal://", "give a file name after journal://"),
    ],
)
def test_addresses_that_are_none(join, storage, message):
    with pytest.raises(OptionError, match=message):
        join(storage=storage)


def test_a_journal_that_cannot_be_used_is_one_line(join, tmp_path):
    with pytest.raises(StudyError, match=r"none/x\.journal cannot be used \(No such file or directory\)"):
        join(storage=f"{tmp_path}/none/x.journal")
    (tmp_path / "text.journal").write_text("no journal at all\nnor here\n")
    with pytest.raises(StudyError, match=r"text\.journal is not an Optuna journal"):
        join(storage=f"{tmp_path}/text.journal")
    (tmp_path / "number.journal").write_text("12\n")
    with pytest.raises(StudyError, match="is not an Optuna journal"):
        join(storage=f"{tmp_path}/number.journal")


@pytest.mark.parametrize("name", ["study.db", "trials/mine.journal", "report/deep/x.journal"])
def test_a_journal_that_would_move_aside_with_the_results_is_refused(join, workspace, name):
    with pytest.raises(OptionError, match=f"{name} is the name of a result of the search: choose another file"):
        join(storage=f"journal://{workspace.root}/{name}")
    assert not (workspace.root / name).exists()


@pytest.mark.database
def test_a_database_that_cannot_be_used_is_one_line_without_its_password(join, server):
    cases = {
        server.url.replace(
            "geheim", "falsch"
        ): "(authentication failed|Access denied).*check the user and the password",
        server.url.removesuffix("optuna") + "nothing": "nothing.*: (create it first|check the user and the password)",
        server.url.replace(str(server.port), "1"): "check the host and port, and whether the server is running",
    }
    for url, message in cases.items():
        with pytest.raises(StudyError, match=message) as caught:
            join(storage=url)
        assert caught.value.exit_code == 6
        assert "\n" not in str(caught.value)
        assert "geheim" not in str(caught.value)
        assert "falsch" not in str(caught.value)


@pytest.mark.database
def test_a_study_of_another_version_of_optuna_is_one_line(join, postgres):
    import psycopg

    join(storage=postgres.url)
    with psycopg.connect(postgres.url) as connection:
        before = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        connection.execute("UPDATE alembic_version SET version_num = 'v99'")
    try:
        with pytest.raises(StudyError, match="was made by another version of Optuna"):
            join(storage=postgres.url)
    finally:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("UPDATE alembic_version SET version_num = %s", before)


@pytest.mark.database
def test_a_server_that_goes_away_and_comes_back_loses_nothing(join, server):
    told: list[str] = []
    study = join(storage=server.url, study_name="away", num_trials=2, show=told.append)
    suggestion = study.ask()
    server.stop()
    back = threading.Timer(3.0, server.start)
    back.start()
    study.finish(result(suggestion, 0.7), None)
    back.join()
    assert [record.max_acc for record in study.records()] == [0.7]
    assert "does not respond" in told[-2]
    assert "geheim" not in "".join(told)
    assert told[-1].endswith("responds again")


@pytest.mark.database
def test_a_server_that_stays_away_ends_the_search_in_the_end(join, postgres):
    study = join(storage=postgres.url, study_name="stays away", num_trials=2)
    suggestion = study.ask()
    study.finish(result(suggestion, 0.7), None)
    lost = study.ask()
    postgres.stop()
    try:
        study._patience.seconds = 1.0
        with pytest.raises(StudyError, match="cannot be used"), study.errors(study.workspace):
            study.finish(result(lost), None)
    finally:
        postgres.start()
    study.close()
    again = join(storage=postgres.url, study_name="stays away", num_trials=2)
    assert [record.max_acc for record in again.records() if not record.tried_again] == [0.7]
    assert again.ask().hyperparameters == lost.hyperparameters
