"""What makes two searches the same study."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from rml_search.best_model import file_digest
from rml_search.dataset import data_set_folders
from rml_search.errors import StudyError
from rml_search.options import PRECISION_NAMES, PRECISION_VARIABLE, SearchOptions

_GO_ON_OR_START_OVER = (
    "give the same options to go on, or --fresh to start over (what is there moves to earlier/, nothing is lost)"
)
_FILES = {"--layers": "another network", "--transfer-learning": "other weights", "--data": "other images"}


def study_settings(options: SearchOptions) -> dict[str, Any]:
    """The settings that trials must share to be compared, by option, as JSON has them; files by their contents.

    The number of trials may differ, and how and where they run.
    """
    weights = options.transfer_learning
    return {
        "--num-epochs": options.num_epochs,
        "--optimizers": sorted(options.optimizers),
        "--loss": sorted(options.losses),
        "--lr-range-min": options.lr_range[0],
        "--lr-range-max": options.lr_range[1],
        "--lr-scheduler-gamma": options.lr_scheduler_gamma,
        "--layers": file_digest(options.layers),
        "--transfer-learning": None if weights is None else file_digest(weights),
        "--data": _data_digest(options),
        "--batch-size": options.batch_size,
        "--test-batch-size": options.test_batch_size,
        "--image-size": list(options.image_size),
        "--num-procs": options.num_procs,
        "--seed": options.seed,
        PRECISION_VARIABLE: os.environ.get(PRECISION_VARIABLE, PRECISION_NAMES[0]),
    }


def check_same_study(stored: Mapping[str, Any], asked_for: Mapping[str, Any]) -> None:
    """Raises StudyError naming the first setting in which two searches differ."""
    for option, value in asked_for.items():
        before = stored.get(option)
        if before == value:
            continue
        if option in _FILES and before is not None and value is not None:
            raise StudyError(f"the search in this folder was begun with {_FILES[option]}: {_GO_ON_OR_START_OVER}")
        raise StudyError(
            f"the search in this folder was begun with {_shown(option, before)}, not {_shown(option, value)}: "
            f"{_GO_ON_OR_START_OVER}"
        )


def _shown(option: str, value: object) -> str:
    if value is None:
        return f"no {option}"
    if option in _FILES:
        return option
    values = value if isinstance(value, list) else [value]
    return f"{option} {(' ' if option == '--image-size' else ',').join(map(str, values))}"


def _data_digest(options: SearchOptions) -> str:
    """A digest of the names and sizes of all images and masks: reading them would take as long as training."""
    digest = hashlib.sha256()
    for folder in data_set_folders(options.data):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{folder.parent.name}/{path.relative_to(folder)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()
