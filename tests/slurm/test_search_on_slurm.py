"""Searches whose workers are jobs of a real Slurm."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rml_search.best_model import file_digest
from rml_search.paths import Workspace
from rml_search.results import TrialRecord, best_record, read_list_acc
from rml_search.synthetic import write_synthetic_data

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).resolve().parents[2]
SEARCH = ["--optimizers", "adam,sgd", "--loss", "bce,dice", "--runtime", "local"]
SEARCH += ["--image-size", "32", "32", "--batch-size", "4", "--seed", "3", "--pruner", "none"]
#: What submitit prints whenever Slurm starts a job.
START = "Starting with JobEnvironment"
ON_SLURM = ["--executor", "slurm", "--slurm-cpus", "1", "--slurm-memory", "500M", "--slurm-time", "60"]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A small search in a folder whose name wants quoting."""
    root = tmp_path / "a 'search' in Zürich"
    root.mkdir()
    write_synthetic_data(root / "data", num_train=8, num_test=4, size=32, seed=0)
    convolution = {"filters": 4, "kernel_size": [3, 3], "padding": "same"}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "data", "batch_input_shape": [None, None, None, 1]}},
        {"class_name": "Conv2D", "config": {"name": "a", "activation": "relu", **convolution}},
        {"class_name": "Conv2D", "config": {"name": "b", "activation": "sigmoid", **convolution, "filters": 1}},
    ]
    (root / "layers.json").write_text(json.dumps(layers))
    return Workspace(root)


@pytest.fixture
def type_in(workspace: Workspace, slurm: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command of ours; a test that fails leaves neither it nor its jobs behind."""
    started: list[subprocess.Popen[str]] = []

    def start(num_trials: int, num_epochs: int, *arguments: str) -> subprocess.Popen[str]:
        program = [sys.executable, "-u", str(CHECKOUT / "rml_optimization.py")]
        numbers = ["--num-trials", str(num_trials), "--num-epochs", str(num_epochs)]
        process = subprocess.Popen(
            [*program, *numbers, *SEARCH, *ON_SLURM, *arguments],
            cwd=workspace.root,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()
    subprocess.run(["scancel", "--name=rml-optimization"], check=True)
    wait_for(lambda: squeue() == [])


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == code, output
    return output


def wait_for(condition: Callable[[], object], seconds: float = 180) -> object:
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return answer


def read_until(process: subprocess.Popen[str], words: str) -> str:
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    raise AssertionError(f"no {words!r} in {seen!r}")


def squeue(*states: str) -> list[str]:
    """The jobs that wait or run, by Slurm's own word."""
    told = subprocess.run(
        ["squeue", "--array", "--noheader", "--format=%i", *(f"--states={state}" for state in states)],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.split()


def logs(workspace: Workspace) -> str:
    return "".join(path.read_text() for path in sorted(workspace.cluster_jobs.glob("*_log.out")))


def processes_in(workspace: Workspace) -> list[tuple[int, str]]:
    """What works in the folder: numbers and command lines, as proc(5) tells them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == workspace.root:
                found.append((int(process.name), (process / "cmdline").read_text().replace("\0", " ")))
    return found


def check_results(workspace: Workspace, num_trials: int) -> list[TrialRecord]:
    """All trials are there, every one trained to its end, and the best model is that of the best one."""
    records = read_list_acc(workspace)
    counted = [record for record in records if not record.tried_again]
    assert [record.state.value for record in counted] == ["complete"] * num_trials
    assert len({record.number for record in records}) == len(records)
    best = best_record(records)
    assert best is not None
    assert file_digest(workspace.best_checkpoint) == best.checkpoint_sha256
    return records


def test_two_workers_share_the_trials_and_the_tables_are_those_of_a_local_search(type_in, workspace):
    output = finish(type_in(6, 8, "--workers", "2"))
    job = re.search(r"Job (\d+) submitted: 2 workers, logs in slurm/\1_\*_log.out", output)
    assert job, output
    records = check_results(workspace, 6)
    both = [(workspace.cluster_jobs / f"{job[1]}_{index}_0_log.out").read_text() for index in range(2)]
    trained = [set(re.findall(r"^Trial (\d+) complete", log, flags=re.MULTILINE)) for log in both]
    assert trained[0]
    assert trained[1]
    assert sorted(map(int, trained[0] | trained[1])) == [record.number for record in records]
    assert not trained[0] & trained[1]
    for record in records:
        assert f"Trial {record.number} complete after" in output
    best = max(records, key=lambda record: record.max_acc)
    assert "Number of finished trials: 6\n" in output
    assert f"| Accuracy (Dice)        | {best.max_acc:.3f}" in output
    assert output.splitlines()[-2:] == [
        "The best model is in best_model, the history in list_acc.json",
        "The report is in report/report.html",
    ]
    # The same command once more has nothing to submit.
    output = finish(type_in(6, 8, "--workers", "2"))
    assert "All 6 trials have run" in output
    assert " submitted: " not in output
    assert f"| Accuracy (Dice)        | {best.max_acc:.3f}" in output


def kill_job(workspace: Workspace, command: subprocess.Popen[str]) -> None:
    """Kills all of a worker that Python runs, as a node that fails would; not the command that has submitted it."""
    for process, line in processes_in(workspace):
        if line.startswith(sys.executable) and process != command.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


#: In the place of Apptainer: an engine that learns nothing, and says which GPU it has.
APPTAINER = """
import json, os, pathlib, sys, time
verb, *options, image, program, config = sys.argv[1:]
folder = pathlib.Path(options[options.index("--bind") + 1].removesuffix(":/home/ubuntu"))
assert (verb, image, program) == ("exec", str(folder / "our image.sif"), "rmldnn"), sys.argv
assert "--nv" in options
document = json.loads((folder / config.removeprefix("--config=./")).read_text())["neural_network"]
print("GPU", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
time.sleep(0.5)
(folder / document["checkpoints"]["save"] / "model_checkpoint_1.pt").write_text(config)
print("[2022-Mar-24 21:44:12.182169] Eval  Epoch [  1/  1] : Batch [    1/    1] (Loss: 0.6603) | Accuracy: 0.750")
"""


def test_workers_with_containers_have_a_gpu_each(type_in, workspace, tmp_path, monkeypatch):
    """A stand-in of Apptainer's: with the real one a test of runtimes has to do."""
    (tmp_path / "bin").mkdir()
    for name, text in (
        ("apptainer", f"#!{sys.executable}\n{APPTAINER}"),
        ("nvidia-smi", "#!/bin/sh\nprintf 'NVIDIA H200\\nNVIDIA H200\\n'"),
    ):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (workspace.root / "our image.sif").touch()
    command = type_in(
        *(12, 1, "--workers", "2", "--slurm-gpus", "1", "--gpu"),
        *("--runtime", "singularity", "--singularity-image", "our image.sif"),
    )
    finish(command)
    records = check_results(workspace, 12)
    assert {record.max_acc for record in records} == {0.75}
    engines = [workspace.trial(record.number).log.read_text().splitlines()[0] for record in records]
    assert set(engines) == {"GPU 0", "GPU 1"}
    for number in range(2):
        (worker,) = workspace.cluster_jobs.glob(f"*_{number}_0_log.out")
        trials = [int(trial) for trial in re.findall(r"^Trial (\d+) complete", worker.read_text(), flags=re.MULTILINE)]
        assert len({engines[trial] for trial in trials}) == 1
        assert "| Device                  | NVIDIA H200" in worker.read_text()


def wait_for_run(workspace: Workspace, number: int) -> str:
    """Until a worker that was started so many times is at work on a trial; which trial that is."""

    def trial() -> str | None:
        runs = logs(workspace).split(START)
        found = re.search(r"trial (\d+), epoch +2/", runs[number]) if len(runs) == number + 1 else None
        return found and found[1]

    return wait_for(trial)


def test_a_requeued_worker_goes_on_and_its_running_trial_runs_again(type_in, workspace):
    """Told before its time is over as Slurm tells it, requeued by a person, and killed as by a node that fails."""
    process = type_in(1, 120)
    broken_off = [wait_for_run(workspace, 1)]
    (job,) = squeue("RUNNING")
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    broken_off.append(wait_for_run(workspace, 2))
    subprocess.run(["scontrol", "requeue", job], check=True)
    broken_off.append(wait_for_run(workspace, 3))
    kill_job(workspace, process)
    output = finish(process)
    assert logs(workspace).count(START) == 4
    assert broken_off == ["0", "1", "2"]
    records = check_results(workspace, 1)
    assert [record.tried_again for record in records] == [True, True, True, False]
    assert all(record.point == records[0].point for record in records)
    reasons = ["interrupted", "interrupted", "the search was killed while the trial was running"]
    assert [record.reason for record in records[:3]] == reasons
    for number, reason in enumerate(reasons):
        assert f"Trial {number} interrupted, to be retried: {reason}" in output


def test_the_job_goes_on_without_the_command_which_follows_it_when_it_is_typed_again(type_in, workspace):
    """Who has not waited, a terminal that is gone, and Ctrl-C, while the job waits for its time."""
    later = ["--slurm-option", "begin=now+1hour"]
    output = finish(type_in(1, 8, *later, "--no-wait"))
    (job,) = squeue("PENDING")
    assert f"Job {job} submitted: 1 worker" in output
    assert (
        output.splitlines()[-1] == f"To monitor it, run the same command without --no-wait; to cancel it, scancel {job}"
    )
    output = finish(type_in(1, 8, "--fresh"), code=5)
    assert f"Error: job {job} is working on the search in this folder" in output
    for number, name in ((signal.SIGHUP, "SIGHUP"), (signal.SIGINT, "Ctrl-C")):
        process = type_in(1, 8, *later)
        assert f"Job {job} is already working on this search" in read_until(
            process, f"Job {job}: 1 pending (BeginTime)"
        )
        process.send_signal(number)
        *_, follow, cancel, end = finish(process, code=128 + number).splitlines()
        assert follow == f"Job {job} continues to run. To monitor it, run the same command again;"
        assert cancel == f"to cancel it, scancel {job}. Finished trials are kept."
        assert end == f"Stopped by {name}; finished work is kept"
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
    assert " submitted: " not in finish(type_in(1, 8, *later))
    check_results(workspace, 1)


def test_a_cancelled_job_leaves_no_process_and_the_same_command_goes_on(type_in, workspace):
    process = type_in(1, 120)
    assert wait_for_run(workspace, 1) == "0"
    subprocess.run(["scancel", *squeue()], check=True)
    assert re.fullmatch(
        r"Error: the worker failed: stopped by SIGTERM; finished work is kept \(log: slurm/\d+_0_log.out\). "
        r"Run the same command again to resume",
        finish(process, code=143).splitlines()[-1],
    )
    wait_for(lambda: processes_in(workspace) == [])
    finish(type_in(1, 120))
    assert [record.tried_again for record in check_results(workspace, 1)] == [True, False]


def test_the_failure_of_all_workers_reaches_the_person(type_in, workspace):
    output = finish(type_in(2, 1, "--workers", "2", "--gpu"), code=69)
    assert re.fullmatch(
        r"Error: all 2 workers failed, the last one: --gpu was given, but nvidia-smi finds no GPU: "
        r"leave it out to use the CPU \(log: slurm/\d+_1_0_log.out\)",
        output.splitlines()[-1],
    )


def test_what_slurm_refuses_is_one_line_and_moves_nothing(type_in, workspace):
    workspace.list_acc.write_text("of an earlier search")
    output = finish(type_in(1, 1, "--fresh", "--slurm-partition", "nowhere"), code=69)
    assert output.splitlines()[-1].startswith("Error: Slurm rejected the job: invalid partition specified: nowhere")
    assert workspace.list_acc.read_text() == "of an earlier search"
