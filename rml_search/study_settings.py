"""What makes two searches the same study."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rml_search.best_model import file_digest, text_digest
from rml_search.dataset import data_set_folders
from rml_search.errors import OptionError, StudyError
from rml_search.network_file import network_texts
from rml_search.options import PRECISION_NAMES, PRECISION_VARIABLE, SearchOptions
from rml_search.paths import Workspace, shown

_GO_ON_OR_START_OVER = (
    "give the same options to resume, or --fresh to start over (existing files move to earlier/, nothing is lost)"
)
_FILES = {
    "--layers": "another network",
    "--transfer-learning": "other weights",
    "--data": "other images",
    "--search-space": "another search space",
    "--config": "another configuration",
}


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
        "--layers": _networks_digest(options),
        "--transfer-learning": None if weights is None else file_digest(weights),
        "--data": _data_digest(options),
        "--batch-size": options.batch_size,
        "--test-batch-size": options.test_batch_size,
        "--image-size": None if options.image_size is None else list(options.image_size),
        "--num-procs": options.num_procs,
        "--seed": options.seed,
        "--search-space": _space_text(options),
        "--validation-fraction": options.validation_fraction,
        "--config": None if options.base is None else text_digest(options.base.configuration.to_json()),
        "--objective": [objective.value for objective in options.objectives] if len(options.objectives) > 1 else None,
        PRECISION_VARIABLE: os.environ.get(PRECISION_VARIABLE, PRECISION_NAMES[0]),
    }


def check_same_study(
    stored: Mapping[str, Any],
    asked_for: Mapping[str, Any],
    *,
    place: str = "the search in this folder",
    advice: str = _GO_ON_OR_START_OVER,
) -> None:
    """Raises StudyError naming the first setting in which two searches differ."""
    for option, value in asked_for.items():
        before = stored.get(option)
        if before == value:
            continue
        if option in _FILES and before is not None and value is not None:
            raise StudyError(f"{place} was started with {_FILES[option]}: {advice}")
        now = "which is missing now" if value is None else f"not {_shown(option, value)}"
        raise StudyError(f"{place} was started with {_shown(option, before)}, {now}: {advice}")


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
    for place in data_places(options):
        for path in sorted(path for path in [place, *place.rglob("*")] if path.is_file()):
            digest.update(f"{place.parent.name}/{path.relative_to(place)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def data_places(options: SearchOptions) -> list[Path]:
    """The files and folders of the samples: those of ``--data``, else those that the person's configuration names."""
    if options.data is None:
        return [] if options.base is None else options.base.data_paths()
    return data_set_folders(options.data)


def check_inputs_stay(options: SearchOptions, workspace: Workspace) -> None:
    """Refuses files of an earlier search as the ground of this one, since they are about to move to ``earlier/``.

    Raises:
        OptionError: one lies among those results.
    """
    weights = [] if options.transfer_learning is None else [options.transfer_learning]
    for path in (*options.layers, *weights, *data_places(options)):
        whole = workspace.absolute(path)
        if any(whole.is_relative_to(result) for result in workspace.results() if result.exists()):
            raise OptionError(
                f"{shown(whole)} is among the results in this folder, which move to earlier/: "
                "copy it elsewhere and use the copy"
            )


def _networks_digest(options: SearchOptions) -> str:
    """Of one network its own; of several also by which name the study knows which."""
    digests = [text_digest(text) for text in network_texts(options)]
    if len(digests) == 1:
        return digests[0]
    return text_digest("\n".join(f"{a} {b}" for a, b in zip(options.network_names, digests, strict=True)))


def _space_text(options: SearchOptions) -> str | None:
    """The dimensions of the person's own file, as a text that is the same for the same dimensions."""
    if not options.dimensions:
        return None
    return json.dumps([asdict(dimension) for dimension in options.dimensions], sort_keys=True)
