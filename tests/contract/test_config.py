"""The configuration document: published forms are read, faults are one line that names the key."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmldnn_contract.config import LOSSES, Configuration, parse_configuration, read_configuration
from rmldnn_contract.data import TRANSFORMS, Normalize, Resize
from rmldnn_contract.exit_status import ConfigurationError
from rmldnn_contract.optimizer import OPTIMIZERS, Adam, ExponentialScheduler

TUTORIAL: dict[str, Any] = {
    "neural_network": {
        "outfile": "out.txt",
        "num_epochs": 50,
        "layers": "./layers_resunet.json",
        "checkpoints": {"save": "./checkpoints", "interval": 1, "load": "./model_resunet_imagenet.h5"},
        "data": {
            "type": "images",
            "input_path": "./data/train/inputs",
            "target_path": "./data/train/targets",
            "test_input_path": "./data/test/inputs",
            "test_target_path": "./data/test/targets",
            "batch_size": 32,
            "test_batch_size": 128,
            "preload": True,
            "target_grayscale": True,
            "target_is_mask": True,
            "transforms": [{"resize": [256, 256]}],
        },
        "optimizer": {
            "type": "adam",
            "learning_rate": 0.001,
            "lr_scheduler": {"type": "exponential", "gamma": 0.95, "verbose": True},
        },
        "loss": {"function": "bce", "source": "sigmoid"},
    }
}


def changed(path: str, value: object) -> str:
    """The tutorial's document with another value at ``path`` (dots between keys)."""
    document = copy.deepcopy(TUTORIAL)
    *parents, key = path.split(".")
    section = document["neural_network"]
    for parent in parents:
        section = section[parent]
    section[key] = value
    return json.dumps(document)


def fault(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_configuration(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_tutorials_document() -> None:
    network = parse_configuration(json.dumps(TUTORIAL)).neural_network
    assert isinstance(network.optimizer, Adam)
    assert isinstance(network.optimizer.lr_scheduler, ExponentialScheduler)
    assert network.optimizer.beta2 == 0.999
    assert network.loss is not None
    assert (network.loss.function, network.loss.source) == ("BCE", "sigmoid")
    assert network.data.transforms == (Resize(resize=(256, 256)),)
    assert network.data.reads_gray_targets
    assert not network.data.reads_gray_inputs


def test_defaults_are_the_documented_ones() -> None:
    text = '{"neural_network": {"layers": "a.json", "data": {"type": "images", "test_input_path": "in"}}}'
    network = parse_configuration(text).neural_network
    assert (network.num_epochs, network.checkpoints.interval, network.outfile) == (1, 1, None)
    assert (network.data.batch_size, network.data.test_batch_size, network.data.preload) == (64, 64, False)
    assert network.optimizer is None
    assert network.loss is None


@pytest.mark.parametrize(
    "name", [*OPTIMIZERS, *(name.lower() for name in OPTIMIZERS), *(n.upper() for n in OPTIMIZERS)]
)
def test_optimizers_in_any_case(name: str) -> None:
    optimizer = parse_configuration(changed("optimizer", {"type": name})).neural_network.optimizer
    assert optimizer is not None
    assert optimizer.type.casefold() == name.casefold()
    assert optimizer.type in OPTIMIZERS


@pytest.mark.parametrize("name", [*LOSSES, *(name.lower() for name in LOSSES)])
def test_losses_in_any_case(name: str) -> None:
    loss = parse_configuration(changed("loss.function", name)).neural_network.loss
    assert loss is not None
    assert loss.function in LOSSES


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("num_epoch", 3, "neural_network.num_epoch: unknown key; did you mean 'num_epochs'?"),
        ("data.tranforms", [], "neural_network.data.tranforms: unknown key; did you mean 'transforms'?"),
        (
            "optimizer.learning_rte",
            1,
            "neural_network.optimizer.learning_rte: unknown key; did you mean 'learning_rate'?",
        ),
        ("optimizer.momentum", 0.9, "neural_network.optimizer.momentum: this key does not belong here"),
        ("optimizer.type", "addam", "neural_network.optimizer: unknown optimizer 'addam': did you mean 'Adam'?"),
        (
            "optimizer.lr_scheduler.gama",
            1,
            "neural_network.optimizer.lr_scheduler.gama: unknown key; did you mean 'gamma'?",
        ),
        ("loss.function", "dise", "neural_network.loss.function: unknown loss 'dise': did you mean 'Dice'?"),
        ("data.transforms", [{"resise": [1, 1]}], "neural_network.data.transforms.0: unknown transform 'resise'"),
        ("checkpoints.interval", 0, "neural_network.checkpoints.interval: must be greater than 0, not 0"),
        ("optimizer.learning_rate", -1, "neural_network.optimizer.learning_rate: must be greater than 0, not -1"),
        ("data.batch_size", 2**31, "neural_network.data.batch_size: must be less than 2147483648, not 2147483648"),
        ("num_epochs", "ten", 'neural_network.num_epochs: must be a whole number, not "ten"'),
        ("num_epochs", 1.5, "neural_network.num_epochs: must be a whole number, not 1.5"),
        ("data.preload", "yess", 'neural_network.data.preload: must be true or false, not "yess"'),
        ("data", [], "neural_network.data: must be an object"),
        ("loss.weight", "a", 'neural_network.loss.weight: must be a list, not "a"'),
        ("outfile", "", "neural_network.outfile: '' cannot be a path"),
        ("outfile", "logs/..", "neural_network.outfile: 'logs/..' names nothing that could be written"),
        ("data.input_path", "a\0b", "neural_network.data.input_path: 'a\\x00b' cannot be a path"),
        ("checkpoints.save", "\ud800", "neural_network.checkpoints.save: '\\ud800' cannot be a path"),
        ("optimizer", None, "neural_network: optimizer is missing, and data.input_path asks for training"),
        ("data.type", "imagse", "neural_network.data.type: unknown data type 'imagse': did you mean 'images'?"),
        ("loss.function", "YOLOv3", "neural_network.loss.function: YOLOv3 belongs to an application"),
    ],
)
def test_a_fault_is_one_line_that_names_the_key(path: str, value: object, message: str) -> None:
    assert fault(changed(path, value)).startswith(message)


def test_a_missing_section_is_named() -> None:
    assert fault("{}") == "neural_network: is missing"
    assert fault('{"neural_network": {"layers": "a.json"}}') == "neural_network.data: is missing"


def test_what_is_no_json_says_so() -> None:
    assert fault("{").startswith("not a JSON document: ")
    assert fault("[" * 100_000).startswith("not a JSON document: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no configuration file"):
        read_configuration(tmp_path / "none.json")
    with pytest.raises(ConfigurationError, match="cannot read the configuration"):
        read_configuration(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"\xe4": 1}')
    with pytest.raises(ConfigurationError, match="cannot read the configuration"):
        read_configuration(tmp_path / "latin.json")


def test_a_document_with_more_faults_counts_them() -> None:
    document = json.loads(changed("num_epoch", 3))
    document["neural_network"]["laers"] = "b"
    assert fault(json.dumps(document)).endswith("(and 1 more)")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=10,
)
KEYS = ["outfile", "num_epochs", "layers", "checkpoints", "data", "optimizer", "loss", "debug", "debug_interval"]


@given(json_values | st.fixed_dictionaries({"neural_network": st.dictionaries(st.sampled_from(KEYS), json_values)}))
def test_any_json_is_a_document_or_one_line(document: object) -> None:
    with contextlib.suppress(ConfigurationError):
        parse_configuration(json.dumps(document))


fractions = st.floats(0, 1)
below_one = st.floats(0, 0.99)
sizes = st.tuples(st.integers(1, 4096), st.integers(1, 4096)).map(list)
positives = st.floats(1e-6, 1e3)
transforms = st.one_of(
    st.fixed_dictionaries({"resize": sizes}),
    st.fixed_dictionaries({"center_crop": sizes}),
    st.fixed_dictionaries({"jitter_crop": below_one}),
    st.fixed_dictionaries({"random_horizontal_flip": fractions}),
    st.fixed_dictionaries({"random_vertical_flip": fractions}),
    st.fixed_dictionaries({"random_zoom": below_one}),
    st.fixed_dictionaries({"rotate": st.floats(-360, 360)}),
    st.fixed_dictionaries({"random_rotate": st.floats(0, 360)}),
    st.fixed_dictionaries({"convert_color": st.text()}),
    st.fixed_dictionaries({"normalize": st.fixed_dictionaries({"mean": fractions, "std": st.lists(positives)})}),
    st.fixed_dictionaries({"random_patches": st.fixed_dictionaries({"number": st.just(2), "size": st.just(8)})}),
)
schedulers = st.one_of(
    st.fixed_dictionaries({"type": st.just("Step"), "gamma": positives, "step_size": st.integers(1, 9)}),
    st.fixed_dictionaries(
        {"type": st.just("multistep"), "gamma": positives, "milestones": st.lists(st.integers(1, 9))}
    ),
    st.fixed_dictionaries({"type": st.just("EXPONENTIAL"), "gamma": positives, "verbose": st.booleans()}),
    st.fixed_dictionaries(
        {"type": st.just("Warmup"), "num_epochs": st.integers(1, 9), "start_factor": st.floats(0.1, 1)}
    ),
)
optimizers = st.fixed_dictionaries(
    {"type": st.sampled_from([*OPTIMIZERS])}, optional={"learning_rate": positives, "lr_scheduler": schedulers}
)
losses = st.fixed_dictionaries(
    {"function": st.sampled_from(LOSSES)}, optional={"source": st.sampled_from(["sigmoid", "softmax"])}
)


@settings(max_examples=50)
@given(optimizers, losses, st.lists(transforms, max_size=4))
def test_what_is_written_is_read_back(optimizer: object, loss: object, steps: list[object]) -> None:
    document = copy.deepcopy(TUTORIAL)
    document["neural_network"] |= {"optimizer": optimizer, "loss": loss}
    document["neural_network"]["data"]["transforms"] = steps
    configuration = parse_configuration(json.dumps(document))
    assert parse_configuration(configuration.to_json()) == configuration


def test_only_what_was_given_is_written() -> None:
    document = copy.deepcopy(TUTORIAL)
    document["neural_network"]["optimizer"]["type"] = "Adam"
    document["neural_network"]["optimizer"]["lr_scheduler"]["type"] = "Exponential"
    document["neural_network"]["loss"]["function"] = "BCE"
    text = parse_configuration(json.dumps(document)).to_json()
    assert json.loads(text) == document
    assert list(json.loads(text)["neural_network"]) == list(document["neural_network"])


def test_every_documented_transform_is_known() -> None:
    documented = (
        "resize center_crop jitter_crop random_horizontal_flip random_vertical_flip random_zoom rotate random_rotate "
        "convert_color normalize random_patches"
    )
    assert set(TRANSFORMS) == set(documented.split())


def test_a_document_does_not_change_once_read() -> None:
    configuration = Configuration.model_validate(TUTORIAL)
    with pytest.raises(ValueError, match="frozen"):
        configuration.neural_network = configuration.neural_network  # type: ignore[misc]


# --- slicers, labels and what else the published documents of arrays and classes hold


def test_the_slicers_of_the_documentation() -> None:
    document = [
        {"name": "yz-slices", "sizes": [1, 131, 1001], "padded_sizes": [1, 144, 1008], "transpose": False},
        {"name": "xz-slices", "sizes": [540, 1, 1001], "padded_sizes": [560, 1, 1008], "transpose": True},
    ]
    data = parse_configuration(changed("data.slicers", document)).neural_network.data
    assert data.slicers is not None
    assert [slicer.num_dimensions for slicer in data.slicers] == [2, 2]
    assert data.hdf5_precision == "single"


@pytest.mark.parametrize(
    ("slicers", "message"),
    [
        ([], "slicers: Tuple should have at least 1 item"),
        ([{"sizes": []}], "slicers.0.sizes: Tuple should have at least 1 item"),
        ([{"sizes": [1, 1]}], "sizes are all 1"),
        ([{"sizes": [4, 4], "strides": [1]}], "strides has 1 entries, sizes has 2"),
        ([{"sizes": [4, 4], "padding": [1, 1], "padded_sizes": [6, 6]}], "give padding or padded_sizes, not both"),
        ([{"sizes": [4, 4], "padded_sizes": [4, 3]}], "padded_sizes must not be smaller than sizes"),
        ([{"sizes": [1, 4], "padding": [1, 1]}], "a dimension of size 1 is dropped from the slices"),
        ([{"sizes": [1, 4], "padded_sizes": [2, 4]}], "a dimension of size 1 is dropped from the slices"),
        ([{"sizes": [4, 4, 4], "transpose": True}], "transpose needs slices of 2 dimensions, these have 3"),
        ([{"sizes": [4, 4]}, {"sizes": [4]}], "the slicers have different numbers of sizes"),
        ([{"sizes": [4, 4]}, {"sizes": [1, 4]}], "the slicers give slices of different numbers of dimensions"),
        ([{"sizes": [4], "name": "a"}, {"sizes": [5], "name": "a"}], "two slicers have the same name"),
    ],
)
def test_faults_of_slicers(slicers: list[object], message: str) -> None:
    assert message in fault(changed("data.slicers", slicers))


def test_slices_can_be_put_together_in_two_precisions() -> None:
    document = json.loads(changed("data.slicers", [{"sizes": [4, 4], "padding": [0, 2]}]))
    data = document["neural_network"]["data"]
    data |= {"hdf5_outfile": "prediction.h5", "hdf5_precision": "HALF"}
    assert parse_configuration(json.dumps(document)).neural_network.data.hdf5_precision == "half"
    data["hdf5_precision"] = "double"
    assert "unknown precision 'double'" in fault(json.dumps(document))
    assert "hdf5_outfile puts slices together, and there are no slicers" in fault(changed("data.hdf5_outfile", "a.h5"))


@pytest.mark.parametrize("key", ["test_tag", "testing_tag"])
def test_both_published_names_of_the_tag_of_test_samples(key: str) -> None:
    configuration = parse_configuration(changed(f"data.{key}", "testing"))
    assert configuration.neural_network.data.test_tag == "testing"
    assert parse_configuration(configuration.to_json()) == configuration


def test_a_deviation_without_a_mean_is_a_published_form() -> None:
    (step,) = (
        parse_configuration(changed("data.transforms", [{"normalize": {"std": 0.5}}])).neural_network.data.transforms
        or ()
    )
    assert isinstance(step, Normalize)
    assert (step.normalize.mean, step.normalize.std) == (0.0, 0.5)
