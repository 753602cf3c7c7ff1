"""What the submitting command does with the study and the folder, where scripts take the places of Slurm's programs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from submitit.core.utils import DelayedSubmission

from rml_commands.cluster import ClusterSearch, search_on_cluster
from rml_report.page import read_summary
from rml_search.display import PlainDisplay
from rml_search.errors import NoResultsError, OptionError, RuntimeUnavailableError, StudyError, WorkspaceInUseError
from rml_search.executor.options import SlurmOptions
from rml_search.executor.submission import JobArray, recall
from rml_search.interruption import Interrupted, interruptible
from rml_search.lock import only_search_in
from rml_search.options import ConfirmOptions, JobChoice, RuntimeChoice, RuntimeName, SharedChoice, StudyChoice
from rml_search.paths import SHARED_JOURNAL
from rml_search.plan import SearchPlan
from rml_search.report.summary import State
from rml_shared.study import SharedStudy, open_shared_study
from rmldnn_contract.training_log import EpochRecord

LOCAL = RuntimeChoice(RuntimeName.LOCAL)
ON_SLURM = SearchPlan(shared=SharedChoice(SHARED_JOURNAL), slurm=SlurmOptions(2, waits=False), writes_report=False)
REFUSED = "echo 'sbatch: error: no such partition' >&2; exit 1"


@pytest.fixture
def search(workspace, make_options, programs, monkeypatch) -> Callable[..., list[str]]:
    """Types the command in the folder of the search; what it shows."""
    monkeypatch.chdir(workspace.root)
    monkeypatch.delenv("RML_STORAGE", raising=False)
    programs(sbatch="echo Submitted batch job 77", srun="true", squeue="true", scancel="true")

    def type_in(plan: SearchPlan = ON_SLURM, arguments: tuple[str, ...] = ("--seed", "5"), **changes) -> list[str]:
        told = type_in.told = []
        options = make_options(**changes)
        search_on_cluster(ClusterSearch(options, plan, workspace, arguments), None, LOCAL, PlainDisplay(told.append))
        return told

    return type_in


@pytest.fixture
def journal(workspace, make_options, search) -> Callable[[], SharedStudy]:
    """Joins the study of the workers as one of them."""
    opened = []

    def join() -> SharedStudy:
        opened.append(open_shared_study(workspace, make_options(), ON_SLURM, ON_SLURM.shared, print))
        return opened[-1]

    yield join
    for study in opened:
        study.close()


def commands(workspace) -> list[list[str]]:
    """What the workers of job 77 are to run."""
    found = sorted(workspace.cluster_jobs.glob("77_*_submitted.pkl"))
    return [DelayedSubmission.load(path).function.command for path in found]


def test_the_workers_join_the_study_that_the_command_has_begun(search, journal, workspace):
    plan = replace(ON_SLURM, study=StudyChoice(enqueued=('{"optimizer": "sgd"}',)))
    told = search(plan, ("--seed", "5", "--executor", "slurm", "--enqueue", '{"optimizer": "sgd"}', "--workers=2"))
    assert told[0] == "Study rml-optimization in trials/study.journal: 0 trials have ended, 0 run elsewhere"
    assert told[-2:] == [
        "Job 77 is submitted: 2 workers, logs in slurm/77_*_log.out",
        "The same command without --no-wait follows it, scancel 77 ends it",
    ]
    assert recall(workspace) == JobArray("77", 2, workspace.cluster_jobs)
    first, second = commands(workspace)
    assert first == second
    assert Path(first[2]) == Path(__file__).resolve().parents[3] / "rml_optimization.py"
    assert Path(first[2]).is_file()
    assert first[3:] == ["--seed", "5", "--storage=trials/study.journal", "--no-report"]
    study = journal()
    assert workspace.study_mark.read_text() == f"{study.identity}\n"
    assert study.ask().hyperparameters.optimizer == "sgd"


def test_the_same_command_goes_on_with_the_study(search, journal, workspace):
    search()
    identity = journal().identity
    search()
    assert journal().identity == identity
    assert not (workspace.root / "earlier").exists()
    with pytest.raises(StudyError, match=r"--num-epochs.*: give the same options, or --fresh$"):
        search(num_epochs=9)
    with pytest.raises(StudyError, match=r"are of another study: --fresh moves them to earlier/$"):
        search(replace(ON_SLURM, shared=SharedChoice(SHARED_JOURNAL, "other")))
    assert workspace.study_mark.read_text() == f"{identity}\n"


def test_the_report_reads_the_study_of_the_workers(search, journal, workspace):
    search()
    with pytest.raises(NoResultsError):
        read_summary(workspace)
    study = journal()
    suggestion = study.ask()
    study.report(suggestion.number, EpochRecord(1, 3, test_loss=0.5, accuracy=0.25))
    (trial,) = read_summary(workspace).trials
    assert trial.state is State.RUNNING
    assert trial.accuracies == ((1, 0.25),)
    assert trial.hyperparameters == suggestion.hyperparameters.point


def test_results_of_another_search_move_aside_and_back_where_slurm_refuses_the_job(search, programs, workspace):
    workspace.trials.mkdir()
    workspace.list_acc.write_text("of another search")
    programs(sbatch=REFUSED)
    with pytest.raises(RuntimeUnavailableError, match="no such partition"):
        search()
    assert workspace.list_acc.read_text() == "of another search"
    assert not workspace.shared_journal.exists()
    programs(sbatch="echo Submitted batch job 77")
    told = search()
    assert told[0].startswith("The results of an earlier search were moved to earlier/")
    assert not workspace.list_acc.exists()
    assert workspace.shared_journal.exists()


def test_a_job_that_cannot_be_written_down_is_cancelled(search, programs, workspace, monkeypatch):
    def refuse(array, workspace):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rml_commands.cluster.remember", refuse)
    with pytest.raises(OSError, match="No space left"):
        search()
    assert programs.asked("scancel") == ["77"]


def test_no_more_workers_are_submitted_than_trials_are_left(search, workspace):
    plan = replace(ON_SLURM, slurm=SlurmOptions(32, waits=False))
    assert "Trials left to run: 5, for which 5 workers will do" in search(plan, num_trials=5)
    assert recall(workspace).num_workers == 5
    plan = replace(plan, jobs=JobChoice(2))
    assert "Trials left to run: 5, for which 3 workers will do" in search(plan, num_trials=5)
    assert not any("will do" in line for line in search(num_trials=5))


def test_a_signal_while_the_workers_are_submitted_undoes_nothing(search, programs, workspace):
    """The command runs in this process, so a script sends it the signal."""
    workspace.trials.mkdir()
    workspace.list_acc.write_text("of another search")
    programs(sbatch=f"kill -INT {os.getpid()}; sleep 0.2; echo Submitted batch job 77")
    with pytest.raises(Interrupted), interruptible():
        search()
    assert search.told[-2].startswith("Job 77 goes on without this command")
    assert recall(workspace).job_id == "77"
    assert workspace.shared_journal.exists()
    assert not workspace.list_acc.exists()


def test_a_network_among_the_results_that_would_move_aside_is_refused(search, workspace):
    search()
    network = workspace.trials / "own.json"
    network.write_text((workspace.root / "layers.json").read_text())
    with pytest.raises(OptionError, match="is among the results"):
        search(replace(ON_SLURM, study=StudyChoice(is_fresh=True)), layers=(network,))
    assert network.exists()


def test_fresh_begins_another_study(search, journal, workspace):
    search()
    identity = journal().identity
    search(replace(ON_SLURM, study=StudyChoice(is_fresh=True)))
    assert journal().identity != identity
    (earlier,) = workspace.root.glob("earlier/*/trials/study.txt")
    assert earlier.read_text() == f"{identity}\n"


def test_a_command_that_was_killed_before_it_marked_the_folder_leaves_nothing_that_is_in_the_way(search, workspace):
    search()
    workspace.study_mark.unlink()
    assert any("were moved to earlier/" in line for line in search())
    assert workspace.study_mark.exists()


def test_workers_at_work_are_followed_and_nobody_starts_over_meanwhile(search, programs, workspace):
    search()
    programs(squeue="echo '77|0|RUNNING|None'", sbatch="echo Submitted batch job 78")
    assert search()[0] == "Job 77 works on this search already"
    with pytest.raises(WorkspaceInUseError, match="job 77 works on the search in this folder: end it with scancel 77"):
        search(replace(ON_SLURM, study=StudyChoice(is_fresh=True)))
    with pytest.raises(StudyError, match="--num-epochs"):
        search(num_epochs=9)
    assert recall(workspace).job_id == "77"


def test_a_search_at_work_in_the_folder_keeps_the_command_out(search, workspace):
    workspace.list_acc.write_text("of the other search")
    with only_search_in(workspace), pytest.raises(WorkspaceInUseError):
        search()
    assert workspace.list_acc.read_text() == "of the other search"


def test_no_password_is_left_beside_the_results(search, workspace):
    """The place cannot be reached, so this looks at the command alone."""
    from rml_commands.cluster import _command, _variables

    shared = SharedChoice("postgresql://me:geheim@host/studies")
    plan = replace(ON_SLURM, shared=shared)
    typed = ["--storage", shared.storage, "--seed", "5"]
    command = _command(ClusterSearch(None, plan, workspace, typed))
    assert command[3:] == ["--seed", "5", "--no-report"]
    assert _variables(shared) == {"RML_STORAGE": shared.storage}


def test_what_one_place_must_do_is_refused():
    with pytest.raises(OptionError, match="leave it out with --executor slurm"):
        replace(ON_SLURM, confirm=ConfirmOptions(2))
    with pytest.raises(OptionError, match="--fresh"):
        SearchPlan(StudyChoice(is_fresh=True), shared=SharedChoice("x.journal"), slurm=SlurmOptions())
