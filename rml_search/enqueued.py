"""Hyperparameters that a person puts in line with ``--enqueue``."""

from __future__ import annotations

import json
from typing import Any

from rml_search.errors import OptionError
from rml_search.search_space import LOSS, OPTIMIZER


def parse_point(text: str) -> dict[str, Any]:
    """The hyperparameters of one ``--enqueue``, names in lower case. Raises OptionError."""
    try:
        point = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--enqueue: {text[:80]!r} is not valid JSON: {error}") from None
    if not isinstance(point, dict) or not point:
        raise OptionError(
            f'--enqueue: {text!r} is not an object such as {{"optimizer": "adam", "learning_rate": 0.001}}'
        )
    named = {OPTIMIZER, LOSS}  # in any case
    return {name: value.lower() if name in named and isinstance(value, str) else value for name, value in point.items()}
