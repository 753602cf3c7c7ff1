"""``best_model/``: always the best epoch of the best trial that the study knows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from rml_search.paths import Workspace, write_atomically
from rml_search.results import TrialRecord, best_record, drop_checkpoints
from rmldnn_contract.config import Configuration

#: The configuration that runs a model which was trained with this loss.
ConfigurationOf = Callable[[str], Configuration]


def settle_best_model(
    workspace: Workspace, records: Iterable[TrialRecord], configuration_of: ConfigurationOf, *, verify: bool = False
) -> bool:
    """Makes ``best_model/`` that of the best record, wherever an earlier attempt was broken off.

    A trial is told to the study, with the digest of its best checkpoint, while that checkpoint still lies in the
    trial's folder; this moves it. The digest beside the model is written last: where it is not that of the best
    record, something is left to do, and the checkpoint lies either in the trial's folder or in its place already.

    Args:
        verify: read the model that is there, instead of trusting the digest beside it.

    Returns:
        Whether the best model is there; False if its checkpoint is nowhere, or if there is no best record.
    """
    best = best_record(records)
    if best is None or best.checkpoint_sha256 is None or best.epoch_max_acc is None:
        return False
    line = f"{best.checkpoint_sha256}  {workspace.best_checkpoint.name}\n"
    files = (workspace.best_checkpoint, workspace.best_layers, workspace.best_config)
    if not verify and all(path.is_file() for path in files) and _read(workspace.best_digest) == line:
        return True
    waiting = workspace.trial(best.number).checkpoint(best.epoch_max_acc)
    if not waiting.is_file() and _digest_if_there(workspace.best_checkpoint) != best.checkpoint_sha256:
        return False
    workspace.best_model.mkdir(exist_ok=True)
    write_atomically(workspace.best_layers, workspace.trial_layers.read_text(encoding="utf-8"))
    write_atomically(workspace.best_config, configuration_of(best.loss).to_json())
    if waiting.is_file():
        waiting.replace(workspace.best_checkpoint)
    write_atomically(workspace.best_digest, line)
    return True


def drop_finished_checkpoints(workspace: Workspace, running: Iterable[int] = ()) -> None:
    """Deletes the checkpoints of all trials but those ``running``: what was worth keeping is the best model by now."""
    busy = {workspace.trial(number).folder for number in running}
    for folder in workspace.trials.iterdir():
        if folder.name.isdecimal() and folder not in busy:
            drop_checkpoints(workspace.trial(int(folder.name)))


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _digest_if_there(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
