"""How far a search has come that runs elsewhere: from its folder or its storage, at work, killed, or not there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy

from rml_commands.confirmation import confirm
from rml_commands.run import run_search
from rml_commands.status import folder_progress, storage_progress
from rml_optuna import open_study
from rml_search.display_name import DisplayName
from rml_search.errors import NoResultsError, OptionError, StudyError
from rml_search.options import ConfirmOptions, Objective, PrunerName, RuntimeChoice, SharedChoice, StudyChoice
from rml_search.paths import Workspace
from rml_search.plain_output import PlainObserver
from rml_search.plan import SearchPlan
from rml_search.results import TrialResult, TrialState
from rml_search.runtime.choice import ChosenRuntime
from rml_search.search import Search
from rml_search.status_output import status_document, status_text
from rml_search.synthetic import write_synthetic_data
from rmldnn_contract.training_log import EpochRecord

CHECKOUT = Path(__file__).resolve().parents[3]


def files_of(folder):
    """What is in which files of a folder, but for those in which SQLite's readers and writers agree on turns."""
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {path: b"" if path.name.endswith("-shm") else content for path, content in files.items()}


@pytest.fixture
def search(workspace, make_options, scripted, monkeypatch):
    """Runs a search of scripts in this process, to its end."""

    def run(*scripts, plan=None, **changes):
        chosen = ChosenRuntime(scripted(*scripts), "a test")
        monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
        settings = {"study": StudyChoice(pruner=PrunerName.NONE), "writes_report": False, **(plan or {})}
        plan = SearchPlan(display=DisplayName.QUIET, **settings)
        run_search(make_options(**changes), plan, workspace, RuntimeChoice(gpu=False), print)

    return run


@pytest.fixture
def driver(tmp_path):
    """A real search of long trials, two at a time, in a process of its own; and its folder."""
    write_synthetic_data(tmp_path / "data", num_train=8, num_test=4, size=32, seed=0)
    convolution = {"filters": 4, "kernel_size": [3, 3], "padding": "same"}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "data", "batch_input_shape": [None, None, None, 1]}},
        {"class_name": "Conv2D", "config": {"name": "a", "activation": "sigmoid", **convolution, "filters": 1}},
    ]
    (tmp_path / "layers.json").write_text(json.dumps(layers))
    words = ["--num-trials", "3", "--num-epochs", "5000", "--optimizers", "adam,sgd", "--loss", "bce", "--jobs", "2"]
    words += ["--runtime", "local", "--no-gpu", "--image-size", "32", "32", "--batch-size", "4", "--pruner", "none"]
    with (tmp_path / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(CHECKOUT / "rml_optimization.py"), *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    yield process, Workspace(tmp_path)
    process.kill()
    process.wait()


def test_a_study_of_another_program_is_none_of_a_search(workspace):
    storage = f"sqlite:///{workspace.study_database}"
    study = optuna.create_study(study_name="theirs", storage=storage)
    with pytest.raises(NoResultsError, match="the study theirs is empty: no search has been started in it"):
        folder_progress(workspace)
    study.tell(study.ask(), 0.5)
    with pytest.raises(NoResultsError, match="the study theirs was made by another program"):
        folder_progress(workspace)


def wait_for_epochs(process, workspace, told):
    deadline = time.monotonic() + 120
    while not all(f"trial {number}, epoch    3/5000" in told.read_text() for number in (0, 1)):
        assert time.monotonic() < deadline, told.read_text()
        assert process.poll() is None, told.read_text()
        time.sleep(0.1)
        with contextlib.suppress(NoResultsError):  # so it says while the search begins
            folder_progress(workspace)  # again and again, while the search writes


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_search_at_work_and_killed(driver):
    process, workspace = driver
    told = workspace.root / "output.txt"
    wait_for_epochs(process, workspace, told)
    command = [sys.executable, str(CHECKOUT / "rml_optimization.py"), "status", str(workspace.root), "--json"]
    document = json.loads(subprocess.check_output(command, text=True))
    assert (document["is_running"], document["num_trials"], document["num_finished"]) == (True, 3, 0)
    assert document["notes"] == []
    for number, trial in enumerate(document["running"]):
        assert (trial["trial"], trial["num_epochs"], trial["is_left"]) == (number, 5000, False)
        line = re.search(rf"trial {number}, epoch    3/5000: accuracy (0\.\d+)", told.read_text())
        assert trial["epochs"][2]["accuracy"] == pytest.approx(float(line[1]), abs=6e-4)
        assert trial["seconds"] * 5000 / len(trial["epochs"]) > trial["seconds_left"] > 0
    assert document["best"]["trial"] in (0, 1)

    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its engines end
    before = files_of(workspace.root)
    text = subprocess.check_output([*command[:-1]], text=True)
    left = folder_progress(workspace)
    assert files_of(workspace.root) == before
    assert left.is_running is False
    assert [trial.is_left for trial in left.running] == [True, True]
    told = " ".join(text.split())  # on two rows
    assert "No search is running: 2 trials had not finished, run the same command again to resume" in told
    assert text.count("was killed") == 2
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_search_that_has_ended(search, script, workspace):
    search(script([0.5, 0.7]), script([0.9]), script(code=1), num_trials=3, num_epochs=9)
    before = files_of(workspace.root)
    document = status_document(folder_progress(workspace))
    assert files_of(workspace.root) == before
    assert document["is_running"] is False
    assert (document["num_trials"], document["num_finished"], document["num_failed"]) == (3, 3, 1)
    assert (document["best"]["trial"], document["best"]["accuracy"], document["best"]["epoch"]) == (1, 0.9, 1)
    assert [failure["trial"] for failure in document["failures"]] == [2]
    assert document["settings"].startswith("3 trials of 9 epochs, adam|sgd, bce|dice, lr 0.001-0.01, 256x256, batch ")
    assert (document["running"], document["front"], document["confirmation"]) == ([], None, None)
    assert document["notes"] == ["No search is running"]


def test_two_objectives_have_a_front(search, script, workspace):
    both = (Objective.ACCURACY, Objective.SECONDS)
    search(script([0.8], seconds=0.4), script([0.5]), objectives=both)
    assert [one["trial"] for one in status_document(folder_progress(workspace))["front"]] == [0, 1]


def test_the_best_ones_again_are_there_too(search, script, workspace):
    again = {"confirm": ConfirmOptions(1, 2)}
    search(script([0.5]), script([0.7]), script([0.6]), script([0.8]), plan=again)
    progress = folder_progress(workspace)
    document = status_document(progress)
    assert document["num_finished"] == 2
    assert (document["confirmation"]["num_trials"], document["confirmation"]["num_finished"]) == (2, 2)
    assert document["confirmation"]["best"]["accuracy"] == 0.8
    assert "retrained with other seeds" in status_text(progress, as_json=False)


def test_during_the_confirmation_the_search_is_running(workspace, make_options, scripted, script):
    options = make_options(num_trials=1)
    study = open_study(workspace, options, StudyChoice(pruner=PrunerName.NONE), print)
    search = Search(options, workspace, scripted(script([0.7]), script([0.8])), study, PlainObserver(options, print))
    search.run()
    records = study.records()
    study.close()
    assert folder_progress(workspace).is_running is False
    seen = []

    class Asking(PlainObserver):
        def epoch_finished(self, number, epoch):
            seen.append(folder_progress(workspace))

    def watching(part):
        return contextlib.nullcontext(Asking(part.options, print))

    confirm(ConfirmOptions(1, 1), search, records, watching, print)
    (progress,) = seen
    assert progress.is_running is True
    assert progress.again.is_running is True
    assert [epoch.accuracy for epoch in progress.again.running[0].epochs] == [0.8], "read from the log of that part"


def test_where_there_is_no_search(tmp_path):
    with pytest.raises(NoResultsError, match=r"there is no .*study\.db, so no search has been started in this folder"):
        folder_progress(Workspace(tmp_path))
    (tmp_path / "study.db").write_bytes(b"")
    with pytest.raises(NoResultsError, match="contains no study"):
        folder_progress(Workspace(tmp_path))
    (tmp_path / "study.db").write_text("no database at all, and long enough to be looked at " * 99)
    with pytest.raises(StudyError, match="not a database"):
        folder_progress(Workspace(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_a_shared_study_in_a_journal(join, tmp_path, workspace):
    place = tmp_path / "study.journal"
    first, second = join(num_trials=4), join(num_trials=4)
    suggestion = first.ask()
    first.report(suggestion.number, EpochRecord(1, 3, 0.6))
    second.ask()
    before = files_of(tmp_path)
    progress = storage_progress(SharedChoice(f"journal://{place}"))
    assert files_of(tmp_path) == before
    assert progress.is_running is True
    assert (progress.num_trials, progress.tally.num_counted) == (4, 0)
    assert [trial.number for trial in progress.running] == [0, 1]
    assert progress.running[0].accuracies == (0.6,)
    assert progress.running[0].place == f"process {os.getpid()} on {first.driver.host}"
    assert not any(trial.is_left for trial in progress.running)
    # What a log within reach says is newer than the study.
    log = workspace.trial(0).log
    log.parent.mkdir(parents=True)
    stamp, rest = "[2022-Mar-24 21:44:12.182169] ", " : Batch [    1/    1] (Loss: 0.66) | Accuracy: "
    log.write_text("".join(f"{stamp}Eval  Epoch [  {epoch}/  3]{rest}0.{epoch}00\n" for epoch in (1, 2)))
    assert storage_progress(SharedChoice(f"journal://{place}")).running[0].accuracies == (0.1, 0.2)
    first.close()
    second.close()
    ended = storage_progress(SharedChoice(f"journal://{place}"))
    assert ended.is_running is False
    assert [trial.is_left for trial in ended.running] == [True, True]
    with pytest.raises(NoResultsError, match=r"no study other: it contains rml-optimization; see --study-name"):
        storage_progress(SharedChoice(f"journal://{place}", "other"))
    workspace.study_mark.write_text("x")
    with pytest.raises(NoResultsError, match="its study is elsewhere; give it with --storage"):
        folder_progress(workspace)


def test_the_folder_of_a_search_on_a_cluster_tells_of_its_journal(join, workspace):
    study = join(num_trials=4, storage=str(workspace.shared_journal))
    study.ask()
    progress = folder_progress(workspace)
    assert (progress.num_trials, progress.is_running, len(progress.running)) == (4, True, 1)
    workspace.shared_journal.write_text("")
    with pytest.raises(NoResultsError, match=r"trials/study\.journal contains no study rml-optimization"):
        folder_progress(workspace)


def test_a_driver_sees_the_trials_of_others(join):
    first, second = join(num_trials=4), join(num_trials=4)
    suggestion = first.ask()
    first.report(suggestion.number, EpochRecord(1, 3, 0.6))
    (elsewhere,) = second.running_elsewhere()
    assert (elsewhere.number, elsewhere.accuracies) == (suggestion.number, (0.6,))
    assert elsewhere.place == f"process {os.getpid()} on {first.driver.host}"
    assert list(first.running_elsewhere()) == []


def test_a_search_tells_its_observer_of_other_drivers(join, make_options, workspace, scripted, script):
    first, second = join(num_trials=2), join(num_trials=2)
    suggestion = first.ask()
    seen = []

    class Seeing(PlainObserver):
        def others_seen(self, records, running):
            seen.append(([record.number for record in records], [trial.number for trial in running]))

        def note(self, text):
            if text.startswith("Waiting for 1 trial of other drivers"):
                epochs = (EpochRecord(1, 3, 0.9),)
                first.finish(TrialResult(0, suggestion.hyperparameters, TrialState.COMPLETE, epochs, 9.0), None)

    options = make_options(num_trials=2)
    Search(options, workspace, scripted(script([0.5])), second, Seeing(options, print)).run()
    assert seen[0] == ([], [0])
    assert [record.number for record in second.records()] == [0, 1]


def test_what_is_not_there_is_not_made(tmp_path):
    with pytest.raises(NoResultsError, match=r"there is no file .*none\.journal"):
        storage_progress(SharedChoice(f"journal://{tmp_path}/none.journal"))
    with pytest.raises(OptionError, match="--storage takes postgresql://"):
        storage_progress(SharedChoice("nonsense"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.database
def test_a_shared_study_in_a_database(postgres, join):
    empty = postgres.url.removesuffix("optuna") + "template1"
    with pytest.raises(NoResultsError, match="contains no study: no search has been started there"):
        storage_progress(SharedChoice(empty))
    url = sqlalchemy.make_url(empty).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()
    study = join(num_trials=4, storage=postgres.url, study_name="status")
    study.ask()
    progress = storage_progress(SharedChoice(postgres.url, "status"))
    assert (progress.num_trials, progress.is_running, len(progress.running)) == (4, True, 1)
    with pytest.raises(NoResultsError, match="no study other: it contains "):
        storage_progress(SharedChoice(postgres.url, "other"))
