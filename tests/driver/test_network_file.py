"""What a network ends in, and which losses can judge that: the engine's own answers are what these are held to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rml_search.errors import OptionError
from rml_search.network_file import NetworkFile, check_losses, check_network_file
from rml_search.options import LOSS_NAMES
from rmldnn_contract.config import Loss
from rmldnn_contract.exit_status import HyperparameterError
from rmldnn_torch.keras_graph import read_network
from rmldnn_torch.losses import build_loss
from rmldnn_torch.network import Network

INPUT = {
    "class_name": "InputLayer",
    "config": {"name": "in", "batch_input_shape": [None, 8, 8, 3]},
    "name": "in",
    "inbound_nodes": [],
}


def convolution(activation="linear", source="in", name="conv"):
    config = {"name": name, "filters": 2, "kernel_size": [1, 1], "activation": activation}
    return {"class_name": "Conv2D", "config": config, "name": name, "inbound_nodes": [[[source, 0, 0, {}]]]}


def layer(class_name, **config):
    config = {"name": "last", **config}
    return {"class_name": class_name, "config": config, "name": "last", "inbound_nodes": [[["conv", 0, 0, {}]]]}


def functional(*layers, output):
    config = {"name": "m", "layers": [INPUT, *layers]}
    return {"class_name": "Functional", "config": {**config, "output_layers": output}}


SOFTMAX_BEFORE_ITS_SOURCE = [layer("Softmax", axis=-1), convolution()]
NESTED = {
    "class_name": "Functional",
    "name": "inner",
    "config": functional(convolution("softmax"), output=[["conv", 0, 0]])["config"] | {"name": "inner"},
    "inbound_nodes": [[["conv", 0, 0, {}]]],
}
NESTED["config"]["input_layers"] = [["in", 0, 0]]
NESTED["config"]["layers"][0] = {**INPUT, "config": {"name": "in", "batch_input_shape": [None, 8, 8, 2]}}

ENDINGS = [
    ([INPUT, convolution("sigmoid")], "sigmoid", "sigmoid"),
    ([INPUT, convolution("softmax")], "softmax", "softmax"),
    ([INPUT, convolution(), layer("Activation", activation="softmax")], "softmax", "softmax"),
    ([INPUT, convolution(), layer("Activation", activation="log_softmax_v2")], "log_softmax", None),
    ([INPUT, convolution(), layer("Softmax", axis=3)], "softmax", "softmax"),
    ([INPUT, convolution(), layer("Softmax", axis=[-1])], "softmax", "softmax"),
    ([INPUT, convolution(), layer("Log_Softmax")], "log_softmax", None),
    ([INPUT, convolution(), layer("Sigmoid")], "sigmoid", "sigmoid"),
    (functional(*SOFTMAX_BEFORE_ITS_SOURCE, output=[["last", 0, 0]]), "softmax", "softmax"),
    (functional(*SOFTMAX_BEFORE_ITS_SOURCE, output=["last", 0, 0]), "softmax", "softmax"),
    (functional(convolution(), NESTED, output=[["inner", 1, 0]]), "softmax", "softmax"),
]


def write(folder: Path, document) -> Path:
    path = folder / "layers.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(("document", "activation", "source"), ENDINGS)
def test_the_last_activation_is_the_one_that_the_engine_finds(tmp_path, document, activation, source):
    path = write(tmp_path, document)
    network = check_network_file(path)
    assert Network(read_network(path)).output_activation == activation == network.output_activation
    assert network.loss_source == source


@pytest.mark.parametrize(
    ("last", "activation"),
    [
        (layer("Softmax", axis=1), "softmax over another axis"),
        (layer("ReLU"), "relu"),
        (layer("Activation", activation="tanh"), "tanh"),
    ],
)
def test_what_gives_no_probabilities_has_no_source(tmp_path, last, activation):
    path = write(tmp_path, [INPUT, convolution(), last])
    network = check_network_file(path)
    assert Network(read_network(path)).output_activation == "linear"
    assert (network.output_activation, network.loss_source) == (activation, None)


@pytest.mark.parametrize(
    "document",
    [
        [INPUT, {"class_name": "Lambda"}],
        [INPUT, layer("UpSampling2D", size=[2, 2])],
        functional(convolution("sigmoid"), output=[["conv", 0, 0], ["in", 0, 0]]),
        functional(convolution("sigmoid"), output=[["nowhere", 0, 0]]),
        functional(convolution("sigmoid"), output=3),
        functional(convolution({"class_name": "ReLU", "config": {}}), output=[["conv", 0, 0]]),
    ],
)
def test_what_the_file_does_not_say_is_left_to_the_engine(tmp_path, document):
    network = check_network_file(write(tmp_path, document))
    assert (network.output_activation, network.loss_source) == (None, None)
    check_losses(network, [name.lower() for name in LOSS_NAMES])


@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "log_softmax", "linear"])
@pytest.mark.parametrize("loss", LOSS_NAMES)
def test_a_loss_is_refused_where_the_engine_would_refuse_it(loss, activation):
    network = NetworkFile(input_channels=3, output_activation=activation)
    try:
        build_loss(Loss.model_validate({"function": loss, "source": network.loss_source}), activation, num_classes=2)
    except HyperparameterError:
        with pytest.raises(OptionError, match=f"the loss {loss.lower()} needs .* ends in {activation}: "):
            check_losses(network, ["mse", loss.lower()])
    else:
        check_losses(network, ["mse", loss.lower()])
