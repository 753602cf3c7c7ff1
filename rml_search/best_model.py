"""``best_model/``: always the best epochs of the best trials that the study knows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rml_search.hyperparameters import Hyperparameters
from rml_search.options import SearchOptions
from rml_search.paths import ModelPaths, Workspace
from rml_search.results import TrialRecord, best_records, drop_checkpoints
from rml_search.trial_config import inference_configuration, network_index
from rml_search.whole_files import write_atomically


def settle_best_model(
    workspace: Workspace,
    records: Iterable[TrialRecord],
    options: SearchOptions,
    *,
    keep_top: int = 1,
    verify: bool = False,
) -> dict[int, str]:
    """Makes ``best_model/`` those of the best records, wherever an earlier attempt was broken off.

    A trial is told to the study, with the digest of its best checkpoint, while that checkpoint still lies in the
    trial's folder; this moves it, and makes place for it first: a best model that is so no more goes to the others
    in ``best_model/top/``. The digest beside a model is written last: where it is not that of the record, something
    is left to do, and the checkpoint lies in the trial's folder, in its place, or in the best model's place.

    Args:
        keep_top: how many models are kept; what is there of others is deleted.
        verify: read the models that are there, instead of trusting the digests beside them.

    Returns:
        The checkpoints that are there, relative to the folder of the search, by the number of their trial.
    """
    kept = best_records(records, keep_top)
    settler = _Settler(workspace, options, verify=verify)
    # The best one last: until then its place may hold the checkpoint of another.
    there = {
        record.number: paths.checkpoint.relative_to(workspace.root).as_posix()
        for place, record in reversed(list(enumerate(kept)))
        if settler.settle(record, paths := workspace.top_model(record.number) if place else workspace.best)
    }
    others = {record.number for record in kept[1:]}
    for number, path in list(workspace.saved_top_models()):
        if number not in others:
            path.unlink(missing_ok=True)
    return there


@dataclass(frozen=True)
class _Settler:
    """Brings checkpoints to their places."""

    workspace: Workspace
    options: SearchOptions
    verify: bool

    def settle(self, record: TrialRecord, model: ModelPaths) -> bool:
        """Brings the checkpoint of a trial to its place, if it is anywhere; whether it is there."""
        if record.checkpoint_sha256 is None or record.epoch_max_acc is None:
            return False
        line = f"{record.checkpoint_sha256}  {model.checkpoint.name}\n"
        files = (model.checkpoint, model.config, model.layers)
        if not self.verify and all(path.is_file() for path in files) and _read(model.digest) == line:
            return True
        source = self._find(record, model)
        if source is None:
            if _read(model.digest) == line:  # it tells of a checkpoint that is not there any more
                model.digest.unlink()
            return False
        model.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        point = Hyperparameters.from_point(record.point)
        layers = self.workspace.trial_layers(network_index(self.options, point))
        write_atomically(model.layers, layers.read_text(encoding="utf-8"))
        write_atomically(model.config, inference_configuration(self.options, point, self.workspace, model).to_json())
        if source == self.workspace.best_checkpoint != model.checkpoint:
            _link(source, model.checkpoint)
        elif source != model.checkpoint:
            source.replace(model.checkpoint)
        write_atomically(model.digest, line)
        return True

    def _find(self, record: TrialRecord, model: ModelPaths) -> Path | None:
        """Where the checkpoint of a trial lies: in its folder, or where its digest tells, which takes time to make."""
        waiting = self.workspace.trial(record.number).checkpoint(record.epoch_max_acc or 0)
        # Where it is to be verified, it may be one that a person has trained again, and that has come out otherwise.
        if waiting.is_file() and (not self.verify or file_digest(waiting) == record.checkpoint_sha256):
            return waiting
        places = [model.checkpoint, self.workspace.top_model(record.number).checkpoint]
        if (_read(self.workspace.best_digest) or "").startswith(record.checkpoint_sha256 or " "):
            places.append(self.workspace.best_checkpoint)
        return next((path for path in places if _digest_if_there(path) == record.checkpoint_sha256), None)


def is_at_hand(workspace: Workspace, record: TrialRecord) -> bool:
    """Whether the checkpoint of a trial is the best model, or among the others that are kept, by their digests."""
    for model in (workspace.best, workspace.top_model(record.number)):
        is_same = (_read(model.digest) or "").startswith(record.checkpoint_sha256 or " ")
        if is_same and model.checkpoint.is_file():
            return True
    return False


def _link(source: Path, target: Path) -> None:
    """Gives a file a second name, so that the first one is never missing; where the disk cannot, another one."""
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(source)
    except OSError:
        source.replace(target)
    else:
        temporary.replace(target)


def drop_finished_checkpoints(workspace: Workspace, ended: Iterable[int]) -> None:
    """Deletes the checkpoints of trials that have ended: what was worth keeping is the best model by now."""
    for number in ended:
        trial = workspace.trial(number)
        drop_checkpoints(trial)
        for path in list(trial.unfinished_checkpoints()):
            path.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def text_digest(text: str) -> str:
    """The SHA-256 of a text in UTF-8, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_if_there(path: Path) -> str | None:
    return file_digest(path) if path.is_file() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
