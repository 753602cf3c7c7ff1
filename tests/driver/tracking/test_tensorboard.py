"""``--tensorboard``: the event files as TensorBoard itself reads them."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata

from rml_commands.run import run_search
from rml_search.hyperparameters import Hyperparameters
from rml_search.options import RuntimeChoice
from rml_search.plan import SearchPlan
from rml_search.results import TrialRecord, TrialState
from rml_search.runtime.choice import ChosenRuntime
from rml_search.tracking import PastTrial
from rml_search.tracking_choice import TrackingChoice
from rml_tracking.tensorboard_runs import TensorBoardLog
from rmldnn_contract.training_log import EpochRecord


class Run:
    """What TensorBoard finds in the folder of a trial."""

    def __init__(self, folder):
        events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
        tags = events.scalars.Keys()
        self.curves = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}
        [state] = events.Tensors("state")
        self.state = state.tensor_proto.string_val[0].decode()
        content = events.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
        self.hyperparameters = dict(metadata.parse_session_start_info_plugin_data(content).hparams)
        content = events.summary_metadata[metadata.SESSION_END_INFO_TAG].plugin_data.content
        self.status = metadata.parse_session_end_info_plugin_data(content).status


def runs(folder):
    [search] = folder.iterdir()
    assert search.name.startswith("search_")
    return {trial.name: Run(trial) for trial in sorted(search.iterdir())}


def test_a_search_is_there_trial_by_trial(search_tracked, three_fates, short, tmp_path):
    runtime, folder = three_fates(), tmp_path / "new" / "runs"
    assert search_tracked(runtime, TrackingChoice(tensorboard=folder), short, num_trials=3) == []
    complete, failed, pruned = runs(folder).values()
    assert complete.curves["accuracy"] == [(1, 0.5), (2, pytest.approx(0.7)), (3, pytest.approx(0.6))]
    assert complete.curves["loss/test"] == [(epoch, pytest.approx(0.6603)) for epoch in (1, 2, 3)]
    assert complete.curves["loss/train"] == [(1, pytest.approx(0.7028))]
    assert complete.curves["best accuracy"] == [(2, pytest.approx(0.7))]
    assert (complete.state, complete.status) == ("complete: its log ends with epoch 3 of 9", api_pb2.STATUS_SUCCESS)
    optimizer = runtime.documents[0]["optimizer"]
    assert complete.hyperparameters["optimizer"].string_value == optimizer["type"].lower()
    assert complete.hyperparameters["learning_rate"].number_value == optimizer["learning_rate"]
    assert failed.state.startswith("failed: ")
    assert "out of luck" in failed.state
    assert failed.status == api_pb2.STATUS_FAILURE
    assert failed.curves["accuracy"] == [(1, 0.25)]
    assert "best accuracy" not in failed.curves
    assert pruned.state == "pruned: stopped after 1.5 s (--trial-timeout)"
    assert pruned.curves["best accuracy"] == [(1, 0.5)]


def test_going_on_logs_what_is_new_and_nothing_twice(search_tracked, scripted, script, tmp_path):
    choice = TrackingChoice(tensorboard=tmp_path / "runs")
    search_tracked(scripted(script([0.5])), TrackingChoice(), num_trials=1)
    search_tracked(scripted(script([0.6])), choice, num_trials=2)
    before = {file: file.read_bytes() for file in choice.tensorboard.rglob("events*")}
    search_tracked(scripted(script([0.7])), choice, num_trials=3)
    found = runs(choice.tensorboard)
    # The first one was run before anybody asked for TensorBoard.
    assert list(found) == ["trial_0000", "trial_0001", "trial_0002"]
    assert [run.curves["accuracy"] for run in found.values()] == [
        [(1, 0.5)],
        [(1, pytest.approx(0.6))],
        [(1, pytest.approx(0.7))],
    ]
    assert len(list(choice.tensorboard.rglob("events*"))) == 3
    assert all(file.read_bytes() == content for file, content in before.items())


def test_a_trial_that_was_killed_gets_its_end(tmp_path):
    epochs = (EpochRecord(1, 3, 0.5), EpochRecord(2, 3, 0.25))
    killed = TensorBoardLog(tmp_path)
    killed.begin(7, Hyperparameters("adam", "bce", 0.1), 1000.0)
    killed.add_epoch(7, epochs[0], 1001.0)
    killed.close()
    record = TrialRecord(None, "adam", 0.1, "bce", None, 7, TrialState.FAILED, 2.0, "the search was killed")
    for _ in range(2):
        TensorBoardLog(tmp_path).catch_up([PastTrial(record, epochs, 1002.0)])
    run = Run(tmp_path / "trial_0007")
    assert run.curves["accuracy"] == [(1, 0.5), (2, 0.25)]
    assert run.state == "failed: the search was killed"


def test_a_folder_that_cannot_be_written_does_not_end_a_search(search_tracked, scripted, script, tmp_path, workspace):
    (tmp_path / "file").touch()
    choice = TrackingChoice(tensorboard=tmp_path / "file" / "runs")
    first, last = search_tracked(scripted(script([0.5]), script([0.6])), choice)
    assert first.startswith(
        f"TensorBoard's folder {choice.tensorboard} is unavailable, the search continues without it:"
    )
    assert last.startswith(f"Not everything was logged to TensorBoard's folder {choice.tensorboard}: ")
    assert last.endswith(": run the same command again to log the rest")
    assert workspace.best_checkpoint.exists()


def test_the_command_logs_and_a_problem_is_one_line_among_the_others(
    workspace, make_options, scripted, script, tmp_path, monkeypatch
):
    chosen = ChosenRuntime(scripted(script([0.5]), script([0.75])), "a test")
    monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
    folder = tmp_path / "runs"

    def search(num_trials, place):
        told = []
        plan = SearchPlan(tracking=TrackingChoice(tensorboard=place), writes_report=False)
        run_search(make_options(num_trials=num_trials), plan, workspace, RuntimeChoice(gpu=False), told.append)
        return told

    told = search(1, folder)
    assert not any("TensorBoard" in line for line in told)
    assert [run.curves["accuracy"] for run in runs(folder).values()] == [[(1, 0.5)]]
    (tmp_path / "file").touch()
    told = search(2, tmp_path / "file" / "runs")
    assert sum("is unavailable, the search continues without it: Not a directory" in line for line in told) == 1
    assert any("| 0.750" in line for line in told)
