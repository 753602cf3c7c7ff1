"""A first look at a network file, before anything is started or moved.

Whether every layer is known and fits the data is the engine's to say; this finds what is no Keras
network at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rml_search.errors import NetworkFileError, OptionError

if TYPE_CHECKING:
    from rml_search.options import SearchOptions

#: How the document names what a network ends in (contract, section 5).
_SOURCES = frozenset({"sigmoid", "softmax"})
_ALIASES = {"log_softmax_v2": "log_softmax"}
#: Classes that are an activation and nothing else, besides Keras's ``Activation``, which names one.
_ACTIVATION_CLASSES = frozenset({"sigmoid", "softmax", "log_softmax", "tanh", "swish", "relu", "leakyrelu"})
#: Axes of an image of (batch, height, width, channels) that are its channels.
_CHANNEL_AXES = (-1, 3, [-1], [3])


@dataclass(frozen=True)
class NetworkFile:
    """What is known of a network without its engine.

    ``input_channels`` and ``output_activation`` (Keras's name in lower case, such as ``sigmoid`` or ``linear``)
    are None where the file does not say.
    """

    input_channels: int | None
    output_activation: str | None

    @property
    def loss_source(self) -> str | None:
        """The document's ``loss.source``; None where it has no name for it, and the engine looks for itself."""
        return self.output_activation if self.output_activation in _SOURCES else None


def check_network_file(path: Path) -> NetworkFile:
    """Raises NetworkFileError unless ``path`` holds the JSON of a Keras network with layers."""
    if path.exists() and not path.is_file():
        raise NetworkFileError(f"{path} is not a file: give one with --layers")
    try:
        # Editors on Windows begin a file with a byte order mark.
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise NetworkFileError(f"there is no network file {path}: give one with --layers") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NetworkFileError(f"cannot read the network file {path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise NetworkFileError(f"{path} is not a JSON document: {error}") from None
    return check_network(document, str(path))


def check_network(document: object, path: str) -> NetworkFile:
    """What is known of a network; ``path`` is where it was read from. Raises NetworkFileError where it is none."""
    layers = _layers(document)
    if not layers:
        raise NetworkFileError(f"{path} is not a Keras network: save one with model.to_json()")
    for number, layer in enumerate(layers):
        if not isinstance(layer, dict) or "class_name" not in layer:
            raise NetworkFileError(f"{path}: layer {number} has no class_name; save the network with model.to_json()")
    return NetworkFile(_input_channels(layers), _output_activation(document))


def network_texts(options: SearchOptions) -> list[str]:
    """The networks to choose from, as JSON: from their files, or from the person's own configuration."""
    if options.base is not None and not options.layers:
        return [options.base.layers_text]
    return [path.read_text(encoding="utf-8-sig") for path in options.layers]


def check_networks(options: SearchOptions) -> SearchOptions:
    """The options with what is known of their networks, each of which can be judged by each of the losses.

    Raises:
        NetworkFileError: a file is missing or is no Keras network.
        OptionError: a loss does not fit.
    """
    if options.base is not None and not options.layers:
        networks = [check_network(json.loads(options.base.layers_text), str(options.base.path))]
    else:
        networks = [check_network_file(path) for path in options.layers]
    for network in networks:
        check_losses(network, options.losses)
    return replace(options, networks=tuple(networks))


def check_losses(network: NetworkFile, losses: Sequence[str]) -> None:
    """Raises OptionError for the first of the losses that cannot judge what the network gives.

    NLL takes the logarithm of probabilities that sum to 1. All others but MSE, which compares any values, take
    probabilities. What the file does not say is the engine's to judge.
    """
    activation = network.output_activation
    if activation is None:
        return
    for loss in losses:
        if loss == "nll" and activation not in {"softmax", "log_softmax"}:
            raise OptionError(
                f"the loss nll needs a network that ends in softmax or log_softmax, this one ends in {activation}: "
                "remove it from --loss, or give another network with --layers"
            )
        if loss != "mse" and activation not in {"sigmoid", "softmax", "log_softmax"}:
            raise OptionError(
                f"the loss {loss} needs a network that ends in sigmoid, softmax or log_softmax over its channels, "
                f"this one ends in {activation}: use --loss mse, or give another network with --layers"
            )


def _layers(document: object) -> list[Any]:
    if isinstance(document, list):
        return document
    config = document.get("config") if isinstance(document, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else config
    return layers if isinstance(layers, list) else []


def _input_channels(layers: list[dict[str, Any]]) -> int | None:
    config = layers[0].get("config")
    shape = config.get("batch_input_shape") if isinstance(config, dict) else None
    channels = shape[-1] if isinstance(shape, list) and shape else None
    return channels if isinstance(channels, int) else None


def _output_activation(document: object) -> str | None:
    """What the output layer does last; where a model stands in its place, what that one ends in."""
    layer = _output_layer(document)
    if layer is None or _layers(layer):
        return None if layer is None else _output_activation(layer)
    config = layer.get("config")
    if not isinstance(config, dict):
        return None
    class_name = str(layer["class_name"]).lower()
    named = class_name if class_name in _ACTIVATION_CLASSES else config.get("activation")
    if not isinstance(named, str):
        return None
    activation = _ALIASES.get(named, named)
    if "softmax" in activation and config.get("axis", -1) not in _CHANNEL_AXES:
        return f"{activation} over another axis"
    return activation


def _output_layer(document: object) -> dict[str, Any] | None:
    """The only layer that ``output_layers`` names, else the last one; None where the file does not say."""
    layers = _layers(document)
    config = document.get("config") if isinstance(document, dict) else None
    outputs = config.get("output_layers") if isinstance(config, dict) else None
    if outputs is None:
        last = layers[-1] if layers else None
        return last if isinstance(last, dict) and "class_name" in last else None
    match outputs:
        case [str(name), *_] | [[str(name), *_]]:
            named = (layer for layer in layers if isinstance(layer, dict) and "class_name" in layer)
            return next((layer for layer in named if _name(layer) == name), None)
    return None


def _name(layer: dict[str, Any]) -> object:
    config = layer.get("config")
    return layer.get("name", config.get("name") if isinstance(config, dict) else None)
