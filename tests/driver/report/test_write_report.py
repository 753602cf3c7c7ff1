"""From the files of a search to its page: what is read, what is left alone, and when a search writes it."""

from __future__ import annotations

import html
import json
import re
import sqlite3
from contextlib import closing

import pytest

from rml_commands.run import run_search
from rml_report import page
from rml_report.page import read_summary, summary_of_records, write_report
from rml_search.errors import NoResultsError, StudyError, WriteError
from rml_search.options import ConfirmOptions, Objective, PrunerName, RuntimeChoice, StudyChoice
from rml_search.plan import SearchPlan
from rml_search.report import words
from rml_search.report.summary import State
from rml_search.results import read_list_acc
from rml_search.runtime.choice import ChosenRuntime


@pytest.fixture
def search(scripted, workspace, make_options, monkeypatch):
    """Runs a search of scripted trainings in the workspace."""

    def run(*scripts, plan=None, **options):
        chosen = ChosenRuntime(scripted(*scripts), "a test")
        monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
        settings = {"num_trials": len(scripts), **options}
        chosen_plan = plan or SearchPlan(writes_report=False)
        run_search(make_options(**settings), chosen_plan, workspace, RuntimeChoice(gpu=False), print)

    return run


def files(workspace):
    """Name -> contents of the files of the study."""
    return {path.name: path.read_bytes() for path in (*workspace.study_files(), workspace.list_acc) if path.exists()}


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", " ", page))


def test_the_summary_says_what_the_trials_did(search, workspace, script):
    plan = SearchPlan(StudyChoice(pruner=PrunerName.MEDIAN), writes_report=False)
    failing = script([0.1], code=1, words=["the engine's last <words>"])
    search(script([0.5, 0.9, 0.7]), failing, script([0.25, 0.5, 0.25]), plan=plan)
    summary = read_summary(workspace)
    first, second, third = summary.trials
    assert (first.state, first.accuracy, first.best_epoch) == (State.COMPLETE, 0.9, 2)
    assert first.accuracies == ((1, 0.5), (2, 0.9), (3, 0.7))
    assert first.hyperparameters.keys() == {"optimizer", "loss", "learning_rate"}
    assert (second.state, second.accuracy, second.accuracies) == (State.FAILED, None, ((1, 0.1),))
    assert "the engine's last <words>" in second.reason
    assert third.accuracy == 0.5
    assert summary.best.number == 0
    assert summary.num_epochs == 3
    assert [dimension.name for dimension in summary.dimensions] == ["learning_rate", "loss", "optimizer"]
    assert summary.dimensions[0].is_log
    assert summary.settings["--num-epochs"] == "3"


def test_pruned_trials_are_told_apart(search, workspace, script):
    good, bad = script([0.7, 0.8, 0.9]), script([0.1, 0.1], hangs=True)
    plan = SearchPlan(StudyChoice(pruner=PrunerName.MEDIAN), writes_report=False)
    search(*[good] * 8, bad, plan=plan)
    summary = read_summary(workspace)
    pruned = summary.of_state(State.PRUNED)
    assert [trial.number for trial in pruned] == [8]
    assert pruned[0].accuracies[0] == (1, 0.1)  # the second epoch may have come before the end
    assert pruned[0].accuracy == 0.1
    assert pruned[0].reason


def test_trials_that_were_confirmed(search, workspace, script):
    """Trials 1 and 2 are trained again with two seeds, one seed after the other: 0.6 and 0.7; 0.85 and 0.75."""
    again = [script([0.6]), script([0.8, 0.85]), script([0.7]), script([0.75])]
    plan = SearchPlan(confirm=ConfirmOptions(2, 2), writes_report=False)
    search(script([0.7]), script([0.9]), script([0.8]), *again, plan=plan, num_trials=3)
    summary = read_summary(workspace)
    assert len(summary.trials) == 3
    assert [(item.number, item.accuracies) for item in summary.confirmations] == [(2, (0.85, 0.75)), (1, (0.6, 0.7))]
    text = text_of(write_report(workspace).read_text(encoding="utf-8"))
    told = "trial 2 0.800 +- 0.071 (2 runs); trial 1 0.650 +- 0.071 (2 runs). By this mean, trial 2 is the best"
    assert told in text


def test_two_objectives(search, workspace, script):
    """The slow one is the most accurate, the quick one next, and the third is beaten by both."""
    scripts = script([0.9], seconds=0.6), script([0.8]), script([0.5], seconds=0.3)
    search(*scripts, objectives=(Objective.ACCURACY, Objective.SECONDS))
    summary = read_summary(workspace)
    assert [trial.accuracy for trial in summary.trials] == [0.9, 0.8, 0.5]
    assert [trial.number for trial in summary.front] == [0, 1]
    assert [trial.num_epochs for trial in summary.trials] == [3, 3, 3]
    text = text_of(write_report(workspace).read_text(encoding="utf-8"))
    assert re.search(r"Pareto front, .*: trial 0 \(0\.900, .*\) and trial 1 \(0", text)
    assert "there are no learning curves" in text


def test_what_a_trial_was_chosen_on(study, trial):
    assert not study(trial(0, [0.5])).is_chosen_by_validation
    assert study(trial(0, [0.5]), settings={"--validation-fraction": "0.15"}).is_chosen_by_validation


def test_writing_changes_nothing_else(search, workspace, script):
    search(script([0.5]), script([0.6]))
    before = files(workspace)
    names = {path.name for path in workspace.root.iterdir()}
    page = write_report(workspace)
    assert page == workspace.report_page
    assert files(workspace) == before
    assert {path.name for path in workspace.root.iterdir()} == names | {"report"}


def test_a_report_is_written_while_the_search_writes(search, workspace, script):
    """A transaction that is under way keeps nobody out, and what it has not committed is not seen."""
    search(script([0.5]))
    with closing(sqlite3.connect(workspace.study_database)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trials")
        assert len(read_summary(workspace).trials) == 1
        writer.rollback()


def test_a_running_trial_is_said_to_run(search, workspace, script):
    search(script([0.5]))
    with closing(sqlite3.connect(workspace.study_database)) as database:
        database.execute("UPDATE trials SET state = 'RUNNING', datetime_complete = NULL")
        database.commit()
    page = write_report(workspace).read_text(encoding="utf-8")
    assert "1 trial had not finished" in text_of(page)


def test_a_trial_that_was_broken_off_and_ran_again_has_not_failed(search, workspace, script):
    killed = script([0.4], code=137, note="the container was killed", is_machines_fault=True)
    search(killed, script([0.7]), script([], code=1, words=["no luck"]), num_trials=2)
    summary = read_summary(workspace)
    assert [trial.state for trial in summary.trials] == [State.INTERRUPTED, State.COMPLETE, State.FAILED]
    of_records = summary_of_records(read_list_acc(workspace), "a search")
    assert [trial.state for trial in of_records.trials] == [State.INTERRUPTED, State.COMPLETE, State.FAILED]
    text = " ".join(text_of(write_report(workspace).read_text(encoding="utf-8")).split())
    assert "2 trials: 1 complete, 1 failed; 1 more was interrupted and does not count" in text
    assert "Finished trials 2 " in text
    assert "the container was killed; its hyperparameters get another trial" in text


def test_the_page_answers_the_questions(search, workspace, script):
    search(script([0.5, 0.9]), script([0.7, 0.75]), script([], code=1, words=["out of <luck> & 'time'"]), num_epochs=2)
    page = write_report(workspace).read_text(encoding="utf-8")
    text = " ".join(text_of(page).split())
    assert "Trial 0 reached an accuracy (Dice) of 0.900 in epoch 2, with:" in text
    assert "0.150 above the second best, trial 1 (0.750)" in text
    assert "out of <luck> & 'time'" in text
    assert "<luck>" not in page
    assert "3 trials: 2 complete, 1 failed" in text
    assert f"{words.program_of(read_summary(workspace))} infer" in text  # no predictions yet
    assert "RMLDNN_SEED=5 rmldnn --config=trials/0000/config.json" in text
    assert re.search(r"Precision\s+the engine's default", text)


def test_the_page_refers_to_nothing_outside(search, workspace, script):
    search(script([0.5]))
    page = write_report(workspace).read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)  # plotly.js names its home in messages
    assert re.findall(r"""(?:src|href)=["'](?!#|data:)[^"']*""", own) == []
    assert "http" not in own.replace('http-equiv="Content-Security-Policy"', "")


def test_without_the_study_the_list_of_trials_is_enough(workspace):
    tutorial = [
        {"max_acc": 0.8, "optimizer": "adam", "lr": 0.002, "loss": "bce", "epoch_max_acc": 4},
        {"max_acc": 0.7, "optimizer": "sgd", "lr": 0.004, "loss": "dice", "epoch_max_acc": 2},
    ]
    workspace.list_acc.write_text(json.dumps(tutorial))
    summary = read_summary(workspace)
    assert (summary.best.number, summary.best.accuracy, summary.best.hyperparameters["learning_rate"]) == (
        0,
        0.8,
        0.002,
    )
    page = write_report(workspace).read_text(encoding="utf-8")
    assert "so there are no learning curves" in page
    assert "The command was not recorded" in page


def test_no_results(workspace):
    with pytest.raises(NoResultsError, match="run a search in this folder first"):
        write_report(workspace)
    assert not workspace.report.exists()


def test_a_study_in_which_nothing_has_begun(search, workspace, script):
    search(script([0.5]))
    with closing(sqlite3.connect(workspace.study_database)) as database:
        for table in ("trials", "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes"):
            database.execute(f"DELETE FROM {table}")
        database.commit()
    with pytest.raises(NoResultsError, match="nothing to report yet"):
        read_summary(workspace)


def test_a_file_that_is_no_study(workspace):
    workspace.study_database.write_bytes(b"no database" * 1000)
    with pytest.raises(StudyError, match=r"study\.db cannot be used"):
        read_summary(workspace)


def test_a_database_that_holds_something_else(workspace):
    with closing(sqlite3.connect(workspace.study_database)) as database:
        database.execute("CREATE TABLE cakes (name TEXT)")
        database.commit()
    before = workspace.study_database.read_bytes()
    with pytest.raises(NoResultsError, match="contains no study"):
        read_summary(workspace)
    assert workspace.study_database.read_bytes() == before


def test_a_folder_that_cannot_be_made(search, workspace, script, tmp_path):
    search(script([0.5]))
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"cannot write .*report.html"):
        write_report(workspace, tmp_path / "file")


# --- at the end of a search ------------------------------------------------------------------------------


def test_a_search_ends_with_its_report(search, workspace, script, capsys):
    search(script([0.5]), plan=SearchPlan())
    assert workspace.report_page.is_file()
    assert capsys.readouterr().out.splitlines()[-1].endswith("report/report.html")


def test_no_report_on_request(search, workspace, script):
    search(script([0.5]), plan=SearchPlan(writes_report=False))
    assert not workspace.report.exists()


def test_a_report_that_fails_is_one_line_after_a_search_that_worked(search, workspace, script, capsys, monkeypatch):
    def fail(*_):
        raise RuntimeError("no\nink")

    monkeypatch.setattr(page, "write_report", fail)
    search(script([0.5]), plan=SearchPlan())
    assert capsys.readouterr().out.splitlines()[-1] == "Cannot write the report: no ink; `report` tries again"


def test_a_report_moves_aside_with_its_search(search, workspace, script):
    search(script([0.5]), plan=SearchPlan())
    search(script([0.6]), plan=SearchPlan(StudyChoice(is_fresh=True), writes_report=False))
    assert not workspace.report.exists()
    assert len(list(workspace.root.glob("earlier/*/report/report.html"))) == 1


def test_the_command_is_kept_each_time_that_the_search_goes_on(search, workspace, script, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/opt/rml_optimization.py", "--enqueue", '{"loss": "bce"}'])
    monkeypatch.setenv("RMLDNN_PRECISION", "float32")
    search(script([0.5]))
    monkeypatch.setattr("sys.argv", ["/usr/bin/rml-optimization", "--num-trials", "2"])
    search(script([0.6]), num_trials=2)
    first, second = read_summary(workspace).runs
    assert first.command == """RMLDNN_PRECISION=float32 python /opt/rml_optimization.py --enqueue '{"loss": "bce"}'"""
    assert second.command == "RMLDNN_PRECISION=float32 rml-optimization --num-trials 2"
    assert ("Trials", "2") in second.settings
    assert first.versions["optuna"].startswith("5.")
    page = write_report(workspace).read_text(encoding="utf-8")
    assert "It was resumed with" in page
