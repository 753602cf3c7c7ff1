"""The module that runs a graph: names, counts, freezing, logits, memory, shape checks."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.keras_graph import INPUT_CLASS, read_network
from rmldnn_torch.network import Network, ParameterCounts, count_parameters

from .test_keras_graph import diamond, layer, smoke_test_layers

Document = dict[str, Any]


def chain(*layers: Document, shape: tuple[int | None, ...] = (8, 8, 3)) -> Network:
    first: Document = {"class_name": "InputLayer", "config": {"name": "data", "batch_input_shape": [None, *shape]}}
    for entry in layers:
        entry.pop("inbound_nodes", None)
    return Network(read_network([first, *layers]))


def test_frozen_layers_are_counted_but_not_as_trainable() -> None:
    network = chain(
        layer("Conv2D", "conv", filters=4, kernel_size=3, trainable=False),
        layer("BatchNormalization", "norm", scale=False, trainable=False),
        layer("Dense", "head", units=2),
    )
    # 3x3x3x4 + 4, gamma and beta of 4 channels though there is no gamma, 4x2 + 2
    assert count_parameters(network) == ParameterCounts(total=112 + 8 + 10, trainable=10)


def test_frozen_layers_do_not_learn() -> None:
    network = chain(
        layer("BatchNormalization", "frozen", trainable=False),
        layer("Conv2D", "conv", filters=4, kernel_size=3, trainable=False),
        layer("BatchNormalization", "norm"),
    ).train()
    before = {name: values.clone() for name, values in network.state_dict().items()}

    network(torch.randn(4, 3, 8, 8)).square().sum().backward()

    trained = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert trained == {"norm.weight", "norm.bias"}
    moved = {name for name, values in network.state_dict().items() if not torch.equal(values, before[name])}
    assert moved == {"norm.running_mean", "norm.running_var"}


def test_weights_are_named_as_rmldnn_names_them() -> None:
    network = chain(
        layer("Conv2D", "conv", filters=4, kernel_size=1, activation="relu"),
        layer("BatchNormalization", "norm", scale=False),
        layer("Dense", "head", units=1, use_bias=False),
    )
    assert list(network.state_dict()) == [
        "conv.weight",
        "conv.bias",
        "norm.bias",
        "norm.running_mean",
        "norm.running_var",
        "head.weight",
    ]


def test_layer_names_that_torch_forbids() -> None:
    names = [
        "a.b",
        "a_b",
        "train",
        "graph",
        "forward",
        "output_channels",
        "weight/1",
        "größe",
        "_steps",
        "T_destination",
    ]
    network = chain(*(layer("Dense", name, units=2) for name in names), shape=(4,))
    modules = [network.module_name(name) for name in names]
    assert modules[1:3] == ["a_b_", "train_"]
    assert len(set(modules)) == len(names)
    assert list(network.state_dict()) == [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    network.train()
    assert network(torch.zeros(1, 4)).shape == (1, 2)
    assert network.output_channels == 2


@pytest.mark.parametrize(
    ("last", "name"),
    [
        (layer("Conv2D", "out", filters=2, kernel_size=1, activation="sigmoid"), "sigmoid"),
        (layer("Conv2D", "out", filters=2, kernel_size=1, activation="log_softmax_v2"), "log_softmax"),
        (layer("Activation", "out", activation="softmax"), "softmax"),
        (layer("Softmax", "out"), "softmax"),
        (layer("Sigmoid", "out"), "sigmoid"),
        (layer("Activation", "out", activation="relu"), "linear"),
        (layer("Softmax", "out", axis=1), "linear"),
        (layer("Conv2D", "out", filters=2, kernel_size=1), "linear"),
    ],
)
def test_logits(last: Document, name: str) -> None:
    network = chain(last).eval()
    inputs = torch.randn(2, 3, 8, 8)
    logits, activation = network.forward_logits(inputs)
    assert activation == network.output_activation == name
    functions = {
        "sigmoid": torch.sigmoid,
        "softmax": lambda values: torch.softmax(values, 1),
        "log_softmax": lambda values: torch.log_softmax(values, 1),
        "linear": lambda values: values,
    }
    torch.testing.assert_close(functions[name](logits), network(inputs))


def test_intermediate_values_are_freed_as_soon_as_nothing_needs_them() -> None:
    network = chain(*(layer("Activation", f"act{index}", activation="tanh") for index in range(6))).eval()
    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def watch(_module: object, _inputs: object, output: torch.Tensor) -> None:
        alive.append(sum(reference() is not None for reference in made))
        made.append(weakref.ref(output))

    for module in network.children():
        module.register_forward_hook(watch)
    gc.disable()  # reference counts alone must do it
    try:
        with torch.no_grad():
            network(torch.randn(1, 3, 8, 8))
    finally:
        gc.enable()
    assert max(alive) == 1  # when a layer ends, its own input only


def test_a_value_that_is_needed_later_is_kept() -> None:
    network = Network(read_network(diamond())).eval()
    inputs = torch.randn(1, 3, 4, 16)
    expected = network.get_submodule("left")(inputs) + network.get_submodule("right")(inputs).relu()
    torch.testing.assert_close(network(inputs), expected)


def relu_network(*, reads_again: bool) -> Document:
    """data -> conv -> norm -> relu -> sum with what the relu was made of, or with the data's first channels."""
    other = "norm" if reads_again else "skip"
    layers = [
        layer(INPUT_CLASS, "data", batch_input_shape=[None, 8, 8, 3]),
        *([] if reads_again else [layer("Conv2D", "skip", "data", filters=4, kernel_size=1)]),
        layer("Conv2D", "conv", "data", filters=4, kernel_size=3, padding="same", activation="relu"),
        layer("BatchNormalization", "norm", "conv"),
        layer("Activation", "act", "norm", activation="relu"),
        layer("Add", "sum", "act", other),
    ]
    config = {"name": "relu", "layers": layers, "input_layers": [["data", 0, 0]], "output_layers": [["sum", 0, 0]]}
    return {"class_name": "Functional", "config": config}


@pytest.mark.parametrize("reads_again", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_relu_that_overwrites_its_input_changes_no_number(reads_again: bool, training: bool) -> None:
    network = Network(read_network(relu_network(reads_again=reads_again))).train(training)
    inputs = torch.randn(2, 3, 8, 8)
    conv, norm = network.get_submodule("conv"), network.get_submodule("norm")

    def by_hand() -> torch.Tensor:
        normalized = norm(conv(inputs).relu())
        return normalized.relu() + (normalized if reads_again else network.get_submodule("skip")(inputs))

    gradients = []
    for output in (network(inputs), by_hand()):
        network.zero_grad()
        output.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_a_relu_overwrites_what_was_made_for_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    relu_ = torch.relu_
    monkeypatch.setattr(torch, "relu_", lambda values: (calls.append(values), relu_(values))[1])
    Network(read_network(relu_network(reads_again=False)))(torch.randn(1, 3, 8, 8))
    assert len(calls) == 2  # of conv and of norm
    calls.clear()
    Network(read_network(relu_network(reads_again=True)))(torch.randn(1, 3, 8, 8))
    assert len(calls) == 1  # norm is read again
    calls.clear()
    data = torch.randn(1, 3, 8, 8)
    before = data.clone()
    chain(layer("Activation", "first", activation="relu"), layer("Activation", "again", activation="relu"))(data)
    assert calls == []
    assert torch.equal(data, before)


def test_shapes() -> None:
    network = Network(read_network(diamond()))
    assert network.input_shape == (3, None, 16)
    assert (network.input_channels, network.output_channels) == (3, 4)
    assert network.check(7, 9) == (4, 7, 9)


def test_a_shape_that_does_not_fit_names_the_layer() -> None:
    network = Network(read_network(smoke_test_layers()))
    assert network.check(28, 28) == (2,)
    with pytest.raises(NetworkError, match=r"layer 'fc1' \(Dense\) cannot take 80: .* 320 channels"):
        network.check(20, 20)
    with pytest.raises(NetworkError, match=r"layer 'conv2' \(Conv2D\) cannot take 4x4x10: its window spans 5x5"):
        network.check(12, 12)
    with pytest.raises(NetworkError, match="2 spatial axes, the data have 3"):
        network.check(28, 28, 28)


@pytest.mark.parametrize(
    ("layers", "shape", "message"),
    [
        ([layer("Conv2D", "conv", filters=1, kernel_size=9)], (8, 8, 3), "layer 'conv' (Conv2D) cannot take 8x8x3"),
        ([layer("MaxPooling2D", "pool", pool_size=9)], (8, 8, 3), "layer 'pool' (MaxPooling2D) cannot take 8x8x3"),
        ([layer("Cropping2D", "crop", cropping=4)], (8, 8, 3), "nothing would be left"),
        (
            [layer("Conv2DTranspose", "up", filters=1, kernel_size=2, padding="same", strides=2, output_padding=0)],
            (1, 8, 3),
            "layer 'up' (Conv2DTranspose) cannot take 1x8x3: nothing would be left",
        ),
        ([layer("Reshape", "shape", target_shape=[5, -1])], (8, 8, 3), "192 values do not make the shape [5, -1]"),
        ([layer("Reshape", "shape", target_shape=[5, 5])], (8, 8, 3), "192 values do not make the shape [5, 5]"),
        (
            [layer("Flatten", "flat"), layer("Dense", "head", units=2)],
            (None, None, 3),
            "put the size of the images into batch_input_shape",
        ),
        ([layer("BatchNormalization", "norm", axis=1)], (None, 8, 3), "put the size of the images"),
        ([layer("Conv2D", "conv", filters=1, kernel_size=1)], (8, 8, None), "must be a number"),
        ([layer("Dense", "huge", units=2**31 - 1)], (2**31 - 1,), "layer 'huge': its weights do not fit into memory"),
    ],
)
def test_networks_that_cannot_be_built(layers: list[Document], shape: tuple[int | None, ...], message: str) -> None:
    with pytest.raises(NetworkError) as caught:
        chain(*layers, shape=shape)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_inputs_or_outputs_are_refused() -> None:
    document = diamond()
    document["config"]["layers"].append(layer("ReLU", "other", "left"))
    document["config"]["output_layers"].append(["other", 0, 0])
    with pytest.raises(NetworkError, match="1 inputs and 2 outputs"):
        Network(read_network(document))


def test_open_sizes_are_fine_where_no_layer_depends_on_them() -> None:
    network = chain(
        layer("Conv2D", "conv", filters=4, kernel_size=3, strides=2, padding="same"),
        layer("GlobalAveragePooling2D", "pool"),
        layer("Dense", "head", units=2),
        shape=(None, None, 3),
    )
    assert network(torch.zeros(1, 3, 17, 9)).shape == (1, 2)


def called_twice(**config: object) -> Network:
    """data -> conv -> conv -> norm, the same conv twice, the norm called with training=False."""
    entries = [
        layer("InputLayer", "data", batch_input_shape=[None, 4, 4, 3]),
        layer("Conv2D", "conv", **{"filters": 3, "kernel_size": 1, "activation": "relu", **config}),
        layer("BatchNormalization", "norm"),
    ]
    entries[1]["inbound_nodes"] = [[["data", 0, 0, {}]], [["conv", 0, 0, {}]]]
    entries[2]["inbound_nodes"] = [[["conv", 1, 0, {"training": False}]]]
    return Network(read_network(entries))


def test_a_shared_layer_has_its_weights_once() -> None:
    network = called_twice()
    assert list(network.state_dict())[:2] == ["conv.weight", "conv.bias"]
    assert [spec.name for spec, _ in network.keras_layers()] == ["conv", "norm"]
    assert count_parameters(network) == ParameterCounts(total=12 + 6, trainable=12 + 6)
    conv = network.get_submodule("conv")
    inputs = torch.randn(1, 3, 4, 4)
    twice = network.get_submodule("norm")(conv(conv(inputs).relu()).relu())
    torch.testing.assert_close(network(inputs), twice)


def test_a_layer_called_with_training_false_stays_in_evaluation_mode() -> None:
    network = called_twice().train()
    before = network.state_dict()["norm.running_mean"].clone()
    network(torch.randn(2, 3, 4, 4))
    assert torch.equal(network.state_dict()["norm.running_mean"], before)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_shared_layer_whose_inputs_differ_is_refused() -> None:
    with pytest.raises(NetworkError, match="layer 'conv' is called with inputs that need other weights"):
        called_twice(filters=5)


def test_the_same_seed_gives_the_same_network() -> None:
    networks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        networks.append(Network(read_network(smoke_test_layers())).state_dict())
    assert all(torch.equal(values, networks[1][name]) for name, values in networks[0].items())
    assert not torch.equal(networks[0]["conv1.weight"], networks[2]["conv1.weight"])
