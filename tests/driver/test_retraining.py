"""Damaged files of the best model: who is told what, and that what is told brings them back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rml_optuna import open_study
from rml_search.errors import CheckpointFileError, EngineFailedError
from rml_search.infer_command import InferOptions, infer_and_show
from rml_search.inference import choose_inference_config
from rml_search.observer import SilentObserver
from rml_search.options import RuntimeChoice, StudyChoice
from rml_search.retraining import train_command
from rml_search.runtime.choice import ChosenRuntime
from rml_search.search import Search
from rmldnn_contract.exit_status import ConfigurationError

RESTORE = ": run the search's command again, which restores best_model/ or tells how to retrain its trial"


class Notes(SilentObserver):
    def __init__(self):
        self.told = []

    def note(self, text):
        self.told.append(text)


@pytest.fixture
def search(workspace, make_options, scripted, script):
    """Runs a search of one trial, or goes on with it; gives the notes."""

    def run():
        study, notes = open_study(workspace, make_options(num_trials=1), StudyChoice(), print), Notes()
        Search(make_options(num_trials=1), workspace, scripted(script([0.7])), study, notes).run()
        study.close()
        return notes.told

    return run


@pytest.fixture
def infer(workspace, scripted, script, monkeypatch):
    """Runs the best model with an engine that ends with this code and these words."""

    def run(code=0, words="", config=None):
        chosen = ChosenRuntime(scripted(script(code=code, words=[words])), "a test")
        monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
        infer_and_show(InferOptions(config=config), workspace, RuntimeChoice(), False, lambda _: None)

    return run


@pytest.mark.parametrize(("seed", "command"), [(None, "rmldnn"), (5, "RMLDNN_SEED=5 rmldnn")])
def test_a_trial_is_trained_alone(seed, command):
    assert train_command(Path("trials/0012/config.json"), seed) == f"{command} --config=trials/0012/config.json"


@pytest.mark.parametrize("damage", ["gone", "broken"])
@pytest.mark.parametrize("name", ["config", "layers"])
def test_configuration_and_network_come_back_with_the_searchs_command(search, workspace, infer, name, damage):
    search()
    path = getattr(workspace.best, name)
    before = path.read_text()
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("{")
    if name == "layers":
        with pytest.raises(EngineFailedError) as caught:
            infer(66, "Error: cannot read layers.json")
        assert str(caught.value) == f"cannot read layers.json{RESTORE}"
        assert caught.value.exit_code == 66
    elif damage == "broken":
        with pytest.raises(ConfigurationError, match=r"config_test.json: not a JSON document.*" + RESTORE):
            infer()
    else:
        with pytest.raises(CheckpointFileError, match="run the search's command again to restore it, or give a file"):
            infer()
    search()
    assert path.read_text() == before


@pytest.mark.parametrize("damage", ["gone", "broken"])
def test_a_checkpoint_comes_back_when_its_trial_is_trained_again(search, workspace, infer, damage):
    assert search() == []
    whole = workspace.best_checkpoint.read_bytes()
    if damage == "gone":
        workspace.best_checkpoint.unlink()
    else:
        workspace.best_checkpoint.write_bytes(whole[:5])
    with pytest.raises(EngineFailedError) as caught:
        infer(67, "Error: best_model_file.pt is no checkpoint")
    assert str(caught.value) == f"best_model_file.pt is no checkpoint{RESTORE}"
    told, _ = search()  # the other one says that all trials have run
    assert "retrain it with RMLDNN_SEED=5 rmldnn --config=trials/0000/config.json and run this command again" in told
    # What the engine does: the same configuration and seed give the same checkpoint.
    assert json.loads(workspace.trial(0).config.read_text())["neural_network"]["checkpoints"]["save"]
    workspace.trial(0).checkpoint(1).write_bytes(whole)
    assert not any("missing" in text for text in search())
    assert workspace.best_checkpoint.read_bytes() == whole


def test_a_checkpoint_that_came_out_otherwise_is_not_taken_for_the_trials(search, workspace):
    """As on another device: the accuracy that stands in list_acc.json is not its own."""
    search()
    workspace.best_checkpoint.unlink()
    search()
    workspace.trial(0).checkpoint(1).write_bytes(b"another")
    told, _ = search()
    assert "The checkpoint of the best trial, 0, is missing" in told
    assert "the same device and number of threads give the same checkpoint" in told
    assert not workspace.best_checkpoint.exists()


def test_errors_of_images_and_of_other_configurations_are_told_as_they_are(search, workspace, infer):
    search()
    for code in (65, 66, 71):
        with pytest.raises(EngineFailedError, match=r"^no such thing$"):
            infer(code, "Error: no such thing")
    other = workspace.root / "other.json"
    other.write_text(workspace.best_config.read_text())
    with pytest.raises(EngineFailedError, match=r"^no checkpoint$"):
        infer(67, "Error: no checkpoint", config=other)


def test_without_a_successful_trial_a_search_comes_first(workspace):
    with pytest.raises(CheckpointFileError, match="run a search first"):
        choose_inference_config(workspace, None)
