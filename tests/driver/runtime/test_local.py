"""The built-in engine as a process: a real training of a moment."""

from __future__ import annotations

import json
import subprocess

import pytest

from rml_search.hyperparameters import Hyperparameters
from rml_search.network_file import check_network_file
from rml_search.results import TrialState
from rml_search.runtime import local
from rml_search.study import Suggestion
from rml_search.trial import TrialRunner

#: Modules of Python, of a library and of the engine that a person's files may be named like.
SHADOWS = ("random", "json", "runpy", "typing", "torch", "numpy", "rmldnn_torch", "rmldnn_contract")


@pytest.fixture
def crowded(workspace):
    """A working directory with a module for each of those names, which must not be imported."""
    for name in SHADOWS:
        (workspace.root / f"{name}.py").write_text(f"raise SystemExit('the {name}.py of the person was imported')\n")
    return workspace


def write_network(workspace, *, filters, activation):
    config = {"name": "a", "filters": filters, "kernel_size": [1, 1], "activation": activation}
    config["batch_input_shape"] = [None, 8, 8, 1]
    workspace.trials.mkdir(exist_ok=True)
    workspace.trial_layers(0).write_text(json.dumps([{"class_name": "Conv2D", "config": config}]))


def train(workspace, make_options, loss):
    network = check_network_file(workspace.trial_layers(0))
    options = make_options(num_epochs=1, image_size=(8, 8), networks=(network,))
    runtime = local.LocalRuntime(workspace, gpu=False)
    suggestion = Suggestion(0, Hyperparameters("adam", loss, 0.01))
    return TrialRunner(options, workspace, runtime).run(suggestion, lambda epoch: None)


def test_modules_in_the_working_directory_are_not_imported(crowded, make_options):
    write_network(crowded, filters=1, activation="sigmoid")
    result = train(crowded, make_options, "bce")
    assert (result.state, result.reason) == (TrialState.COMPLETE, None)


@pytest.mark.parametrize("activation", ["softmax", "log_softmax"])
def test_a_network_that_ends_in_a_softmax_trains_with_nll(workspace, make_options, activation):
    write_network(workspace, filters=2, activation=activation)
    result = train(workspace, make_options, "nll")
    assert (result.state, result.reason) == (TrialState.COMPLETE, None)


def test_other_modules_of_the_engine_are_found_too(crowded):
    builder = [*local.engine_module("rmldnn_torch.architectures"), "small_unet", "new.json", "--size", "32", "32"]
    answer = subprocess.run(builder, cwd=crowded.root, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert check_network_file(crowded.root / "new.json").output_activation == "sigmoid"


def test_torch_is_asked_for_a_gpu_and_not_a_file_of_that_name(workspace, monkeypatch):
    (workspace.root / "torch.py").write_text("import types\ncuda = types.SimpleNamespace(is_available=lambda: True)\n")
    monkeypatch.chdir(workspace.root)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local._torch_sees_a_gpu() is False
