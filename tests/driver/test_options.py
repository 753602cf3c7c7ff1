"""What a person may ask for."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from rml_search.errors import CheckpointFileError, NetworkFileError, OptionError
from rml_search.network_file import check_network_file
from rml_search.options import (
    LOSS_NAMES,
    OPTIMIZER_NAMES,
    RuntimeChoice,
    RuntimeName,
    check_transfer_learning_file,
    parse_names,
)
from rmldnn_contract.config import LossName
from rmldnn_contract.optimizer import OPTIMIZERS


def test_names_are_those_of_the_contract():
    assert set(OPTIMIZER_NAMES) == set(OPTIMIZERS)
    assert set(LOSS_NAMES) == set(get_args(LossName))


@pytest.mark.parametrize("text", ["adam,rmsprop,sgd", " Adam , RMSPROP,sgd", "adam,,rmsprop,sgd,ADAM,"])
def test_names_may_have_blanks_and_any_case(text):
    assert parse_names("--optimizers", "optimizer", text, OPTIMIZER_NAMES) == ("adam", "rmsprop", "sgd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adam,rmsprob", r"unknown optimizer 'rmsprob': did you mean 'RMSprop'\?"),
        ("sdg", "did you mean 'SGD'"),
        ("qqqq", "known are SGD, RMSprop"),
        (" , ", "needs at least one optimizer"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(text, message):
    with pytest.raises(OptionError, match=message):
        parse_names("--optimizers", "optimizer", text, OPTIMIZER_NAMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_trials": 0}, "--num-trials must be at least 1, not 0"),
        ({"num_epochs": -1}, "--num-epochs"),
        ({"batch_size": 0}, "--batch-size"),
        ({"test_batch_size": 0}, "--test-batch-size"),
        ({"num_procs": 0}, "--num-procs"),
        ({"image_size": (256, 0)}, "--image-size"),
        ({"seed": -1}, "--seed"),
        ({"lr_range": (0.1, 0.01)}, r"\(0.1\) is above --lr-range-max \(0.01\)"),
        ({"lr_range": (0.0, 0.01)}, "--lr-range-min must be a positive number, not 0"),
        ({"lr_range": (0.1, float("nan"))}, "--lr-range-max must be a positive number"),
        ({"lr_scheduler_gamma": 0.0}, "--lr-scheduler-gamma"),
        ({"lr_scheduler_gamma": 1.5}, "--lr-scheduler-gamma"),
    ],
)
def test_impossible_values_are_refused(make_options, changes, message):
    with pytest.raises(OptionError, match=message):
        make_options(**changes)


def test_equal_ends_of_the_learning_rate_are_allowed(make_options):
    assert make_options(lr_range=(0.01, 0.01)).lr_range == (0.01, 0.01)


@pytest.mark.parametrize(
    "settings",
    [
        {"docker_image": "a", "singularity_image": "b"},
        {"docker_image": " "},
        {"name": RuntimeName.SINGULARITY},
    ],
)
def test_contradictory_runtimes_are_refused(settings):
    with pytest.raises(OptionError):
        RuntimeChoice(**settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON document"),
        ("{}", "not a Keras network"),
        ("3", "not a Keras network"),
        ('{"config": {"layers": []}}', "not a Keras network"),
        ("[" * 100_000, "not a JSON document"),
        ('[{"config": {}}]', "layer 0 has no class_name"),
    ],
)
def test_a_broken_network_file_is_found_before_anything_starts(tmp_path, text, message):
    path = tmp_path / "layers.json"
    path.write_text(text)
    with pytest.raises(NetworkFileError, match=message):
        check_network_file(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(NetworkFileError, match=r"there is no network file .*layers.json: give one with --layers"):
        check_network_file(tmp_path / "layers.json")
    with pytest.raises(NetworkFileError, match="is not a file: give one"):
        check_network_file(tmp_path)
    with pytest.raises(CheckpointFileError, match=r"there is no file .*w.h5"):
        check_transfer_learning_file(tmp_path / "w.h5")


@pytest.mark.parametrize(
    "document",
    [
        [{"class_name": "Dense", "config": {}}],
        {"class_name": "Functional", "config": {"layers": [{"class_name": "InputLayer"}]}},
        {"class_name": "Sequential", "config": [{"class_name": "Dense"}]},
    ],
)
def test_every_form_of_a_network_file_is_accepted(tmp_path, document):
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(document), encoding="utf-8-sig")
    assert check_network_file(path).input_channels is None


def test_channels_of_the_input_are_read(tmp_path):
    path = tmp_path / "layers.json"
    path.write_text(json.dumps([{"class_name": "Conv2D", "config": {"batch_input_shape": [None, 32, 32, 1]}}]))
    assert check_network_file(path).input_channels == 1
