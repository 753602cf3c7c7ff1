"""The doctor: what it finds, what it advises, and whether a search could run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rml_search.dataset import list_images
from rml_search.devices import describe_gpus, find_gpus
from rml_search.doctor import Diagnosis, Finding, Plan, examine
from rml_search.engine_facts import ask_network, ask_torch
from rml_search.errors import DataSetError, NetworkFileError, RuntimeUnavailableError
from rml_search.mask_values import survey_masks
from rml_search.plain_output import doctor_table

PROGRAM = Path(__file__).resolve().parents[2] / "rml_optimization.py"

#: 3 channels in, 2 out, one pixel wide: 3 * 2 weights and 2 biases. The layer and its activation are two operations,
#: the input that is added a third.
CONVOLUTION = [
    {
        "class_name": "Conv2D",
        "config": {
            "name": "a",
            "filters": 2,
            "kernel_size": [1, 1],
            "activation": "sigmoid",
            "batch_input_shape": [None, None, None, 3],
        },
    }
]


@pytest.fixture
def plan(workspace):
    (workspace.root / "layers.json").write_text(json.dumps(CONVOLUTION))
    return Plan(workspace.root / "data", workspace.root / "layers.json", image_size=(64, 64), batch_size=100)


@pytest.fixture
def _bare_machine(monkeypatch):
    """No Docker, Singularity or GPU; PyTorch as it is."""

    def no_engine():
        raise RuntimeUnavailableError("no Docker engine responds: start it, or use --runtime local")

    monkeypatch.setattr("rml_search.runtime.docker.connect", no_engine)
    monkeypatch.setattr(shutil, "which", lambda _: None)


def found(diagnosis, name):
    (finding,) = [finding for finding in diagnosis.findings if finding.name == name]
    return finding


def write_masks(workspace, *arrays):
    folder = workspace.root / "data" / "train" / "targets"
    for number, values in enumerate(arrays):
        Image.fromarray(np.array(values, np.uint8)).save(folder / f"image {number}.png")


@pytest.mark.usefixtures("_bare_machine")
def test_a_search_that_can_run(workspace, plan):
    write_masks(workspace, [[0, 255]], [[0, 0]])
    diagnosis = examine(workspace, plan)
    assert diagnosis.obstacle is None
    assert diagnosis.runtimes == ["--runtime local"]
    assert not found(diagnosis, "Docker").is_there
    assert not found(diagnosis, "GPU").is_there
    assert "2 images (8x8; L), each with its mask (values 0, 255; 1 of 2 checked are empty)" in str(
        found(diagnosis, "Data, train").detail
    )
    assert "are these the masks?" in found(diagnosis, "Data, test").advice
    assert (
        "3 operations, 8 parameters; a batch of 100 at 64 x 64 needs about 0.5 GB" in found(diagnosis, "Network").detail
    )


@pytest.mark.usefixtures("_bare_machine")
def test_without_any_runtime(workspace, plan, monkeypatch):
    monkeypatch.setattr("rml_search.runtime.local.engine_is_installed", lambda: False)
    diagnosis = examine(workspace, plan)
    assert isinstance(diagnosis.obstacle, RuntimeUnavailableError)
    assert "pip install '.[engine]'" in found(diagnosis, "Built-in engine").advice
    assert found(diagnosis, "Network").detail.endswith("images of 3 channels")
    assert "A search cannot run yet." in doctor_table(diagnosis)


@pytest.mark.usefixtures("_bare_machine")
def test_data_that_do_not_pair(workspace, plan):
    (workspace.root / "data/train/targets/image 1.png").unlink()
    diagnosis = examine(workspace, plan)
    assert isinstance(diagnosis.obstacle, DataSetError)
    assert "2 inputs but 1 targets" in found(diagnosis, "Data, train").detail
    assert found(diagnosis, "Data, test").is_there


@pytest.mark.usefixtures("_bare_machine")
def test_images_that_the_network_cannot_take(workspace, plan):
    narrow = [{**CONVOLUTION[0], "config": {**CONVOLUTION[0]["config"], "kernel_size": [9, 9], "padding": "valid"}}]
    plan.layers.write_text(json.dumps(narrow))
    obstacle = examine(workspace, replace(plan, image_size=(4, 4))).obstacle
    assert isinstance(obstacle, NetworkFileError)
    assert "layer 'a'" in str(obstacle)


def test_docker_without_the_right_image(workspace, plan, monkeypatch):
    class Engine:
        def version(self):
            return {"Version": "99.1"}

        def info(self):
            return {"Runtimes": {"runc": {}, "nvidia": {}}}

    monkeypatch.setattr("rml_search.runtime.docker.connect", Engine)
    monkeypatch.setattr("rml_search.runtime.docker.holds_image", lambda image: image == "ours")
    diagnosis = examine(workspace, replace(plan, docker_image="ours"))
    assert "99.1" in found(diagnosis, "Docker").detail
    assert found(diagnosis, "NVIDIA runtime").is_there
    assert "--docker-image ours" in diagnosis.runtimes
    missing = examine(workspace, replace(plan, docker_image="theirs"))
    assert found(missing, "Docker image").advice.startswith("docker pull theirs")
    assert missing.runtimes == ["--runtime local"]


def test_the_first_obstacle_counts():
    data, network = DataSetError("no data"), NetworkFileError("no network")
    works = Finding("Built-in engine", True, "", runs="--runtime local")
    broken = (Finding("Data", False, "", error=data), Finding("Network", False, "", error=network))
    assert Diagnosis((works, *broken)).obstacle is data
    assert Diagnosis((works,)).obstacle is None
    assert isinstance(Diagnosis(broken).obstacle, RuntimeUnavailableError)


def test_gpus_and_their_memory(tmp_path, monkeypatch):
    """A stand-in for nvidia-smi prints what the real one does for each query."""
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        "case $1 in\n"
        "*=name) echo 'NVIDIA H200';;\n"
        "*) echo '0, NVIDIA H200, 143771 MiB, 143000 MiB';;\n"
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert find_gpus() == ("NVIDIA H200",)
    assert describe_gpus() == ("0: NVIDIA H200, 143771 MiB, 143000 MiB free",)


@pytest.mark.parametrize(
    ("free", "is_too_much"),
    [(["100 MiB", "500 MiB"], True), (["100 MiB", "143000 MiB"], False), (["[N/A]"], False)],
    ids=["little", "much", "shared"],
)
def test_a_batch_that_no_gpu_has_room_for(workspace, plan, tmp_path, monkeypatch, free, is_too_much):
    """A training needs 500 MB of itself, which 500 MiB hold, and more with 1000 images at a time."""
    gpus = "; ".join(f"echo '{number}, {memory}'" for number, memory in enumerate(free))
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\ncase $1 in\n*=index,memory.free) {gpus};;\n*) echo '0, NVIDIA H200, 143771 MiB, 100 MiB';;\nesac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for batch_size, is_told in ((1, False), (1000, is_too_much)):
        network = examine(workspace, replace(plan, image_size=(64, 64), batch_size=batch_size)).findings[-1]
        advice = "more than is free on any GPU: use a smaller --batch-size, --image-size or network"
        assert network.advice == (advice if is_told else None)


def test_values_of_masks(workspace):
    write_masks(workspace, [[0, 1]], [range(0, 200, 40)])
    survey = survey_masks(list_images(workspace.root / "data/train/targets"))
    assert survey.values == (0, 1, 40, 80, 120, 160)
    assert str(survey) == "6 grey levels, 0 to 160; 0 of 2 checked are empty"


def test_some_of_many_masks_are_read(workspace):
    """Of five, three at even distances are the first, the middle and the last."""
    write_masks(workspace, [[1]], [[2]], [[3]], [[4]], [[5]])
    survey = survey_masks(list_images(workspace.root / "data/train/targets"), at_most=3)
    assert (survey.num_masks, survey.values) == (3, (1, 3, 5))


def test_memory_of_a_training_by_hand(plan):
    """Kept in float32 are the 3 channels of the input and the 2 after the sigmoid, of 100 images of 64 x 64."""
    one = ask_network(plan.layers, (64, 64), 1)
    many = ask_network(plan.layers, (64, 64), 101)
    assert (many.num_operations, many.num_parameters, many.num_trainable) == (3, 8, 8)
    assert many.training_bytes - one.training_bytes == 100 * 64 * 64 * (3 + 2) * 4


def test_torch_is_asked_in_another_process():
    from importlib.metadata import version

    assert ask_torch().version.split("+")[0] == version("torch").split("+")[0]


@pytest.mark.parametrize("is_complete", [True, False])
def test_one_screen(workspace, plan, monkeypatch, is_complete):
    """All answers fit 80 columns and 30 lines, where all is as it should be and where nothing is."""
    monkeypatch.chdir(workspace.root)
    if not is_complete:
        shutil.rmtree(workspace.root / "data")
        plan.layers.unlink()
    diagnosis = examine(workspace, replace(plan, data=Path("data"), layers=Path("layers.json")))
    lines = doctor_table(diagnosis).splitlines()
    assert max(map(len, lines)) < 80
    assert len(lines) <= 30


def test_many_runtimes_fit_the_screen_and_each_stays_whole():
    runtimes = ["--runtime local", "--docker-image rocketml/rmldnn:latest", "--docker-image rmldnn-torch:latest"]
    findings = tuple(Finding("something", True, "there", runs=runtime) for runtime in runtimes)
    lines = doctor_table(Diagnosis(findings)).splitlines()
    assert max(map(len, lines)) < 80
    for runtime in runtimes:
        assert any(runtime in line for line in lines)


@pytest.mark.parametrize("has_data", [True, False])
def test_exit_code(workspace, plan, has_data):
    if not has_data:
        shutil.rmtree(workspace.root / "data")
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), "doctor", "--image-size", "8", "8"],
        cwd=workspace.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == (0 if has_data else 65)
    assert ("A search can run with: " in ended.stdout) is has_data
    assert ended.stderr.count("\n") == (0 if has_data else 1)
