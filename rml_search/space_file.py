"""A search space in a TOML file: each table is a dimension, named by its path in the document.

    ["optimizer.weight_decay"]
    low = 1e-6
    high = 1e-2
    log = true

    ["optimizer.momentum"]
    low = 0.0
    high = 0.99
    when = { optimizer = "sgd" }

    ["data.batch_size"]
    choices = [8, 16, 32]

    ["data.transforms".choices]
    plain = [{ resize = [256, 256] }]
    flipped = [{ resize = [256, 256] }, { random_horizontal_flip = 0.5 }]

Bounds without a decimal point make a range of whole numbers. An empty table as a choice leaves the key out.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rml_search.errors import OptionError
from rml_search.options import LOSS_NAMES, OPTIMIZER_NAMES
from rml_search.search_space import (
    LAYERS,
    LOSS,
    OPTIMIZER,
    PATHS,
    Choices,
    Dimension,
    Domain,
    FloatRange,
    IntRange,
    Value,
)
from rmldnn_contract.names import canonical_name, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_RANGE_KEYS = ("low", "high", "log", "step")
_KEYS = (*_RANGE_KEYS, "choices", "when")
#: The names of the dimensions that every search has, by their paths.
_SHORT_NAMES = {path: name for name, path in PATHS.items()}
_KNOWN_NAMES = {OPTIMIZER: ("optimizer", OPTIMIZER_NAMES), LOSS: ("loss", LOSS_NAMES)}
_MAX_WHOLE_NUMBER = 2**53  # what the database and JSON's readers keep exactly

#: A choice that leaves the key out of the document.
LEFT_OUT: Mapping[str, Any] = {}


def read_search_space(file: Path) -> tuple[Dimension, ...]:
    """The dimensions of a file, in an order in which each follows those that its conditions name.

    Raises:
        OptionError: the file cannot be read, or a dimension of it cannot be.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise OptionError(f"--search-space: there is no file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--search-space: cannot read {file}: {error}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(f"--search-space: {file} is not valid TOML: {error}") from None
    if not document:
        raise OptionError(f'--search-space: {file} contains no dimension, such as ["optimizer.weight_decay"]')
    dimensions = [_Reader(file, path).dimension(table) for path, table in _tables(file, document)]
    return _in_order(file, dimensions)


def _tables(file: Path, document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Path and table of each dimension; ``[optimizer.weight_decay]``, without quotes, is the same."""
    found: list[tuple[str, Mapping[str, Any]]] = []

    def look(path: str, value: object) -> None:
        if not isinstance(value, dict):
            raise OptionError(
                f"--search-space: {file}: {path} is not a table: write [{_quoted(path)}] with low and high"
            )
        if value and not value.keys() & {"low", "high", "choices"} and all(isinstance(v, dict) for v in value.values()):
            for key, inner in value.items():
                look(f"{path}.{key}", inner)
            return
        found.append((path, value))

    for key, value in document.items():
        look(key, value)
    names = [_short(path) for path, _ in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"--search-space: {file}: {twice} is there twice")
    return found


class _Reader:
    """Reads one dimension; every error names the file and the dimension."""

    def __init__(self, file: Path, path: str) -> None:
        self._file = file
        self._path = path.removeprefix("neural_network.")

    def dimension(self, table: Mapping[str, Any]) -> Dimension:
        for key in table:
            if key not in _KEYS:
                raise self.error(unknown_name("key", key, _KEYS))
        name = _short(self._path)
        path = PATHS.get(name, self._path)
        if not all(path.split(".")):
            raise self.error("a path is names separated by dots, such as optimizer.weight_decay")
        if name in PATHS and "when" in table:
            raise self.error("every trial has one: remove when")
        return Dimension(name, path, self._domain(name, table), self._conditions(table.get("when", {})))

    def error(self, what: str) -> OptionError:
        return OptionError(f"--search-space: {self._file}: {self._path}: {what}")

    def _domain(self, name: str, table: Mapping[str, Any]) -> Domain:
        given = [key for key in _RANGE_KEYS if key in table]
        if "choices" in table:
            if given:
                raise self.error(f"choices and {given[0]} cannot be combined")
            return self._choices(name, table["choices"])
        if "low" not in table or "high" not in table:
            raise self.error("needs low and high, or choices")
        if name in {*_KNOWN_NAMES, LAYERS}:
            raise self.error("takes names, not numbers: use choices")
        return self._range(table)

    def _choices(self, name: str, choices: object) -> Choices:
        if isinstance(choices, dict) and choices:
            return Choices(tuple(choices), tuple(choices.values()))
        if not isinstance(choices, list) or not choices:
            raise self.error("choices must be a non-empty list of values or table of names and values")
        if not all(isinstance(value, (str, int, float, bool)) for value in choices):
            raise self.error("choices other than numbers and strings need names: choices = { NAME = VALUE, ... }")
        if any(isinstance(value, float) and value - value != 0 for value in choices):
            raise self.error("choices must be finite")
        values = tuple(self._known(name, value) for value in choices)
        if len(set(map(repr, values))) < len(values):
            raise self.error("choices contains a value twice")
        return Choices(values)

    def _known(self, name: str, value: Value) -> Value:
        """An optimizer or loss in the spelling of the study; any other value as it is."""
        if name not in _KNOWN_NAMES:
            return value
        kind, known = _KNOWN_NAMES[name]
        found = canonical_name(str(value), known)
        if found is None:
            raise self.error(unknown_name(kind, str(value), known))
        return found.lower()

    def _range(self, table: Mapping[str, Any]) -> FloatRange | IntRange:
        low, high = self._number("low", table["low"]), self._number("high", table["high"])
        step = self._number("step", table["step"]) if "step" in table else None
        log = table.get("log", False)
        if not isinstance(log, bool):
            raise self.error(f"log must be true or false, not {log!r}")
        if low > high:
            raise self.error(f"low ({low:g}) is above high ({high:g}): swap them")
        if log and (low <= 0 or step is not None):
            raise self.error("a logarithmic scale needs a low above 0 and no step")
        if step is not None and (step <= 0 or (low + step > high and low != high)):
            raise self.error(f"step must be above 0 and fit between low and high, not {step:g}")
        if isinstance(low, int) and isinstance(high, int) and not isinstance(step, float):
            return IntRange(low, high, log, step or 1)
        return FloatRange(float(low), float(high), log, None if step is None else float(step))

    def _number(self, key: str, value: object) -> int | float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(f"{key} must be a number, not {value!r}")
        if not abs(value) < _MAX_WHOLE_NUMBER:
            raise self.error(f"{key} must be finite and below 2^53, not {value}")
        return value

    def _conditions(self, when: object) -> tuple[tuple[str, tuple[Value, ...]], ...]:
        if not isinstance(when, dict):
            raise self.error('when must be a table, such as { optimizer = "sgd" } or { optimizer = ["sgd", "lars"] }')
        conditions = []
        for path, wanted in when.items():
            name = _short(path)
            values = wanted if isinstance(wanted, list) else [wanted]
            if not values or not all(isinstance(value, (str, int, float, bool)) for value in values):
                raise self.error(f"when.{path} must be a value or a list of values")
            conditions.append((name, tuple(self._known(name, value) for value in values)))
        return tuple(conditions)


def _in_order(file: Path, dimensions: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """Each dimension after those of the file that it depends on. Raises OptionError where they wait for each other."""
    names = {dimension.name for dimension in dimensions}
    ordered: list[Dimension] = []
    left = list(dimensions)
    while left:
        placed = {dimension.name for dimension in ordered}
        ready = [dim for dim in left if all(name in placed or name not in names for name, _ in dim.when)]
        if not ready:
            raise OptionError(f"--search-space: {file}: the conditions of {left[0].name} are circular")
        ordered += ready
        left = [dim for dim in left if dim not in ready]
    return tuple(ordered)


def _short(path: str) -> str:
    path = path.removeprefix("neural_network.")
    return _SHORT_NAMES.get(path, path)


def _quoted(path: str) -> str:
    return f'"{path}"' if "." in path else path
