"""The report of a study that drivers share, in its folders and elsewhere."""

from __future__ import annotations

import pytest

from rml_commands.run import run_search
from rml_report.page import read_summary, write_report
from rml_search.display_name import DisplayName
from rml_search.errors import NoResultsError, OptionError, StudyError
from rml_search.options import PrunerName, RuntimeChoice, SharedChoice, StudyChoice
from rml_search.paths import Workspace
from rml_search.plan import SearchPlan
from rml_search.report.summary import State
from rml_search.runtime.choice import ChosenRuntime


@pytest.fixture
def shared(tmp_path):
    """The study of a journal."""
    return SharedChoice(f"journal://{tmp_path}/study.journal")


@pytest.fixture
def search(workspace, make_options, scripted, shared, monkeypatch):
    """Runs a search of scripts as one of the drivers of that study, and lets it write its report."""

    def run(*scripts, **changes):
        chosen = ChosenRuntime(scripted(*scripts), "a test")
        monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
        monkeypatch.setattr("sys.argv", ["rml-optimization", "--storage", shared.storage])
        plan = SearchPlan(StudyChoice(pruner=PrunerName.NONE), shared=shared, display=DisplayName.QUIET)
        run_search(make_options(**changes), plan, workspace, RuntimeChoice(gpu=False), print)

    return run


def test_a_search_that_drivers_share_ends_with_a_whole_report(search, script, workspace, shared):
    """Its curves, its settings and its command are in the storage, not in this folder."""
    search(script([0.5, 0.9]), script([0.7]))
    page = workspace.report_page.read_text(encoding="utf-8")
    assert f"rml-optimization --storage {shared.storage}" in page
    assert "The command was not recorded" not in page
    assert "No per-epoch accuracies are stored" not in page
    summary = read_summary(workspace, shared)
    assert [trial.accuracies for trial in summary.trials] == [((1, 0.5), (2, 0.9)), ((1, 0.7),)]
    assert summary.settings["--num-epochs"] == "3"
    assert "the best model on the test images in the search folder" in page  # nobody has yet


def test_what_other_drivers_run_is_in_it_too(join, workspace, shared):
    first, second = join(num_trials=2), join(num_trials=2)
    first.ask()
    second.ask()
    summary = read_summary(workspace, shared)
    assert [trial.state for trial in summary.trials] == [State.RUNNING, State.RUNNING]


def test_a_folder_of_another_search_shows_none_of_its_pictures(search, script, workspace, shared, tmp_path):
    search(script([0.5]), num_trials=1)
    elsewhere = Workspace(tmp_path / "elsewhere")
    elsewhere.predictions.mkdir(parents=True)
    (elsewhere.predictions / "output_1.h5").touch()
    page = write_report(elsewhere, shared=shared).read_text(encoding="utf-8")
    assert "This folder contains no predictions of this shared search" in page
    assert page.count("0.500") > 1


def test_the_folder_of_a_search_on_a_cluster_is_read_from_its_journal(join, workspace):
    study = join(num_trials=4, storage=str(workspace.shared_journal))
    with pytest.raises(NoResultsError, match="run a search in this folder first"):
        read_summary(workspace)
    study.ask()
    assert [trial.state for trial in read_summary(workspace).trials] == [State.RUNNING]
    with workspace.shared_journal.open("a") as journal:
        journal.write("no line of a journal\n{}\n")
    with pytest.raises(StudyError, match="is damaged"):
        read_summary(workspace)


def test_what_is_not_there_is_told(join, workspace, shared):
    with pytest.raises(NoResultsError, match="no search has been started there"):
        read_summary(workspace, shared)
    join(num_trials=3)
    with pytest.raises(NoResultsError, match="no trial in the study rml-optimization has started"):
        read_summary(workspace, shared)
    with pytest.raises(NoResultsError, match="contains no study other: it contains rml-optimization; see --study-name"):
        read_summary(workspace, SharedChoice(shared.storage, "other"))
    with pytest.raises(OptionError, match="--storage takes postgresql://"):
        read_summary(workspace, SharedChoice("nonsense"))
