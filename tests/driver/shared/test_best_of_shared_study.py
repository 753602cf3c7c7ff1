"""``best`` of a study that drivers share, in its folders and elsewhere."""

from __future__ import annotations

import json

import pytest

from rml_commands.best import describe_best
from rml_optimization import main
from rml_search.errors import NoResultsError, OptionError
from rml_search.observer import SilentObserver
from rml_search.options import BestFormat, SharedChoice
from rml_search.paths import Workspace
from rml_search.search import Search


@pytest.fixture
def type_best(monkeypatch, capfd):
    """Types ``best`` in the folder of a workspace, and returns what it prints."""

    def run(workspace, *arguments, **environment):
        monkeypatch.chdir(workspace.root)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.argv", ["rml-optimization", "best", *arguments])
        capfd.readouterr()  # what was printed before
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert (ended.value.code or 0, err) == (0, "")
        return out

    return run


def test_the_best_of_a_shared_study_is_told_everywhere(
    workspace, make_options, scripted, script, tmp_path, join, type_best
):
    runtime = scripted(script([0.4, 0.5]), script([0.25, 0.875, 0.75]), script([], code=1))
    study = join(num_trials=3)
    workspace.study_mark.write_text(study.identity + "\n")
    Search(make_options(num_trials=3), workspace, runtime, study, SilentObserver()).run()
    url = f"journal://{tmp_path}/study.journal"
    here = json.loads(type_best(workspace, "--format", "json", "--storage", url))
    assert (here["trial"], here["accuracy"], here["epoch"]) == (1, 0.875, 2)
    assert here["num_trials"] == {"complete": 2, "pruned": 0, "failed": 1}
    assert here["hyperparameters"]["optimizer"] == runtime.documents[1]["optimizer"]["type"].lower()
    assert here["paths"]["checkpoint"] == str(workspace.best_checkpoint)
    assert here["paths"]["trial"] == str(workspace.trial(1).folder)
    elsewhere = Workspace(tmp_path / "elsewhere")
    elsewhere.trial(1).folder.mkdir(parents=True)  # of another search
    there = json.loads(type_best(elsewhere, "--format", "json", RML_STORAGE=url))
    assert set(there["paths"].values()) == {None}
    assert {**here, "paths": None} == {**there, "paths": None}
    assert "| Trial " in type_best(elsewhere, "--storage", url)


def test_what_is_not_there_is_told(workspace, tmp_path, join):
    join(num_trials=3)
    journal = f"journal://{tmp_path}/study.journal"
    for storage, name, message in (
        (f"journal://{tmp_path}/nowhere.journal", "rml-optimization", "run a search with this --storage first"),
        (journal, "another", "there is no study another in"),
        (journal, "rml-optimization", "no trial of the study rml-optimization in"),
    ):
        with pytest.raises(NoResultsError, match=message):
            describe_best(BestFormat.JSON, workspace, SharedChoice(storage, name))
    assert not (tmp_path / "nowhere.journal").exists()
    with pytest.raises(OptionError, match="not sqlite"):
        describe_best(BestFormat.JSON, workspace, SharedChoice("sqlite:///study.db"))
