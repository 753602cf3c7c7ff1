"""What the contestants on Keras share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

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


def save_weights(model: Any, folder: Path, epoch: int) -> None:
    """The weights alone, as the other contestants save them: Keras's own checkpoints hold the optimizer's state too."""
    np.savez(folder / f"{epoch}.npz", *model.get_weights())
