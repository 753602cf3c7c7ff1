"""Images held out of the training images choose epoch and trial; the test images are used once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from rml_search.errors import DataSetError, OptionError
from rml_search.hyperparameters import Hyperparameters
from rml_search.synthetic import write_synthetic_data
from rml_search.trial_config import inference_configuration, training_configuration
from rml_search.validation import check_validation_fraction, hold_out_validation_images


@pytest.fixture
def options(workspace, make_options):
    """A search on 20 training images, four of which are held out."""
    shutil.rmtree(workspace.root / "data")
    write_synthetic_data(workspace.root / "data", num_train=20, num_test=3, size=32, seed=1)
    return make_options(validation_fraction=0.2)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_each_training_image_is_on_one_side_with_its_mask(workspace, options):
    hold_out_validation_images(options, workspace, lambda _: None)
    train, held_out = (workspace.validation / part for part in ("train", "test"))
    originals = workspace.root / "data" / "train"
    assert len(files(held_out / "inputs")) == 4
    assert files(train / "inputs").isdisjoint(files(held_out / "inputs"))
    for kind in ("inputs", "targets"):
        assert digests(train / kind) | digests(held_out / kind) == digests(originals / kind)
        assert all(path.stat().st_nlink == 2 for path in (train / kind).iterdir())  # no second copy on the disk
    assert files(train / "inputs") == files(train / "targets")


def test_copies_of_one_picture_stay_on_one_side(workspace, options):
    for kind in ("inputs", "targets"):
        folder = workspace.root / "data" / "train" / kind
        for number, image in enumerate(sorted(folder.iterdir())[:10]):
            shutil.copy(image, folder / f"copy_of_{number}_{image.name}")
    hold_out_validation_images(options, workspace, lambda _: None)
    train, held_out = (set(digests(workspace.validation / part / "inputs").values()) for part in ("train", "test"))
    assert train.isdisjoint(held_out)


def test_a_split_is_kept_and_made_anew_the_same(workspace, options):
    hold_out_validation_images(options, workspace, lambda _: None)
    chosen = files(workspace.validation / "test" / "inputs")
    told: list[str] = []
    hold_out_validation_images(options, workspace, told.append)
    assert told == []
    shutil.rmtree(workspace.validation)
    hold_out_validation_images(options, workspace, told.append)
    assert files(workspace.validation / "test" / "inputs") == chosen
    assert "4 held out to select epoch and trial" in told[-1]


def test_a_disk_without_links_gets_copies(workspace, options, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    hold_out_validation_images(options, workspace, lambda _: None)
    assert len(files(workspace.validation / "test" / "inputs")) == 4


def test_trials_see_the_validation_images_and_inference_the_test_images(workspace, options):
    point = Hyperparameters("adam", "bce", 0.01)
    training = training_configuration(options, point, workspace.trial(0), workspace).neural_network.data
    assert training.input_path == "./validation_split/train/inputs/"
    assert training.test_target_path == "./validation_split/test/targets/"
    inference = inference_configuration(options, point, workspace).neural_network.data
    assert (inference.test_input_path, inference.input_path) == ("./data/test/inputs/", None)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, float("nan")])
def test_a_fraction_that_is_none(make_options, fraction):
    with pytest.raises(OptionError, match="must be between 0 and 1"):
        check_validation_fraction(make_options(validation_fraction=fraction))


def test_too_few_images_are_one_line_and_leave_nothing(workspace, options, make_options):
    with pytest.raises(DataSetError, match="leaves one side empty"):
        hold_out_validation_images(make_options(validation_fraction=0.001), workspace, lambda _: None)
    assert not workspace.validation.exists()


@pytest.mark.slow
def test_a_real_search_ends_with_the_test_images(workspace, options, monkeypatch, capsys):
    """The built-in engine, from the command line's own function to the table."""
    from rml_commands.best import describe_best
    from rml_commands.run import run_search
    from rml_search.options import BestFormat, RuntimeChoice, RuntimeName
    from rml_search.plan import SearchPlan

    layer = {"name": "a", "filters": 1, "kernel_size": [3, 3], "padding": "same", "activation": "sigmoid"}
    network = [{"class_name": "Conv2D", "config": {**layer, "batch_input_shape": [None, 32, 32, 3]}}]
    (workspace.root / "layers.json").write_text(json.dumps(network))
    monkeypatch.chdir(workspace.root)
    options = dataclasses.replace(options, num_trials=1, num_epochs=1, image_size=(32, 32))
    run_search(options, SearchPlan(), workspace, RuntimeChoice(RuntimeName.LOCAL, gpu=False), print)
    told = capsys.readouterr().out
    assert "chosen on validation images" in told
    assert "Best model on the test images" in told
    assert (workspace.predictions / "output_1.h5").exists()

    facts = json.loads(describe_best(BestFormat.JSON, workspace, None))
    table = told[told.index("Best model on the test images") :]
    assert re.search(rf"Accuracy \(Dice\) +\| {facts['test_accuracy']:.3f} ", table)
    sentence = f"On the test images, the best model reached {facts['test_accuracy']:.3f}."
    assert sentence in describe_best(BestFormat.TABLE, workspace, None)
    report = workspace.report_page.read_text(encoding="utf-8")
    assert f"reached an accuracy of <strong>{facts['test_accuracy']:.3f}</strong>" in report

    os.utime(workspace.best_digest, (2**31, 2**31))  # another model, which has seen no test image
    assert json.loads(describe_best(BestFormat.JSON, workspace, None))["test_accuracy"] is None
