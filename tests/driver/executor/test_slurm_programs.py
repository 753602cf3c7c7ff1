"""What Slurm's programs are asked, and what is made of their answers; small scripts take their places here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rml_search.errors import OptionError, RuntimeUnavailableError
from rml_search.executor.options import SlurmOptions
from rml_search.executor.slurm import (
    ClusterSilentError,
    WorkerState,
    cancel_waiting,
    check_slurm,
    exit_code_of,
    log_of,
    submit,
    workers_at_work,
)
from rml_search.executor.submission import JobArray, forget, recall, remember
from rml_search.paths import Workspace

ARRAY = JobArray("77", 3, Path("slurm"))


def test_workers_are_those_of_the_array_alone(programs):
    programs(squeue="echo '76|0|RUNNING|None'; echo '77|0|RUNNING|None'; echo '77|12|PENDING|Resources|x'")
    assert workers_at_work(ARRAY) == [WorkerState(0, "RUNNING", "None"), WorkerState(12, "PENDING", "Resources|x")]
    programs(squeue="echo '77|N/A|COMPLETING|None'")
    assert workers_at_work(ARRAY) == [WorkerState(0, "COMPLETING", "None")]
    programs(squeue="true")
    assert workers_at_work(ARRAY) == []


def test_a_silent_controller_is_not_the_end_of_a_job(programs):
    programs(squeue="echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ClusterSilentError, match="squeue fails: slurm_load_jobs error: Unable to contact"):
        workers_at_work(ARRAY)


def test_cancelling(programs):
    programs(scancel="true")
    cancel_waiting(ARRAY)
    assert programs.asked("scancel") == ["--state=PENDING", "77"]


def test_what_sbatch_is_told(programs, workspace):
    programs(sbatch="echo Submitted batch job 77", srun="true")
    options = SlurmOptions(32, "gpu", "a100:1", 8, "32G", 720, "lab", {"qos": "high", "exclusive": True})
    array = submit(["python", "rml_optimization.py"], options, workspace)
    assert array == JobArray("77", 32, workspace.cluster_jobs)
    script = (workspace.cluster_jobs / "77_submission.sh").read_text()
    told = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert told >= {
        "partition=gpu",
        "gpus-per-node=a100:1",
        "cpus-per-task=8",
        "mem=32G",
        "time=720",
        "account=lab",
        "qos=high",
        "exclusive",
        "requeue",
        "array=0-31%32",
        "signal=USR2@90",
    }
    assert not any(line.startswith("wckey") for line in told)
    # From Slurm 22.05 on a step does not get its job's cores unless told.
    assert "--cpus-per-task=8" in script.splitlines()[-1]
    assert len(list(workspace.cluster_jobs.glob("77_*_submitted.pkl"))) == 32
    assert log_of(array, 31) == workspace.cluster_jobs / "77_31_0_log.out"
    assert exit_code_of(array, 31) is None


def test_further_parameters_take_the_place_of_the_searchs_own(programs, workspace):
    programs(sbatch="echo Submitted batch job 77", srun="true")
    submit(["python"], SlurmOptions(further={"job-name": "of the night"}), workspace)
    script = (workspace.cluster_jobs / "77_submission.sh").read_text()
    assert [line for line in script.splitlines() if "job-name" in line] == ["#SBATCH --job-name='of the night'"]


def test_a_secret_travels_in_the_environment_and_no_file_beside_the_results_holds_it(programs, workspace, monkeypatch):
    programs(sbatch='echo "$RML_STORAGE" > "$0.heard"; echo Submitted batch job 79', srun="true")
    monkeypatch.delenv("RML_STORAGE", raising=False)
    submit(["python"], SlurmOptions(2), workspace, {"RML_STORAGE": "postgresql://me:geheim@host/studies"})
    assert programs.heard("sbatch") == "postgresql://me:geheim@host/studies\n"
    assert "RML_STORAGE" not in os.environ
    assert [path for path in workspace.cluster_jobs.iterdir() if b"geheim" in path.read_bytes()] == []


def test_one_worker_is_a_job_and_no_array(programs, workspace):
    programs(sbatch="echo Submitted batch job 78", srun="true")
    array = submit(["python"], SlurmOptions(minutes=2), workspace)
    script = (workspace.cluster_jobs / "78_submission.sh").read_text()
    assert "--array" not in script
    assert "--signal=USR2@30" in script  # a quarter of two minutes
    for left_out in ("partition", "gpus", "cpus", "mem", "account"):
        assert f"--{left_out}" not in script
    assert log_of(array, 0) == workspace.cluster_jobs / "78_0_log.out"


def test_sbatch_refuses_in_one_line_and_nothing_is_left(programs, workspace, capfd):
    words = (
        "sbatch: error: invalid partition specified: x\\nsbatch: error: Batch job submission failed: Invalid partition"
    )
    programs(sbatch=f"printf '{words}\\n' >&2; exit 1", srun="true")
    message = (
        "^Slurm does not take the job: invalid partition specified: x; Batch job submission failed: Invalid partition$"
    )
    with pytest.raises(RuntimeUnavailableError, match=message):
        submit(["python"], SlurmOptions(2, "x"), workspace)
    assert list(workspace.cluster_jobs.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_a_machine_without_slurm(programs, workspace):
    with pytest.raises(RuntimeUnavailableError, match=r"there is no sbatch here: .* login node") as caught:
        check_slurm(workspace)
    assert caught.value.exit_code == 69
    programs(sbatch="true", squeue="true", scancel="true", srun="true")
    check_slurm(workspace)


def test_a_folder_that_slurm_would_misread(programs, tmp_path):
    programs(sbatch="true", squeue="true", scancel="true", srun="true")
    with pytest.raises(OptionError, match="100%"):
        check_slurm(Workspace(tmp_path / "100%"))


def test_a_submission_is_remembered_until_it_is_forgotten(workspace):
    workspace.cluster_jobs.mkdir()
    assert recall(workspace) is None
    array = JobArray("77", 3, workspace.cluster_jobs)
    remember(array, workspace)
    assert recall(workspace) == array
    forget(workspace)
    assert recall(workspace) is None
    for broken in ("", "[]", '{"job_id": "1"}', '{"job_id": "1", "num_workers": "many"}'):
        workspace.cluster_submission.write_text(broken)
        assert recall(workspace) is None
