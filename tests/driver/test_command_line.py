"""The command line as a person types it: help, errors and exit codes, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
NEEDED = ["-nt", "2", "-ne", "1", "-o", "adam", "-l", "bce"]


@pytest.fixture
def type_in(workspace, tmp_path):
    """Types a command in the working directory of a search; no Docker engine answers."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(CHECKOUT / "rml_optimization.py"), *arguments],
            cwd=workspace.root,
            env={**os.environ, "COLUMNS": "80", "DOCKER_HOST": f"unix://{tmp_path}/no.sock", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_help_names_every_option_and_verb_in_80_columns(type_in):
    answer = type_in("--help")
    assert answer.returncode == 0
    options = """--num-epochs -ne --num-trials -nt --docker-image -docker --singularity-image -singularity
        --gpu --no-gpu --num_procs --num-procs --optimizers -o --loss -l --layers
        --lr-range-min -lr-min --lr-range-max -lr-max
        --lr-scheduler --no-lr-scheduler --lr-scheduler-gamma -lr-gamma --transfer-learning -tl --runtime --data
        --batch-size --test-batch-size --image-size --seed --executor --workers --no-wait
        --slurm-partition --slurm-gpus --slurm-cpus --slurm-memory --slurm-time --slurm-account --slurm-option
        --install-completion --show-completion --report --no-report --tensorboard --mlflow
        --plain --quiet -q --json infer best status report prepare demo doctor"""
    for option in options.split():
        assert option in answer.stdout, option
    assert max(map(len, answer.stdout.splitlines())) <= 80
    for default in ("rocketml/rmldnn:latest", "./layers.json", "0.001", "0.01", "0.95", "auto", "./data", "256 256"):
        assert f"[default: {default}" in " ".join(answer.stdout.split()), default


@pytest.mark.parametrize("verb", ["infer", "best", "status", "report", "prepare", "demo", "doctor"])
def test_verbs_have_help(type_in, verb):
    answer = type_in(verb, "--help")
    assert answer.returncode == 0
    assert verb in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ([], "--num-trials is missing", 2),
        (["-nt", "2", "-ne", "1", "-o", "adam"], "--loss is missing", 2),
        (["-nt", "0", "-ne", "1", "-o", "adam", "-l", "bce"], "--num-trials must be at least 1", 2),
        ([*NEEDED[:4], "-o", "adma", "-l", "bce"], "did you mean 'Adam'", 2),
        ([*NEEDED[:6], "-l", "bcc"], "did you mean 'BCE'", 2),
        ([*NEEDED, "-lr-min", "0.1"], "--lr-range-min (0.1) is above", 2),
        ([*NEEDED, "--layers", "nowhere.json"], "there is no network file nowhere.json", 66),
        ([*NEEDED, "-tl", "nowhere.h5"], "there is no file nowhere.h5", 67),
        ([*NEEDED, "--data", "nowhere"], "nowhere", 65),
        ([*NEEDED, "--docker-image", "mine:latest"], "no Docker engine responds", 69),
        ([*NEEDED, "--singularity-image", "no.sif"], "singularity", 69),
        ([*NEEDED, "--gpu"], "--gpu was given", 69),
        ([*NEEDED, "--workers", "2"], "need --executor slurm", 2),
        ([*NEEDED, "--executor", "slurm", "--slurm-time", "soon"], "--slurm-time must be a time", 2),
        (["best"], "run a search in this folder first", 4),
        (["report"], "run a search in this folder first", 4),
        (["status"], "there is no study.db, so no search has been started in this folder", 4),
        (["status", "data"], "there is no data/study.db, so no search has been started in this folder", 4),
        (["status", "data", "--storage", "a.journal"], "give a folder or --storage, not both", 2),
        (["status", "--storage", "a.journal"], "there is no file a.journal: no search has been started there", 4),
        (["status", "--study-name", "a"], "--study-name needs --storage", 2),
        ([*NEEDED, "--plain", "--json"], "--plain and --json cannot be combined", 2),
        (["--json", "status"], "--json comes before status: put it after", 2),
        (["infer"], "run a search first", 67),
        (["prepare", "nowhere", "--out", "new"], "nowhere", 65),
        (["prepare", "data", "--split", "split.csv", "--seed", "0"], "leave out --test-fraction and --seed", 2),
        (["prepare", "data", "--out", "data/new"], "is inside data", 65),
        (["-nt", "many"], "--num-trials", 2),
        (["--docker-image", "mine", "infer"], "--docker-image comes before infer: put it after", 2),
        (["--frobnicate"], "--frobnicate", 2),
        ([*NEEDED, "--image-size", "100000", "4"], "--image-size must be at most 16384", 2),
        ([*NEEDED, "--num-procs", "99999"], "--num-procs must be at most 1024", 2),
        ([*NEEDED, "--layers", "data"], "data is not a file", 66),
        ([*NEEDED, "--tensorboard", "layers.json"], "layers.json is not a folder", 2),
        ([*NEEDED, "--mlflow", "mlruns"], "is not http://HOST:PORT or a database", 2),
        ([*NEEDED, "-l", "bce,nll"], "the loss nll needs a network that ends in softmax", 2),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(type_in, workspace, arguments, message, code):
    before = sorted(path.name for path in workspace.root.iterdir())
    answer = type_in(*arguments, PATH="")
    assert answer.returncode == code
    assert message in answer.stderr
    assert answer.stderr.startswith("Error: ")
    assert answer.stderr.count("\n") == 1
    assert sorted(path.name for path in workspace.root.iterdir()) == before


def test_a_mistake_leaves_earlier_results_where_they_are(type_in, workspace):
    workspace.best_model.mkdir()
    workspace.list_acc.write_text("[]")
    assert type_in(*NEEDED, "--data", "nowhere").returncode == 65
    assert type_in(*NEEDED, "--docker-image", "mine").returncode == 69
    assert workspace.best_model.exists()
    assert workspace.list_acc.read_text() == "[]"


def test_an_unknown_verb_is_answered_with_the_nearest(type_in):
    answer = type_in("infr")
    assert answer.returncode == 2
    assert "'infer'" in answer.stderr


def test_best_shows_the_table_of_an_old_list(type_in, workspace):
    entries = [
        {"max_acc": 0.88, "optimizer": "adam", "lr": 0.00143, "loss": "dice", "epoch_max_acc": 30},
        {"max_acc": 0.904, "optimizer": "adam", "lr": 0.000997, "loss": "bce", "epoch_max_acc": 43},
    ]
    workspace.list_acc.write_text(json.dumps(entries))
    answer = type_in("best")
    assert answer.returncode == 0
    assert "Number of finished trials: 2\n" in answer.stdout
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in answer.stdout.splitlines()]
    assert ["Accuracy (Dice)", "0.904"] in cells
    assert ["Learning rate", "0.000997"] in cells
    assert ["Epoch", "43"] in cells


def test_a_folder_that_may_not_be_written_is_one_line(type_in, workspace):
    # Root may write anywhere, so that a folder takes the place of the lock's file.
    workspace.lock.mkdir()
    answer = type_in(*NEEDED, "--runtime", "local")
    assert answer.returncode == 73
    assert answer.stderr.startswith("Error: cannot write in ")


def test_a_current_folder_that_is_gone_is_one_line(type_in, workspace, tmp_path):
    code = "import os, runpy, sys; os.rmdir(os.getcwd()); del sys.argv[0]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    gone = tmp_path / "gone"
    gone.mkdir()
    program = str(CHECKOUT / "rml_optimization.py")
    command = [sys.executable, "-c", code, program, "best"]
    answer = subprocess.run(command, cwd=gone, capture_output=True, text=True, check=False)
    assert answer.returncode != 0
    assert answer.stderr.startswith("Error: ")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_while_data_are_made_is_one_line(tmp_path, number, code, name):
    # So many images that the signal comes before they are made, on however busy a machine.
    program = (
        "import rml_search.demo as demo; demo.NUM_TRAIN = 100_000; import rml_optimization; rml_optimization.main()"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); {program}", "demo"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "Generating synthetic" in process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors == f"Stopped by {name}; finished work is kept\n"
    assert list(tmp_path.glob("demo/*")) == []  # hidden files included


def test_version(type_in):
    answer = type_in("--version")
    assert (answer.returncode, answer.stdout.split()[0]) == (0, "rml-optimization")
