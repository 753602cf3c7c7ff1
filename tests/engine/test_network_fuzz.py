"""Any JSON as a network file gives a network or one line that says what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmldnn_contract.exit_status import EngineError, MemoryExhaustedError
from rmldnn_torch.command_line import as_engine_error
from rmldnn_torch.graph_drawing import draw
from rmldnn_torch.keras_graph import count_operations, read_network
from rmldnn_torch.layers import known_classes
from rmldnn_torch.network import Network, count_parameters

from .keras_references_reader import read_references
from .published_networks import published
from .test_keras_graph import diamond, nested

Document = dict[str, Any]

REFERENCES = [reference.network for reference in read_references()]
# Sizes that a person may write, and those that overflow; what lies between would only be slow.
INTEGERS = st.integers(-3, 40) | st.sampled_from([2**31 - 1, 2**31, 2**63, -(2**63)])
WORDS = st.sampled_from([*known_classes(), "same", "valid", "relu", "softmax", "data", "model", "zeros", "orthogonal"])
SETTINGS = st.sampled_from(
    sorted({key for network in REFERENCES for spec in read_network(network).layers for key in spec.config})
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | INTEGERS | st.floats() | WORDS | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(WORDS, children, max_size=4),
    max_leaves=8,
)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """All containers in a JSON value with their keys."""
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from places(node[key])


def build(document: Any) -> None:
    """Everything that the engine does with a network before it sees data."""
    try:
        graph = read_network(document)
        network = Network(graph)
    except EngineError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right, but never another exception
        return
    assert count_operations(graph) >= len(graph.layers)
    assert count_parameters(network).total >= count_parameters(network).trainable
    assert draw(network).startswith("digraph ")
    sizes = [size or 64 for size in network.input_shape]
    if np.prod(sizes) < 1e5:
        shape = network.check(*sizes[1:])
        try:
            with torch.no_grad():
                given_shape = network.eval()(torch.zeros(1, *sizes)).shape
        except RuntimeError as error:
            # A dilation of billions pads an image beyond any memory, which a run tells in one line.
            if not isinstance(as_engine_error(error), MemoryExhaustedError):
                raise
        else:
            assert given_shape == (1, *shape)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_network_is_built_or_refused(data: st.DataObject) -> None:
    """One or two values anywhere in a good file replaced by any others, or taken out."""
    document = copy.deepcopy(data.draw(st.sampled_from([diamond(), nested(), *REFERENCES])))
    for _ in range(data.draw(st.integers(1, 2))):
        container, key = data.draw(st.sampled_from(list(places(document))))
        if isinstance(container, dict) and data.draw(st.booleans()):
            del container[key]
        else:
            container[key] = data.draw(JSON_VALUES)
    build(json.loads(json.dumps(document)))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({"class_name": WORDS, "config": st.dictionaries(SETTINGS, JSON_VALUES)}), max_size=4)
)
def test_layers_of_any_settings_are_built_or_refused(layers: list[Document]) -> None:
    shape = {"batch_input_shape": [None, 8, 8, 3]}
    entry: Document = {"class_name": "InputLayer", "config": {"name": "data", **shape}}
    for index, layer in enumerate(layers):
        layer["config"]["name"] = f"layer_{index}"
    build([entry, *layers])


@pytest.mark.parametrize("name", ["xception", "mnist"])
def test_published_networks_are_built(name: str) -> None:
    build(published(name))


def test_a_dilation_beyond_any_memory_is_no_other_error() -> None:
    """Found by the test above."""
    shape = {"batch_input_shape": [None, 7, 10, 4]}
    dilated = {"filters": 3, "kernel_size": [3, 2], "padding": "same", "dilation_rate": [2**31 - 1, 3]}
    build(
        [
            {"class_name": "InputLayer", "config": {"name": "data", **shape}},
            {"class_name": "Conv2D", "config": {"name": "conv", **dilated}},
        ]
    )
