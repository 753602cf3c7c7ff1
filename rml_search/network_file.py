"""A first look at a network file, before anything is started or moved.

Whether every layer is known and fits the data is the engine's to say; this finds what is no Keras
network at all.
"""

from __future__ import annotations

import json
from pathlib import Path

from rml_search.errors import NetworkFileError


def check_network_file(path: Path) -> None:
    """Raises NetworkFileError unless ``path`` holds the JSON of a Keras network with layers."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
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


def _layers(document: object) -> list[object]:
    if isinstance(document, list):
        return document
    config = document.get("config") if isinstance(document, dict) else None
    layers = config.get("layers") if isinstance(config, dict) else config
    return layers if isinstance(layers, list) else []
