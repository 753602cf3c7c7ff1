"""Running a model on the test images: the tutorial's second command, on any runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rml_search.errors import CheckpointFileError, EngineFailedError, OptionError, SearchError, WriteError
from rml_search.mounts import Mount, for_container, outside_container
from rml_search.paths import Workspace, shown
from rml_search.retraining import has_brought_a_model
from rml_search.runtime.base import EngineExit, EngineRun, Runtime
from rml_search.whole_files import write_atomically
from rmldnn_contract.config import Configuration, read_configuration
from rmldnn_contract.exit_status import EngineError
from rmldnn_contract.training_log import EpochReader, EpochRecord, Failure, parse_line, without_stamp

# Beside the predictions: what they were made with, and what the engine said.
_CONFIG = "inference_config.json"
_LOG = "inference.log"


@dataclass(frozen=True)
class InferenceResult:
    """What inference has brought; loss and accuracy (0 to 1) are None without targets."""

    loss: float | None
    accuracy: float | None
    predictions: tuple[Path, ...]
    configuration: Configuration


def choose_inference_config(workspace: Workspace, named: Path | None) -> Path:
    """The configuration to run: the one named, else that of the confirmed or the best model, else ./config_test.json.

    Raises:
        CheckpointFileError: there is none.
    """
    usual = [workspace.confirmed_model.config, workspace.best_config, workspace.root / "config_test.json"]
    candidates = usual if named is None else [named]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if named is not None:
        raise CheckpointFileError(f"there is no configuration {named}")
    what_first = (
        "run the search's command again to restore it" if has_brought_a_model(workspace) else "run a search first"
    )
    raise CheckpointFileError(f"there is no {shown(workspace.best_config)}: {what_first}, or give a file with --config")


def read_inference_configuration(config: Path) -> Configuration:
    """Reads a configuration for inference; predictions go to ./predictions/ where it names no folder.

    Raises:
        ConfigurationError: the file is missing or not valid.
        OptionError: it trains, or loads no checkpoint.
    """
    document = read_configuration(config).model_dump(mode="json", exclude_unset=True)
    data = document["neural_network"]["data"]
    if "input_path" in data:
        raise OptionError(
            f"{config} trains a network (data.input_path): infer needs a configuration without training data"
        )
    if not document["neural_network"].get("checkpoints", {}).get("load"):
        raise OptionError(f"{config} loads no checkpoint (checkpoints.load): the network would be untrained")
    data.setdefault("test_output_path", "./predictions/")
    return Configuration.model_validate(document)


def run_inference(config: Path, workspace: Workspace, runtime: Runtime, *, num_procs: int = 1) -> InferenceResult:
    """Runs the model that ``config`` names and writes its predictions.

    Predictions that are there already move aside first.

    Raises:
        ConfigurationError: the configuration is not valid.
        EngineFailedError: the engine ended with an error; its message is passed on.
    """
    configuration = read_inference_configuration(config)
    folder = _predictions_folder(configuration, workspace)
    run = _prepare(configuration, folder, workspace, runtime, num_procs)
    reader = EpochReader()
    records: list[EpochRecord] = []
    words = ""
    with (folder / _LOG).open("w", encoding="utf-8", buffering=1) as log, runtime.start(run) as engine:
        for line in engine.lines():
            log.write(line + "\n")
            said = parse_line(line)
            words = said.message if isinstance(said, Failure) else without_stamp(line).strip() or words
            records += reader.feed(line)
        ended = engine.wait()
    records += reader.finish()
    _check_end(ended, words)
    return _result(records, folder, configuration)


def read_last_inference(workspace: Workspace) -> InferenceResult | None:
    """What inference with the best or the confirmed model has brought; None unless that is newer than the model."""
    configuration = read_inference_configuration(choose_inference_config(workspace, None))
    folder = _predictions_folder(configuration, workspace)
    reader = EpochReader()
    try:
        digests = (workspace.confirmed_model.digest, workspace.best_digest)
        digest = next((path for path in digests if path.is_file()), workspace.best_digest)
        if (folder / _LOG).stat().st_mtime <= digest.stat().st_mtime:
            return None
        lines = (folder / _LOG).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    records = [record for line in lines for record in reader.feed(line)]
    found = _result([*records, *reader.finish()], folder, configuration)
    return None if found.accuracy is None or not found.predictions else found


def read_test_accuracy(workspace: Workspace) -> float | None:
    """The accuracy (0 to 1) of the model that inference uses on the search's test images; None where none is known."""
    with suppress(SearchError, EngineError):
        found = read_last_inference(workspace)
        if found is not None and has_run(found.configuration, workspace, found.predictions[0].parent):
            return found.accuracy
    return None


def has_run(configuration: Configuration, workspace: Workspace, folder: Path) -> bool:
    """Whether the predictions in ``folder`` are of its model and its images, as far as what lies beside them tells."""
    try:
        ran = read_configuration(folder / _CONFIG)
    except EngineError:  # nothing tells
        return True
    return _model_and_images(ran, workspace) == _model_and_images(configuration, workspace)


def _model_and_images(configuration: Configuration, workspace: Workspace) -> list[Path | None]:
    network = configuration.neural_network
    places = (network.checkpoints.load, network.data.test_input_path)
    return [None if place is None else outside_container(Path(place), workspace) for place in places]


def _result(records: Sequence[EpochRecord], folder: Path, configuration: Configuration) -> InferenceResult:
    last = records[-1] if records else None
    return InferenceResult(
        loss=last.test_loss if last else None,
        accuracy=last.accuracy if last else None,
        predictions=tuple(sorted(folder.glob("output_*.h5"))),
        configuration=configuration,
    )


def move_predictions_aside(workspace: Workspace, config: Path, when: datetime) -> Path | None:
    """Moves earlier predictions into a dated folder, and nothing else that lies beside them; None without any."""
    folder = _predictions_folder(read_configuration(config), workspace)
    predictions = sorted(folder.glob("output_*.h5"))
    if not predictions:
        return None
    aside = workspace.earlier(when) / folder.name
    aside.mkdir(parents=True)
    for path in [*predictions, folder / _CONFIG, folder / _LOG, workspace.scores(folder)]:
        if path.exists() and path.resolve() != config.resolve():
            path.rename(aside / path.name)
    return aside


def _predictions_folder(configuration: Configuration, workspace: Workspace) -> Path:
    return workspace.absolute(Path(configuration.neural_network.data.test_output_path or workspace.predictions))


def _prepare(
    configuration: Configuration, folder: Path, workspace: Workspace, runtime: Runtime, num_procs: int
) -> EngineRun:
    mounts: tuple[Mount, ...] = ()
    if runtime.in_container:
        configuration, mounts = for_container(configuration, workspace)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot write predictions to {folder}: {error.strerror}") from None
    written = folder / _CONFIG
    write_atomically(written, configuration.to_json())
    return EngineRun(
        config=Path(os.path.relpath(written, workspace.root)),
        num_procs=num_procs,
        mounts=mounts,
        labels=_LABELS,
    )


_LABELS: Mapping[str, str] = {"serves": "inference"}


def _check_end(ended: EngineExit, words: str) -> None:
    if ended.code == 0:
        return
    status = ended.status
    message = ended.note or f"the engine ended with exit code {ended.code}"
    raise EngineFailedError(
        words if status is not None else f"{message}: {words or 'it printed nothing'}",
        int(status) if status is not None else 1,
    )
