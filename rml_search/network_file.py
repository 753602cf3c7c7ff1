"""A first look at a network file, before anything is started or moved.

Whether every layer is known and fits the data is the engine's to say; this finds what is no Keras
network at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rml_search.errors import NetworkFileError


@dataclass(frozen=True)
class NetworkFile:
    """What is known of a network without its engine; ``input_channels`` is None where the file does not say."""

    input_channels: int | None


def check_network_file(path: Path) -> NetworkFile:
    """Raises NetworkFileError unless ``path`` holds the JSON of a Keras network with layers."""
    if path.exists() and not path.is_file():
        raise NetworkFileError(f"{path} is no file: name one with --layers")
    try:
        # Editors on Windows begin a file with a byte order mark.
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise NetworkFileError(f"there is no network file {path}: name one with --layers") from None
    except (OSError, UnicodeDecodeError) as error:
        raise NetworkFileError(f"cannot read the network file {path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise NetworkFileError(f"{path} is not a JSON document: {error}") from None
    layers = _layers(document)
    if not layers:
        raise NetworkFileError(f"{path} is no Keras network: save one with model.to_json()")
    for number, layer in enumerate(layers):
        if not isinstance(layer, dict) or "class_name" not in layer:
            raise NetworkFileError(f"{path}: layer {number} has no class_name; save the network with model.to_json()")
    return NetworkFile(_input_channels(layers))


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
