"""Reading network files: every form that Keras writes, and every way in which a file can be wrong."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmldnn_contract.exit_status import NetworkError
from rmldnn_torch.keras_graph import INPUT_CLASS, NetworkInput, count_operations, read_network

Document = dict[str, Any]


def layer(class_name: str, name: str, *inputs: str, **config: object) -> Document:
    """A layer as Keras writes it."""
    nodes = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
    return {"class_name": class_name, "config": {"name": name, **config}, "name": name, "inbound_nodes": nodes}


def diamond() -> Document:
    """data -> left, right -> sum."""
    layers = [
        layer(INPUT_CLASS, "data", batch_input_shape=[None, None, 16, 3]),
        layer("Conv2D", "left", "data", filters=4, kernel_size=1, trainable=False),
        layer("Conv2D", "right", "data", filters=4, kernel_size=1, activation="relu"),
        layer("Add", "sum", "right", "left"),
    ]
    config = {"name": "diamond", "layers": layers, "input_layers": [["data", 0, 0]], "output_layers": [["sum", 0, 0]]}
    return {"class_name": "Functional", "config": config, "keras_version": "2.8.0", "backend": "tensorflow"}


def smoke_test_layers() -> list[object]:
    """The published smoke-test network: inline layers without InputLayer and without inbound_nodes."""

    def bare(class_name: str, name: str, **config: object) -> Document:
        return {"class_name": class_name, "config": {"name": name, **config}}

    return [
        bare(
            "Conv2D", "conv1", batch_input_shape=[None, 28, 28, 1], filters=10, kernel_size=[5, 5], activation="linear"
        ),
        bare("MaxPooling2D", "max_pool_1", pool_size=[2, 2]),
        bare("Activation", "relu_1", activation="relu"),
        bare("Conv2D", "conv2", filters=20, kernel_size=[5, 5], activation="linear"),
        bare("SpatialDropout2D", "spat_drop", rate=0),
        bare("MaxPooling2D", "max_pool_2", pool_size=[2, 2]),
        bare("Activation", "relu_2", activation="relu"),
        bare("Flatten", "flatten_1", data_format="channels_last"),
        bare("Dense", "fc1", units=50, activation="linear", use_bias=True),
        bare("Activation", "relu_3", activation="relu"),
        bare("Dropout", "dropout", rate=0),
        bare("Dense", "fc2", units=2, activation="linear", use_bias=True),
        bare("Activation", "softmax", activation="log_softmax", axis=1),
    ]


def test_functional_model() -> None:
    graph = read_network(diamond())
    assert graph.name == "diamond"
    assert [spec.name for spec in graph.layers] == ["data", "left", "right", "sum"]
    assert graph.layers[3].inputs == ("right", "left")  # the order of the call, which Subtract depends on
    assert [spec.trainable for spec in graph.layers] == [True, False, True, True]
    assert graph.inputs == (NetworkInput("data", (None, 16, 3)),)
    assert graph.outputs == ("sum",)
    assert count_operations(graph) == 5  # four layers, one inline activation


def test_layers_come_after_what_feeds_them() -> None:
    document = diamond()
    document["config"]["layers"].reverse()
    assert [spec.name for spec in read_network(document).layers] == ["data", "right", "left", "sum"]


def test_class_model_and_outputs_that_are_not_named() -> None:
    document = diamond()
    document["class_name"] = "Model"
    del document["config"]["output_layers"]
    assert read_network(document).outputs == ("sum",)


def test_inline_layers_without_inputs_follow_each_other() -> None:
    graph = read_network(smoke_test_layers())
    assert graph.layers[0].name == "conv1_input"
    assert [spec.inputs for spec in graph.layers[1:]] == [(spec.name,) for spec in graph.layers[:-1]]
    assert graph.inputs[0].shape == (28, 28, 1)
    assert graph.outputs == ("softmax",)
    assert count_operations(graph) == 14


def test_sequential_of_old_and_new() -> None:
    layers = smoke_test_layers()
    new = read_network({"class_name": "Sequential", "config": {"name": "sequential_3", "layers": layers}})
    old = read_network({"class_name": "Sequential", "config": layers, "keras_version": "2.1.0"})
    assert new.layers == old.layers
    assert (new.name, old.name) == ("sequential_3", "sequential")


@pytest.mark.parametrize("form", ["data", ["data", 0, 0], ["data", 0, 0, {}], [["data", 0, 0, {"training": None}]]])
def test_forms_of_an_inbound_node(form: object) -> None:
    document = diamond()
    document["config"]["layers"][1]["inbound_nodes"] = [form if isinstance(form, list) else [form]]
    assert read_network(document).layers[1].inputs == ("data",)


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "net.json"
    path.write_text(json.dumps(diamond()), encoding="utf-8")
    assert read_network(path) == read_network(str(path))
    assert read_network(path).source == str(path)


def test_a_file_that_is_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="No such file"):
        read_network(tmp_path / "missing.json")
    with pytest.raises(NetworkError, match="Is a directory"):
        read_network(tmp_path)
    with pytest.raises(NetworkError, match="Cannot read"):
        read_network("null\0character")
    for text in (b'{"class_name": ', b"\xff\xfe", b"", b"[" * 100_000):
        (tmp_path / "net.json").write_bytes(text)
        with pytest.raises(NetworkError, match="not JSON") as caught:
            read_network(tmp_path / "net.json")
        assert "\n" not in str(caught.value)


def _without(key: str) -> Any:
    return lambda document: document["config"]["layers"][1].pop(key)


def _layer(index: int, **changes: object) -> Any:
    return lambda document: document["config"]["layers"][index].update(changes)


def _config(index: int, **changes: object) -> Any:
    return lambda document: document["config"]["layers"][index]["config"].update(changes)


def _model(**changes: object) -> Any:
    return lambda document: document["config"].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(class_name="Conv2D"), "Functional, Model or Sequential, found 'Conv2D'"),
        (lambda document: document.pop("config"), "no list 'layers'"),
        (_model(layers=[]), "there are no layers"),
        (_model(layers=[1]), "layer 1 is a number"),
        (_model(layers=[None]), "layer 1 is null"),
        (_model(output_layers=[]), "output_layers names no layer"),
        (_model(output_layers=[["total", 0, 0]]), "names 'total', which is not there"),
        (_model(output_layers=[["left", 0, 0]]), "layer 'sum' leads to no output"),
        (_without("class_name"), "layer 2 lacks class_name"),
        (lambda document: [_without("name")(document), _config(1, name="")(document)], "layer 2 (Conv2D) has no name"),
        (_layer(1, name="right"), "two layers are named 'right'"),
        (_layer(1, class_name="Functional"), "its config has no list 'layers'"),
        (_layer(1, inbound_nodes=[]), "layer 'left' has no inputs"),
        (_layer(1, inbound_nodes=[[]]), "layer 'left' has no inputs"),
        (_layer(1, inbound_nodes=[["data"], ["data"]]), "layer 'left/call_2' leads to no output"),
        (_layer(1, inbound_nodes=[["date"]]), "layer 'left' names 'date', which is not there"),
        (_layer(1, inbound_nodes=[[["data", 1, 0, {}]]]), "layer 'left' names call 2 of 'data', which has 1"),
        (_layer(1, inbound_nodes=[[["data", 0, 1, {}]]]), "layer 'left' names output 2 of 'data', which has 1"),
        (_layer(1, inbound_nodes=[[["data", 0, 0, {"training": True}]]]), "is called with {'training': True}"),
        (_layer(1, inbound_nodes=[[["data", 0, 0, {"mask": 3}]]]), "layer 'left' is called with {'mask': 3}"),
        (_layer(1, inbound_nodes=[[[0, 0, 0]]]), "layer 'left' names an input in a form"),
        (_layer(1, inbound_nodes=[["sum"]]), "from itself"),
        (_layer(0, inbound_nodes=[["sum"]]), "layer 'data' is an InputLayer and has inputs"),
        (_config(1, trainable="no"), "layer 'left': trainable must be true or false, not 'no'"),
        (_config(0, batch_input_shape=[None, 0, 16, 3]), "layer 'data': 0 in batch_input_shape"),
        (_config(0, batch_input_shape=[None, True, 16, 3]), "layer 'data': True in batch_input_shape"),
        (_config(0, batch_input_shape=[None]), "layer 'data': batch_input_shape must have 2 to 5 sizes"),
        (_config(0, batch_input_shape=None), "layer 'data': batch_input_shape must have 2 to 5 sizes"),
    ],
)
def test_what_is_wrong_is_named(change: Any, message: str) -> None:
    document = diamond()
    change(document)
    with pytest.raises(NetworkError) as caught:
        read_network(document)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def model_entry(name: str, layers: list[Document], *inputs: str, **config: object) -> Document:
    """A model in the place of a layer; its last layer is its output."""
    last = layers[-1]["config"]["name"]
    ends = {"input_layers": [["entry", 0, 0]], "output_layers": [[last, 0, 0]]}
    return layer("Functional", name, *inputs, **{**ends, "layers": layers, **config})


def outer(*entries: Document) -> Document:
    """A network of ``data`` and those layers, the last of them its output."""
    document = diamond()
    inputs = document["config"]["layers"][0]
    document["config"] |= {"layers": [inputs, *entries], "output_layers": [[entries[-1]["name"], 0, 0]]}
    return document


def entry() -> Document:
    return layer(INPUT_CLASS, "entry", batch_input_shape=[None, None, 16, 3])


def test_a_model_inside_the_model_gives_way_to_its_layers() -> None:
    inner = model_entry("trunk", [entry(), layer("Conv2D", "conv", "entry", filters=3)], "data", trainable=False)
    graph = read_network(outer(inner, layer("ReLU", "relu", "trunk")))
    assert [(spec.name, spec.inputs, spec.trainable) for spec in graph.layers] == [
        ("data", (), True),
        ("conv", ("data",), False),
        ("relu", ("conv",), True),
    ]


def test_calls_of_a_model_inside_the_model() -> None:
    """Keras counts the calls of a model from 1, its building being node 0."""
    inner = model_entry("trunk", [entry(), layer("Conv2D", "conv", "entry", filters=3)])
    inner["inbound_nodes"] = [[["data", 0, 0, {"training": False}]], [["trunk", 1, 0, {"training": False}]]]
    last = layer("Subtract", "difference")
    last["inbound_nodes"] = [[["trunk", 1, 0, {}], ["trunk", 2, 0, {}]]]
    calls = read_network(outer(inner, last)).layers[1:]
    assert [(spec.name, spec.inputs, spec.shares, spec.as_inference) for spec in calls] == [
        ("conv", ("data",), None, True),
        ("conv/call_2", ("conv",), "conv", True),
        ("difference", ("conv", "conv/call_2"), None, False),
    ]


def test_layers_of_one_name_in_several_models_are_named_after_their_models() -> None:
    left, right = (
        model_entry(name, [entry(), layer("Conv2D", "conv", "entry", filters=3), layer("ReLU", own, "conv")], source)
        for name, own, source in (("left", "a", "conv"), ("right", "b", "left"))
    )
    graph = read_network(outer(layer("Conv2D", "conv", "data", filters=3), left, right))
    assert [spec.name for spec in graph.layers] == ["data", "conv", "left/conv", "a", "right/conv", "b"]


def test_a_sequential_of_keras_2_1_that_begins_with_a_model() -> None:
    conv = {"class_name": "Conv2D", "config": {"name": "conv", "filters": 3, "batch_input_shape": [None, 8, 8, 1]}}
    inner = {"class_name": "Sequential", "config": [conv], "name": "inner"}
    graph = read_network(
        {"class_name": "Sequential", "config": [inner, layer("Flatten", "flat") | {"inbound_nodes": None}]}
    )
    assert [(spec.name, spec.inputs) for spec in graph.layers] == [
        ("inner_input", ()),
        ("conv", ("inner_input",)),
        ("flat", ("conv",)),
    ]
    assert graph.inputs == (NetworkInput("inner_input", (8, 8, 1)),)


def deeply_nested(depth: int) -> Document:
    inner = model_entry("m", [entry(), layer("ReLU", "relu", "entry")])
    for _ in range(depth):
        inner["inbound_nodes"] = [[["entry", 0, 0, {}]]] + [[["m", number, 0, {}]] for number in range(9)]
        inner = model_entry("m", [entry(), inner], output_layers=[["m", 9, 0]])
    inner["inbound_nodes"] = [[["data", 0, 0, {}]]]
    return outer(inner)


def _same_names() -> Document:
    relu = layer("ReLU", "relu", "entry")
    return outer(model_entry("trunk", [entry(), relu, layer("ReLU", "relu", "relu")], "data"))


def _mixed_training() -> Document:
    document = outer(layer("Dropout", "shared", rate=0.5))
    document["config"]["layers"][1]["inbound_nodes"] = [[["data", 0, 0, {"training": False}]], [["shared", 0, 0]]]
    document["config"]["output_layers"] = [["shared", 1, 0]]
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (outer(model_entry("trunk", [entry(), layer("ReLU", "relu", "entry")], "data", "data")), "is called with 2"),
        (outer(model_entry("trunk", [entry(), layer("ReLU", "relu", "data")], "data")), "names 'data', which is not"),
        (outer(model_entry("trunk", [entry()], "trunk", output_layers=[["entry", 0, 0]])), "from itself"),
        (outer(model_entry("trunk", [entry(), layer("ReLU", "relu", "entry")], "data", trainable=1)), "trainable must"),
        (_same_names(), "two layers are named 'relu'"),
        (_mixed_training(), "layer 'shared' is called with training=False and without"),
        (deeply_nested(12), "more than 100000 times"),
        (deeply_nested(20), "more than 16 deep"),
    ],
)
def test_what_is_wrong_with_models_inside_models_is_named(document: Document, message: str) -> None:
    with pytest.raises(NetworkError) as caught:
        read_network(document)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_first_layer_without_shape() -> None:
    with pytest.raises(NetworkError, match="first layer 'a' has no batch_input_shape"):
        read_network([{"class_name": "Dense", "config": {"name": "a", "units": 1}}])


def nested() -> Document:
    """data -> conv (twice, in a model) -> sum."""
    inner = model_entry("trunk", [entry(), layer("Conv2D", "conv", "entry", filters=3, kernel_size=1)])
    inner["inbound_nodes"] = [[["data", 0, 0, {}]], [["trunk", 1, 0, {}]]]
    last = layer("Add", "sum")
    last["inbound_nodes"] = [[["trunk", 1, 0, {}], ["trunk", 2, 0, {}]]]
    return outer(inner, last)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_any_json_value_is_a_graph_or_a_network_error(value: Any) -> None:
    with pytest.raises(NetworkError):
        read_network(value)  # drawn at random, none of them is a network


@given(st.data())
def test_a_damaged_network_is_a_graph_or_a_network_error(data: st.DataObject) -> None:
    """A value somewhere in a good file is replaced by any other."""
    document = copy.deepcopy(data.draw(st.sampled_from([diamond(), nested()])))
    node: Any = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(node[key], dict | list) or not node[key] or data.draw(st.booleans()):
            break
        node = node[key]
    node[key] = data.draw(JSON_VALUES)
    try:
        graph = read_network(document)
    except NetworkError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right, but never another exception
    else:
        assert {name for spec in graph.layers for name in spec.inputs} <= {spec.name for spec in graph.layers}
