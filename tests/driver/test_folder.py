"""A working directory: whose results it holds, where no file can be locked, and trials that somebody deletes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil

import pytest

from rml_commands.run import run_search
from rml_search.errors import AllTrialsFailedError, EngineFailedError, StudyError, WriteError
from rml_search.folder import mark, one_of_several_in, trials_in_place
from rml_search.options import PrunerName, RuntimeChoice, StudyChoice
from rml_search.plan import SearchPlan
from rml_search.results import read_list_acc
from rml_search.runtime.choice import ChosenRuntime


def test_results_are_marked_once(workspace):
    mark(workspace, "one")
    mark(workspace, "one")
    with pytest.raises(StudyError, match=r"another study: --fresh moves them to earlier/$"):
        mark(workspace, "other")
    assert workspace.study_mark.read_text() == "one\n"


def test_a_folder_without_locks_is_one_line(workspace, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    expected = pytest.raises(WriteError, match=r"cannot lock files in .* \(Function not implemented\)")
    with expected, one_of_several_in(workspace, "one", print):
        raise AssertionError("not locked")


def test_a_shared_lock_is_one_that_network_folders_have(workspace, monkeypatch):
    """There it needs a file that is open for reading (flock(2), NFS details)."""
    kinds = {}
    real = fcntl.flock

    def flock(file, kind: int) -> None:
        kinds[kind] = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        real(file, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with one_of_several_in(workspace, "one", print):
        assert kinds[fcntl.LOCK_SH | fcntl.LOCK_NB] in {os.O_RDONLY, os.O_RDWR}
        assert kinds[fcntl.LOCK_EX | fcntl.LOCK_NB] in {os.O_WRONLY, os.O_RDWR}


@pytest.fixture
def search(workspace, make_options, scripted, monkeypatch):
    """Runs a search of scripts; ``show`` is told what a person sees."""

    def run(*scripts, show=print, **changes):
        chosen = ChosenRuntime(scripted(*scripts), "a test")
        monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
        plan = SearchPlan(StudyChoice(pruner=PrunerName.NONE), writes_report=False)
        run_search(make_options(**changes), plan, workspace, RuntimeChoice(gpu=False), show)

    return run


def test_trials_that_are_deleted_meanwhile_are_one_line_and_the_search_goes_on(search, script, workspace):
    def delete(line):
        if "trial 1, epoch 1/9" in " ".join(line.split()):
            shutil.rmtree(workspace.trials)

    with pytest.raises(WriteError, match="trials was deleted while the search ran: leave it in its place, and run"):
        search(script([0.5]), script([0.6, 0.7], seconds=0.3), show=delete)
    assert [record.max_acc for record in read_list_acc(workspace) if not record.tried_again] == [0.5]
    assert workspace.best_checkpoint.is_file()
    search(script([0.8]))
    assert [record.max_acc for record in read_list_acc(workspace) if not record.tried_again] == [0.5, 0.8]


@pytest.mark.parametrize("kind", [EngineFailedError, AllTrialsFailedError, FileNotFoundError])
def test_what_has_another_cause_stays_as_it_is(workspace, kind):
    workspace.trials.mkdir()
    workspace.trial_layers(0).touch()
    with pytest.raises(kind, match="the cause"), trials_in_place(workspace):
        raise kind("the cause")


def test_the_file_of_one_trial_is_named(workspace):
    workspace.trials.mkdir()
    workspace.trial_layers(0).touch()
    with pytest.raises(WriteError, match=r"trials/0003/rmldnn\.log was deleted"), trials_in_place(workspace):
        workspace.trial(3).log.read_text()
