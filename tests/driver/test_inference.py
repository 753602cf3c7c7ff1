"""Inference: which model, on which runtime, and that earlier predictions are not lost."""

from __future__ import annotations

import json
import os
from datetime import datetime

import pytest

from rml_search.errors import CheckpointFileError, EngineFailedError, OptionError
from rml_search.inference import (
    choose_inference_config,
    move_predictions_aside,
    read_last_inference,
    run_inference,
)
from rmldnn_contract.exit_status import ConfigurationError

DOCUMENT = {
    "layers": "./layers.json",
    "checkpoints": {"load": "./best_model/best_model_file.pt"},
    "data": {
        "type": "images",
        "test_input_path": "./data/test/inputs/",
        "test_target_path": "./data/test/targets/",
        "test_output_path": "./predictions/",
    },
    "loss": {"function": "bce", "source": "sigmoid"},
}


def write_config(workspace, name="config_test.json", **changes):
    path = workspace.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"neural_network": {**DOCUMENT, **changes}}))
    return path


def test_loss_and_accuracy_are_those_of_the_last_batch(workspace, scripted, script):
    runtime = scripted(script([0.25]))
    config = write_config(workspace)
    (workspace.root / "predictions").mkdir()
    (workspace.root / "predictions" / "output_1.h5").touch()
    result = run_inference(config, workspace, runtime, num_procs=2)
    assert (result.loss, result.accuracy) == (0.6603, 0.25)
    assert result.predictions == (workspace.predictions / "output_1.h5",)
    assert runtime.runs[0].num_procs == 2
    assert runtime.documents[0]["data"] == DOCUMENT["data"]


def test_without_targets_there_is_no_accuracy(workspace, scripted, script):
    data = {"type": "images", "test_input_path": "./data/test/inputs/"}
    config = write_config(workspace, data=data, loss=None)
    result = run_inference(config, workspace, scripted(script()), num_procs=1)
    assert (result.loss, result.accuracy) == (None, None)


def test_predictions_go_to_predictions_where_the_document_names_no_folder(workspace, scripted, script):
    runtime = scripted(script([0.5]))
    config = write_config(workspace, data={"type": "images", "test_input_path": "./data/test/inputs/"})
    run_inference(config, workspace, runtime)
    assert runtime.documents[0]["data"]["test_output_path"] == "./predictions/"


def test_engines_message_and_exit_code_are_passed_on(workspace, scripted, script):
    runtime = scripted(script(code=67, words=["Error: best_model_file.pt is no checkpoint"]))
    with pytest.raises(EngineFailedError, match=r"^best_model_file.pt is no checkpoint$") as caught:
        run_inference(write_config(workspace), workspace, runtime)
    assert caught.value.exit_code == 67


def test_a_foreign_engines_end_is_told_with_its_last_words(workspace, scripted, script):
    runtime = scripted(script(code=139, words=["Segmentation fault"]))
    with pytest.raises(EngineFailedError, match="exit code 139: Segmentation fault") as caught:
        run_inference(write_config(workspace), workspace, runtime)
    assert caught.value.exit_code == 1


def test_a_document_that_trains_is_refused(workspace, scripted):
    data = {**DOCUMENT["data"], "input_path": "./data/train/inputs/"}
    config = write_config(workspace, data=data, optimizer={"type": "adam"})
    with pytest.raises(OptionError, match="trains"):
        run_inference(config, workspace, scripted())


def test_a_container_cannot_write_outside_the_working_directory(workspace, scripted, tmp_path):
    config = write_config(workspace, data={**DOCUMENT["data"], "test_output_path": str(tmp_path / "elsewhere")})
    with pytest.raises(OptionError, match="can only write below"):
        run_inference(config, workspace, scripted(in_container=True))


def test_a_broken_document_is_named(workspace, scripted):
    config = workspace.root / "config_test.json"
    config.write_text("{")
    with pytest.raises(ConfigurationError, match=r"config_test.json: not a JSON document"):
        run_inference(config, workspace, scripted())


def test_best_model_comes_before_the_tutorials_file(workspace):
    with pytest.raises(CheckpointFileError, match="run a search first"):
        choose_inference_config(workspace, None)
    tutorial = write_config(workspace)
    assert choose_inference_config(workspace, None) == tutorial
    best = write_config(workspace, "best_model/config_test.json")
    assert choose_inference_config(workspace, None) == best
    assert choose_inference_config(workspace, tutorial) == tutorial
    with pytest.raises(CheckpointFileError, match=r"there is no configuration .*other.json"):
        choose_inference_config(workspace, workspace.root / "other.json")


def test_a_document_without_a_checkpoint_is_refused(workspace, scripted):
    config = write_config(workspace, checkpoints={})
    with pytest.raises(OptionError, match="the network would be untrained"):
        run_inference(config, workspace, scripted())


def test_what_was_inferred_last_is_read_again_until_there_is_a_better_model(workspace, scripted, script):
    write_config(workspace, "best_model/config_test.json")
    workspace.best_digest.touch()
    assert read_last_inference(workspace) is None
    result = run_inference(workspace.best_config, workspace, scripted(script([0.75])))
    os.utime(workspace.best_digest, (1, 1))
    assert read_last_inference(workspace) is None  # without predictions
    (workspace.predictions / "output_1.h5").touch()
    found = read_last_inference(workspace)
    assert (found.accuracy, found.loss) == (0.75, result.loss)
    os.utime(workspace.best_digest)
    os.utime(workspace.predictions / "inference.log", (1, 1))
    assert read_last_inference(workspace) is None


def test_earlier_predictions_move_aside_and_nothing_else(workspace):
    config = write_config(workspace)
    when = datetime(2026, 11, 23, 9, 0)
    assert move_predictions_aside(workspace, config, when) is None
    workspace.predictions.mkdir()
    for name in (
        "output_1.h5",
        "output_2.h5",
        "inference_config.json",
        "inference.log",
        "config.json",
        "of the person.txt",
    ):
        (workspace.predictions / name).write_text("precious")
    aside = move_predictions_aside(workspace, config, when)
    assert sorted(path.name for path in aside.iterdir()) == [
        "inference.log",
        "inference_config.json",
        "output_1.h5",
        "output_2.h5",
    ]
    assert sorted(path.name for path in workspace.predictions.iterdir()) == ["config.json", "of the person.txt"]
