"""Every key of the configuration: its type, range and default from the models, its meaning from ``key_meanings``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import cleandoc
from typing import Any

from pydantic import BaseModel

from key_meanings import meaning_of
from rmldnn_contract.config import Checkpoints, Configuration, Loss, NeuralNetwork
from rmldnn_contract.data import Data, Slicer
from rmldnn_contract.optimizer import OPTIMIZERS, SCHEDULERS
from rst import code, heading, paragraph, table

Schema = Mapping[str, Any]

_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("neural_network", NeuralNetwork),
    ("checkpoints", Checkpoints),
    ("data", Data),
    ("slicers", Slicer),
    ("loss", Loss),
)
_TRANSFORMS = "transforms"
_LARGEST_COUNT = 2**31  # a limit of libraries, not of the configuration's meaning
_NUMBER_NAMES = {"integer": "whole number", "number": "number", "boolean": "``true`` or ``false``", "string": "text"}
_PLURALS = {"integer": "whole numbers", "number": "numbers", "string": "texts", "object": "objects"}
_COLUMNS = (("Key", 18), ("Value", 22), ("Default", 14), ("Meaning", 46))


def configuration_reference() -> str:
    """A section for each object of the document."""
    definitions = Configuration.model_json_schema()["$defs"]
    lines: list[str] = []
    for title, model in _SECTIONS:
        lines += _section(title, model, definitions)
        if title == "data":
            lines += _transforms(definitions)
    lines += [*heading("optimizer", "-"), *paragraph("An object whose ``type`` says which other keys it has.")]
    for name, model in OPTIMIZERS.items():
        lines += _section(name, model, definitions, underline="~")
    text = "An object in an optimizer whose ``type`` says which other keys it has."
    lines += [*heading("lr_scheduler", "-"), *paragraph(text)]
    for name, model in SCHEDULERS.items():
        lines += _section(name, model, definitions, underline="~")
    return "\n".join(lines)


def _section(title: str, model: type[BaseModel], definitions: Schema, *, underline: str = "-") -> list[str]:
    schema = definitions[model.__name__]
    required = schema.get("required", ())
    rows = [
        (code(key), _value(field), _default(field, is_required=key in required), meaning_of(model.__name__, key))
        for key, field in schema["properties"].items()
    ]
    return [*heading(title, underline), *paragraph(cleandoc(model.__doc__ or "")), *table(_COLUMNS, rows, "keys")]


def _transforms(definitions: Schema) -> list[str]:
    """The transforms are objects of one key each, which their own documentation explains."""
    choices = definitions["Data"]["properties"][_TRANSFORMS]["anyOf"][0]["items"]["oneOf"]
    rows = []
    for choice in choices:
        schema = definitions[choice["$ref"].rpartition("/")[2]]
        ((key, field),) = schema["properties"].items()
        value = _value(field)
        if inner := field.get("$ref"):
            fields = definitions[inner.rpartition("/")[2]]["properties"]
            value = "object: " + ", ".join(
                f"{code(name)} ({_value(each)}{_default_in_words(each)})" for name, each in fields.items()
            )
        rows.append((code(key), value, " ".join(cleandoc(schema["description"]).split())))
    text = "A list of objects of one key each. They are applied in their order; random ones differ from epoch to epoch."
    columns = (("Transform", 24), ("Value", 32), ("Meaning", 44))
    return [*heading(_TRANSFORMS, "-"), *paragraph(text), *table(columns, rows, "keys")]


def _default_in_words(field: Schema) -> str:
    return f"; default {_json(field['default'])}" if "default" in field else ""


def _default(field: Schema, *, is_required: bool) -> str:
    if is_required:
        return "required"
    default = field["default"]
    if default is None:
        return "absent"
    # An object's defaults stand in its own section.
    return "its own" if isinstance(default, dict) else _json(default)


def _json(value: object) -> str:
    return code(json.dumps(value))


def _value(field: Schema) -> str:
    """The type of a value and its range, in words."""
    if field.keys() & {"$ref", "oneOf"} or field.get("type") == "object":
        return "object"
    if "anyOf" in field:
        return " or ".join(_value(choice) for choice in field["anyOf"] if choice.get("type") != "null")
    if "const" in field:
        return _json(field["const"])
    if "enum" in field:
        return ", ".join(_json(value) for value in field["enum"])
    if field["type"] == "array":
        return _list(field)
    return _NUMBER_NAMES[field["type"]] + _range(field)


def _list(field: Schema) -> str:
    if "prefixItems" in field:
        first = field["prefixItems"][0]
        return f"list of {len(field['prefixItems'])} {_PLURALS[first['type']]}{_range(first)}"
    item = field["items"]
    return f"list of {_PLURALS[item.get('type', 'object')]}{_range(item)}"


def _range(field: Schema) -> str:
    limits = []
    if "exclusiveMinimum" in field:
        is_count = field["type"] == "integer"
        limits.append(f"at least {field['exclusiveMinimum'] + 1}" if is_count else f"above {field['exclusiveMinimum']}")
    if field.get("minimum", -_LARGEST_COUNT) > -_LARGEST_COUNT:
        limits.append(f"at least {field['minimum']}")
    if field.get("exclusiveMaximum", _LARGEST_COUNT) < _LARGEST_COUNT:
        limits.append(f"below {field['exclusiveMaximum']}")
    if "maximum" in field:
        limits.append(f"at most {field['maximum']}")
    return f", {' and '.join(limits)}" if limits else ""
