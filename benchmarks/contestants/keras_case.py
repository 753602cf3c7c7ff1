"""What the contestants on Keras share."""

from __future__ import annotations

import json
from pathlib import Path

from contestants.case import Case


def network_document(case: Case) -> str:
    """The network file without the precision of its layers, so that Keras's policy decides it."""
    document = json.loads(Path(case.network).read_text(encoding="utf-8"))
    for layer in document["config"]["layers"]:
        layer["config"].pop("dtype", None)
    return json.dumps(document)


def policy(case: Case) -> str:
    """Keras's name for the precision."""
    return "mixed_bfloat16" if case.precision == "bf16" else "float32"
