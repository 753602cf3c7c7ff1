"""Real drivers with the real engine on one study: in three folders on a server, in one folder with a journal."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from rml_search.paths import Workspace
from rml_search.results import best_record, read_list_acc
from rml_search.synthetic import write_synthetic_data

CHECKOUT = Path(__file__).resolve().parents[3]
NUM_TRIALS = 7


def make_folder(root: Path) -> Workspace:
    write_synthetic_data(root / "data", num_train=8, num_test=4, size=32, seed=0)
    convolution = {"filters": 4, "kernel_size": [3, 3], "padding": "same"}
    layers = [
        {"class_name": "InputLayer", "config": {"name": "data", "batch_input_shape": [None, None, None, 1]}},
        {"class_name": "Conv2D", "config": {"name": "a", "activation": "relu", **convolution}},
        {"class_name": "Conv2D", "config": {"name": "b", "activation": "sigmoid", **convolution, "filters": 1}},
    ]
    (root / "layers.json").write_text(json.dumps(layers))
    return Workspace(root)


def start(workspace: Workspace, name: str, *options: str) -> subprocess.Popen[bytes]:
    words = ["--num-trials", str(NUM_TRIALS), "--num-epochs", "3", "--optimizers", "adam,sgd", "--loss", "bce,dice"]
    words += ["--runtime", "local", "--no-gpu", "--image-size", "32", "32", "--batch-size", "4", "--seed", "3"]
    words += ["--pruner", "none", "--no-report", "--heartbeat", "1", *options]
    with (workspace.root / f"{name}.txt").open("wb") as output:
        return subprocess.Popen(
            [sys.executable, str(CHECKOUT / "rml_optimization.py"), *words],
            cwd=workspace.root,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def output(workspace: Workspace, name: str) -> str:
    return (workspace.root / f"{name}.txt").read_text()


def kill_at_work(driver: subprocess.Popen[bytes], workspace: Workspace, name: str) -> None:
    deadline = time.monotonic() + 120
    while ", epoch 1/3" not in output(workspace, name):
        assert time.monotonic() < deadline, output(workspace, name)
        assert driver.poll() is None, output(workspace, name)
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()


def check_same(workspaces: list[Workspace]) -> None:
    """All folders hold the same table and the same best model, which is the best trial's."""
    lists = {workspace.list_acc.read_text() for workspace in workspaces}
    assert len(lists) == 1
    records = read_list_acc(workspaces[0])
    counted = [record for record in records if not record.tried_again]
    assert [record.state.value for record in counted] == ["complete"] * NUM_TRIALS
    lost = [record for record in records if record.tried_again]
    assert len(lost) == 1
    tried = Counter((record.optimizer, record.loss, record.lr) for record in records)
    assert tried[(lost[0].optimizer, lost[0].loss, lost[0].lr)] == 2
    assert len(tried) == NUM_TRIALS
    best = best_record(records)
    for workspace in workspaces:
        digest = hashlib.sha256(workspace.best_checkpoint.read_bytes()).hexdigest()
        assert digest == best.checkpoint_sha256
        assert workspace.best_digest.read_text() == f"{digest}  best_model_file.pt\n"
        document = json.loads(workspace.best_config.read_text())["neural_network"]
        assert document["loss"]["function"].lower() == best.loss
        assert list(workspace.trials.glob("*/checkpoints/model_checkpoint_*")) == []


def table(text: str) -> str:
    return text[text.index("Number of finished trials") :]


@pytest.mark.database
@pytest.mark.slow
@pytest.mark.parametrize(("database", "place"), [("postgres", "folder"), ("mariadb", "bucket")])
def test_three_drivers_one_of_them_killed(database, place, request, tmp_path):
    server = request.getfixturevalue(database)
    bucket = request.getfixturevalue("bucket") if place == "bucket" else None
    artifacts = str(tmp_path / "shared") if bucket is None else f"s3://{bucket.name}/study"
    names = ["first", "second", "third"]
    workspaces = [make_folder(tmp_path / name) for name in names]
    shared = ["--storage", server.url, "--study-name", "three", "--artifacts", artifacts]
    drivers = [start(workspace, name, *shared) for workspace, name in zip(workspaces, names, strict=True)]
    kill_at_work(drivers[2], workspaces[2], "third")
    for driver, workspace, name in zip(drivers[:2], workspaces, names, strict=False):
        assert driver.wait(timeout=240) == 0, output(workspace, name)
    # The killed one comes again, and has nothing left to do.
    assert start(workspaces[2], "again", *shared).wait(timeout=120) == 0, output(workspaces[2], "again")
    check_same(workspaces)
    texts = [output(workspaces[0], "first"), output(workspaces[1], "second"), output(workspaces[2], "again")]
    assert len({table(text) for text in texts}) == 1
    assert sum(text.count("of a lost driver: retried first") for text in texts) == 1
    assert "geheim" not in "".join(texts)
    for workspace in workspaces:
        leaked = [path for path in workspace.root.rglob("*") if path.is_file() and b"geheim" in path.read_bytes()]
        assert leaked == []
    kept = list((tmp_path / "shared").iterdir()) if bucket is None else bucket.keys()
    assert len(kept) == 1, "only the best checkpoint is kept"


@pytest.mark.slow
def test_two_drivers_in_one_folder_one_of_them_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("RML_COLD", "1")  # each trial takes seconds, so that the others come while the first is at work
    workspace = make_folder(tmp_path / "both")
    shared = ["--storage", f"journal://{tmp_path}/study.journal"]
    first, second = start(workspace, "first", *shared), start(workspace, "second", *shared)
    kill_at_work(second, workspace, "second")
    alone = start(workspace, "alone")
    assert alone.wait(timeout=60) == 5
    assert "a search is running in" in output(workspace, "alone")
    other = start(workspace, "other", *shared, "--study-name", "other")
    assert other.wait(timeout=60) == 5
    assert "a search of another study is running in" in output(workspace, "other")
    third = start(workspace, "third", *shared)
    for driver, name in ((first, "first"), (third, "third")):
        assert driver.wait(timeout=240) == 0, output(workspace, name)
    check_same([workspace])
    assert table(output(workspace, "first")) == table(output(workspace, "third"))
