"""What is checked before a search or an inference begins, and before anything of an earlier one is moved."""

from __future__ import annotations

import json

import pytest

from rml_commands.run import run_search
from rml_search.errors import DataSetError, OptionError, WriteError
from rml_search.infer_command import InferOptions, infer_and_show
from rml_search.interruption import Interrupted, interruptible
from rml_search.options import RuntimeChoice, StudyChoice
from rml_search.plan import SearchPlan
from rml_search.runtime.choice import ChosenRuntime


@pytest.fixture
def plays(scripted, monkeypatch):
    """Lets a scripted runtime be the one that is chosen."""

    def play(*scripts, **settings):
        runtime = scripted(*scripts, **settings)
        chosen = ChosenRuntime(runtime, "a test")
        monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
        return runtime

    return play


@pytest.fixture
def linked(workspace, tmp_path):
    """A working directory one of whose images and whose test image's mask are links to elsewhere."""
    for name in ("train/inputs/image 1.png", "test/targets/image 0.png"):
        path = workspace.root / "data" / name
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    return workspace


@pytest.fixture
def inference(workspace):
    """A best model, with predictions of an earlier inference."""
    data = {"type": "images", "test_input_path": "./data/test/inputs/", "test_target_path": "./data/test/targets/"}
    document = {"layers": "./layers.json", "checkpoints": {"load": "./best_model/best_model_file.pt"}, "data": data}
    workspace.best_model.mkdir()
    workspace.best_config.write_text(json.dumps({"neural_network": document}))
    workspace.predictions.mkdir()
    predictions = workspace.predictions / "output_1.h5"
    predictions.write_text("precious")
    return predictions


def search(workspace, options, **study):
    plan = SearchPlan(study=StudyChoice(**study))
    run_search(options, plan, workspace, RuntimeChoice(gpu=False), print)


def infer(workspace, told, **options):
    infer_and_show(InferOptions(**options), workspace, RuntimeChoice(), False, told.append)


def test_an_interruption_says_how_to_go_on(workspace, make_options, plays, script):
    plays(script([0.7]), script([0.9], interrupts=True))
    with pytest.raises(Interrupted) as caught, interruptible():
        search(workspace, make_options(num_trials=5))
    assert caught.value.line == "Stopped by Ctrl-C; finished work is kept. Run the same command again to resume"


def test_after_fresh_the_same_command_would_begin_anew(workspace, make_options, plays, script):
    plays(script([0.7]), script([0.9], interrupts=True))
    with pytest.raises(Interrupted) as caught, interruptible():
        search(workspace, make_options(num_trials=5), is_fresh=True)
    assert caught.value.advice == "Run the same command again without --fresh to resume"


def test_an_interrupted_search_that_made_room_for_the_earlier_one_cannot_be_resumed(
    workspace, make_options, plays, script
):
    plays(script([0.7]))
    search(workspace, make_options(num_trials=1))
    plays(script([0.9], interrupts=True))
    with pytest.raises(Interrupted) as caught, interruptible():
        search(workspace, make_options(num_trials=5), is_fresh=True)
    assert caught.value.advice is None
    assert json.loads(workspace.list_acc.read_text())[0]["max_acc"] == 0.7


def test_images_that_are_links_are_refused_in_a_container_before_anything_moves(linked, make_options, plays):
    linked.list_acc.write_text("[]")
    runtime = plays(in_container=True)
    with pytest.raises(DataSetError, match=r"image 1\.png is a link to .* --runtime local"):
        search(linked, make_options())
    assert linked.list_acc.read_text() == "[]"
    assert runtime.runs == []


def test_images_that_are_links_are_no_matter_without_a_container(linked, make_options, plays, script):
    runtime = plays(script([0.5]))
    search(linked, make_options(num_trials=1))
    assert len(runtime.runs) == 1


def test_links_are_refused_before_an_inference_in_a_container(linked, inference, plays):
    plays(in_container=True)
    with pytest.raises(DataSetError, match=r"image 0\.png is a link to"):
        infer(linked, [])
    assert inference.read_text() == "precious"


@pytest.mark.parametrize(
    ("options", "change", "error", "message"),
    [
        ({"gallery": "gallery.docx"}, {}, WriteError, "must end in one of"),
        ({"gallery": "gallery.png"}, {"transforms": [{"rotate": 30}]}, DataSetError, "rotate moves the pixels"),
        ({"masks": "data"}, {}, WriteError, "is not empty"),
        ({}, {"input_path": "./data/train/inputs/"}, OptionError, "trains"),
    ],
)
def test_what_cannot_be_done_is_told_before_an_inference(workspace, inference, plays, options, change, error, message):
    document = json.loads(workspace.best_config.read_text())
    document["neural_network"]["data"] |= change
    if "input_path" in change:
        document["neural_network"] |= {"optimizer": {"type": "adam"}, "loss": {"function": "bce"}}
    workspace.best_config.write_text(json.dumps(document))
    runtime = plays()
    paths = {name: workspace.root / value for name, value in options.items()}
    with pytest.raises(error, match=message):
        infer(workspace, [], **paths)
    assert inference.read_text() == "precious"
    assert runtime.runs == []


def test_an_inference_tells_what_it_does(workspace, inference, plays, script):
    plays(script([0.25]))
    told = []
    infer(workspace, told)
    assert told[0].startswith("Earlier predictions were moved to ")
    assert "Device: CPU (--no-gpu)" in told
    assert "Runtime: scripted, because a test" in told
    assert "0.250" in told[-1]


@pytest.mark.parametrize("moving", ["transfer_learning", "layers"])
def test_files_that_are_about_to_move_aside_are_no_ground_of_a_search(workspace, make_options, plays, script, moving):
    plays(script([0.5]), script([0.6]))
    search(workspace, make_options(num_trials=1))
    options = {
        "transfer_learning": make_options(num_trials=2, transfer_learning=workspace.best_checkpoint),
        "layers": make_options(num_trials=2, layers=(workspace.best_layers,)),
    }[moving]
    plan = SearchPlan(StudyChoice(is_fresh=True))
    with pytest.raises(OptionError, match=r"best_model/.* move to earlier/: copy it elsewhere"):
        run_search(options, plan, workspace, RuntimeChoice(gpu=False), print)
    assert workspace.best_checkpoint.exists()
    assert not (workspace.root / "earlier").exists()
