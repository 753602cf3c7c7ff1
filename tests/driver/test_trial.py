"""One trial: what is written for the engine, what its log tells, how its end is judged."""

from __future__ import annotations

import json

import pytest

from rml_search.hyperparameters import Hyperparameters
from rml_search.mounts import for_container
from rml_search.network_file import NetworkFile
from rml_search.results import TrialState
from rml_search.study import Suggestion
from rml_search.trial import TrialRunner
from rml_search.trial_config import inference_configuration
from rml_search.trial_control import TrialControl, Verdict
from rmldnn_contract.config import Configuration
from rmldnn_contract.exit_status import ExitStatus

POINT = Hyperparameters("adam", "bce", 0.00143)


def run(runtime, options, workspace, on_epoch=lambda epoch: None):
    return TrialRunner(options, workspace, runtime).run(Suggestion(7, POINT), on_epoch)


def test_value_is_the_best_epochs_accuracy_and_the_first_of_equals_wins(workspace, make_options, scripted, script):
    seen = []
    runtime = scripted(script([0.5, 0.904, 0.7, 0.904]))
    result = run(runtime, make_options(), workspace, lambda epoch: seen.append((epoch.epoch, epoch.accuracy)))
    assert result.state is TrialState.COMPLETE
    assert result.max_accuracy == 0.904
    assert result.best_epoch.epoch == 2
    assert seen == [(1, 0.5), (2, 0.904), (3, 0.7), (4, 0.904)]


def test_a_complete_trial_with_fewer_epochs_says_so(workspace, make_options, scripted, script):
    early = run(scripted(script([0.5, 0.6])), make_options(), workspace)
    assert (early.state, early.reason) == (TrialState.COMPLETE, "its log ends with epoch 2 of 9")
    whole = run(scripted(script([0.5] * 9)), make_options(), workspace)
    assert (whole.state, whole.reason) == (TrialState.COMPLETE, None)


def test_a_trial_holds_the_best_checkpoint_and_the_one_being_written_and_no_other(
    workspace, make_options, scripted, script
):
    runtime = scripted(script([0.5, 0.9, 0.7, 0.8, 0.95]))
    run(runtime, make_options(), workspace)
    assert runtime.engines[0].held_checkpoints == [[1], [1, 2], [2, 3], [2, 4], [2, 5]]
    assert runtime.engines[0].seen_checkpoints == [[1], [2], [2], [2], [5]]


def test_so_it_does_where_checkpoints_come_after_the_lines_of_their_epochs(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5, 0.9, 0.7, 0.8, 0.95], writes_late=True))
    result = run(runtime, make_options(), workspace)
    assert runtime.engines[0].held_checkpoints == [[1], [2], [2, 3], [2, 4], [5]]
    assert (result.state, result.best_epoch.epoch) == (TrialState.COMPLETE, 5)


def test_configuration_is_the_tutorials(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5]))
    weights = workspace.root / "model.h5"
    options = make_options(lr_scheduler_gamma=0.95, transfer_learning=weights)
    run(runtime, options, workspace)
    assert runtime.documents == [
        {
            "outfile": "./trials/0007/out.txt",
            "num_epochs": 3,
            "layers": "./trials/layers.json",
            "checkpoints": {"save": "./trials/0007/checkpoints/", "interval": 1, "load": "./model.h5"},
            "data": {
                "type": "images",
                "input_path": "./data/train/inputs/",
                "target_path": "./data/train/targets/",
                "test_input_path": "./data/test/inputs/",
                "test_target_path": "./data/test/targets/",
                "batch_size": 32,
                "test_batch_size": 64,
                "preload": True,
                "target_grayscale": True,
                "target_is_mask": True,
                "transforms": [{"resize": [256, 256]}],
            },
            "optimizer": {
                "type": "Adam",
                "learning_rate": 0.00143,
                "lr_scheduler": {"type": "Exponential", "gamma": 0.95, "verbose": True},
            },
            "loss": {"function": "BCE", "source": "sigmoid"},
        }
    ]
    assert runtime.runs[0].seed == 5


def test_files_outside_the_working_directory_are_mounted_where_a_container_finds_them(
    workspace, make_options, scripted, script, tmp_path
):
    weights = tmp_path / "elsewhere" / "modèle.h5"
    weights.parent.mkdir()
    weights.write_bytes(b"x")
    runtime = scripted(script([0.5]), in_container=True)
    run(runtime, make_options(transfer_learning=weights), workspace)
    document = runtime.documents[0]
    assert document["checkpoints"]["load"] == f"/mnt/host{weights}"
    assert [(mount.source, mount.target) for mount in runtime.runs[0].mounts] == [(weights, f"/mnt/host{weights}")]
    assert document["layers"] == "./trials/layers.json"


def test_data_behind_a_link_is_mounted_too(workspace, make_options, scripted, script, tmp_path):
    real = tmp_path / "disk"
    (workspace.root / "data").rename(real)
    (workspace.root / "data").symlink_to(real)
    runtime = scripted(script([0.5]), in_container=True)
    run(runtime, make_options(), workspace)
    assert runtime.documents[0]["data"]["input_path"] == f"/mnt/host{real}/train/inputs/"
    assert len(runtime.runs[0].mounts) == 4


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"accuracies": [0.5, "nan"]}, "the accuracy on the test images became nan in epoch 2"),
        ({"accuracies": [0.5, 1.7]}, "the accuracy on the test images in epoch 2 is 1.7, not between 0 and 1"),
        ({"accuracies": [-0.2]}, "in epoch 1 is -0.2, not between 0 and 1"),
        ({"accuracies": [], "words": ["hello", "", "world"]}, "no accuracy; its last line was: world"),
        ({"accuracies": [0.5], "code": 1, "words": ["terminate called"]}, "exit code 1; its last line was: terminate"),
        ({"accuracies": [0.5], "code": 137, "note": "the container was killed"}, "the container was killed"),
        ({"accuracies": [0.5, 0.6], "num_checkpoints": 1}, "no checkpoint of epoch 2, its best"),
        ({"code": 68, "words": ["[2022-Mar-24 21:44:12.182169] Error: no LARS here"]}, "no LARS here"),
    ],
)
def test_a_failure_has_a_reason_and_no_value(workspace, make_options, scripted, script, settings, reason):
    result = run(scripted(script(**settings)), make_options(), workspace)
    assert result.state is TrialState.FAILED
    assert reason in result.reason
    assert result.max_accuracy is None
    assert result.to_record().epoch_max_acc is None


def test_a_trial_that_was_stopped_early_has_no_value_either_if_its_accuracies_are_none(
    workspace, make_options, scripted, script
):
    """Accuracies in percent, which only the engine's file tells, at the end."""
    control = TrialControl()
    control.end(Verdict(TrialState.PRUNED, "pruned", needs_checkpoint=True))
    folder = workspace.trial(7).checkpoints
    folder.mkdir(parents=True)
    (folder / "model_checkpoint_1.pt").touch()
    workspace.trial(7).test_file.write_text("1 0.3 61.5\n")
    result = TrialRunner(make_options(), workspace, scripted(script())).run(
        Suggestion(7, POINT), lambda _: None, control
    )
    assert result.state is TrialState.FAILED
    assert "is 61.5, not between 0 and 1" in result.reason
    assert result.max_accuracy is None


def test_an_engine_that_prints_nan_is_stopped_at_once(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5, "-nan", 0.7]))
    result = run(runtime, make_options(), workspace)
    assert runtime.engines[0].stopped
    assert len(result.epochs) == 2


def test_nan_loss_of_a_training_batch_is_a_failure(workspace, make_options, scripted, script):
    line = "Train Epoch [  2/  9] : Batch [    1/    1] (Loss = nan; |g| = nan) [Data: 27%; Compute: 72%]"
    result = run(scripted(script([0.5], words=[line])), make_options(), workspace)
    assert result.reason == "the loss became nan in epoch 2"


def test_accuracies_that_the_log_lacks_are_read_from_the_engines_file(workspace, make_options, scripted, script):
    folder = workspace.trial(7).checkpoints
    folder.mkdir(parents=True)
    for epoch in (1, 2):
        (folder / f"model_checkpoint_{epoch}.pt").touch()
    workspace.trial(7).test_file.write_text("# epoch loss accuracy\n\n1 0.3 0.61\n2 0.2 0.75\n")
    result = run(scripted(script()), make_options(), workspace)
    assert result.state is TrialState.COMPLETE
    assert (result.best_epoch.epoch, result.max_accuracy) == (2, 0.75)


def test_exit_codes_of_our_engine_are_kept(workspace, make_options, scripted, script):
    runtime = scripted(script(code=65, words=["Error: no images"]), script(code=68, words=["Error: no LARS"]))
    of_data = run(runtime, make_options(), workspace)
    of_optimizer = run(runtime, make_options(), workspace)
    assert of_data.exit_status is ExitStatus.DATA
    assert of_optimizer.exit_status is ExitStatus.HYPERPARAMETERS


def test_log_keeps_all_that_was_printed(workspace, make_options, scripted, script):
    run(scripted(script([0.5], words=["ünïcode", "last"])), make_options(), workspace)
    lines = workspace.trial(7).log.read_text(encoding="utf-8").splitlines()
    assert lines[-2:] == ["ünïcode", "last"]
    assert len(lines) == 4


def test_configuration_file_is_whole_json(workspace, make_options, scripted, script):
    run(scripted(script([0.5])), make_options(), workspace)
    document = json.loads(workspace.trial(7).config.read_text())
    assert document["neural_network"]["optimizer"]["learning_rate"] == 0.00143


def test_a_network_of_one_channel_is_given_gray_images(workspace, make_options, scripted, script):
    runtime = scripted(script([0.5]))
    run(runtime, make_options(networks=(NetworkFile(1, "sigmoid"),)), workspace)
    assert runtime.documents[0]["data"]["input_grayscale"] is True


@pytest.mark.parametrize(("source", "loss"), [("softmax", {"source": "softmax"}), (None, {})])
def test_source_of_the_loss_is_what_the_network_ends_in(workspace, make_options, scripted, script, source, loss):
    runtime = scripted(script([0.5]))
    options = make_options(networks=(NetworkFile(3, source),))
    run(runtime, options, workspace)
    assert runtime.documents[0]["loss"] == {"function": "BCE", **loss}
    inference = json.loads(inference_configuration(options, Hyperparameters("adam", "nll", 0.01), workspace).to_json())[
        "neural_network"
    ]
    assert inference["loss"] == {"function": "NLL", **loss}


def test_two_keys_may_name_one_folder_and_absolute_paths_inside_become_relative(workspace, tmp_path):
    outside = tmp_path / "images"
    data = {"type": "images", "test_input_path": f"{outside}/", "test_target_path": str(outside)}
    network = {"layers": str(workspace.root / "layers.json"), "data": data}
    document, mounts = for_container(Configuration.model_validate({"neural_network": network}), workspace)
    assert [mount.target for mount in mounts] == [f"/mnt/host{outside}"]
    assert document.neural_network.layers == "./layers.json"
    assert document.neural_network.data.test_input_path == f"/mnt/host{outside}/"
