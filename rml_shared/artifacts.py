"""Where drivers on several machines find each other's best checkpoints: a shared folder, or a bucket of objects."""

from __future__ import annotations

import io
import os
import platform
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from rml_search.best_model import file_digest
from rml_search.errors import OptionError, WriteError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_BUCKET = "s3://"
_COPY_BYTES = 2**20


class _Store(Protocol):
    """What Optuna asks of an artifact store."""

    def open_reader(self, artifact_id: str) -> BinaryIO: ...

    def write(self, artifact_id: str, content_body: BinaryIO) -> None: ...

    def remove(self, artifact_id: str) -> None: ...


@dataclass(frozen=True)
class PrefixedStore:
    """A store in which all names begin with a prefix, such as a folder of a bucket that others use too."""

    store: _Store
    prefix: str

    def open_reader(self, artifact_id: str) -> BinaryIO:
        return self.store.open_reader(self.prefix + artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self.store.write(self.prefix + artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        self.store.remove(self.prefix + artifact_id)


@dataclass(frozen=True)
class ModelStore:
    """Checkpoints of trials, in a place that all drivers see.

    Attributes:
        place: as the person named it.
        store: what Optuna writes to and reads from.
        storage: the storage of the study, where each trial says which artifact is its own.
    """

    place: str
    store: _Store
    storage: BaseStorage

    def check(self) -> None:
        """Writes a small file there, and deletes it again. Raises WriteError."""
        name = f"check-{uuid.uuid4().hex}"
        try:
            self.store.write(name, io.BytesIO(b"rml-optimization"))
            self.store.remove(name)
        except Exception as error:
            raise WriteError(f"--artifacts: cannot write to {self.place}: {_words(error)}") from error

    def keep(self, trial: optuna.Trial, checkpoint: Path) -> None:
        """Puts the checkpoint of a running trial there. Raises WriteError, and what the storage of the study raises."""
        try:
            optuna.artifacts.upload_artifact(
                artifact_store=self.store, file_path=str(checkpoint), study_or_trial=trial, storage=self.storage
            )
        except (optuna.exceptions.OptunaError, SQLAlchemyError):
            raise
        except Exception as error:
            raise WriteError(f"--artifacts: cannot write to {self.place}: {_words(error)}") from error

    def fetch(self, trial: FrozenTrial, target: Path, sha256: str) -> bool:
        """Brings the checkpoint of a trial to ``target``; False, and no file, where there is none with that digest."""
        temporary = target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}.tmp")
        for artifact in optuna.artifacts.get_all_artifact_meta(trial, storage=self.storage):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with self.store.open_reader(artifact.artifact_id) as source, temporary.open("wb") as copy:
                    while block := source.read(_COPY_BYTES):
                        copy.write(block)
                if file_digest(temporary) == sha256:
                    temporary.replace(target)
                    return True
            except ArtifactNotFound:  # a better one has taken its place meanwhile
                continue
            except Exception as error:
                raise WriteError(f"--artifacts: cannot read from {self.place}: {_words(error)}") from error
            finally:
                temporary.unlink(missing_ok=True)
        return False

    def drop(self, trial: FrozenTrial) -> None:
        """Deletes what is there of a trial; what cannot be deleted stays."""
        for artifact in optuna.artifacts.get_all_artifact_meta(trial, storage=self.storage):
            with suppress(Exception):
                self.store.remove(artifact.artifact_id)


def open_model_store(place: str, storage: BaseStorage) -> ModelStore:
    """The store that ``--artifacts`` names: a folder, which is made where there is none, or ``s3://BUCKET/PREFIX``.

    Raises:
        OptionError: it is neither, or the package that it needs is missing.
        WriteError: the folder cannot be made.
    """
    if place.startswith(_BUCKET):
        return ModelStore(place, _bucket(place), storage)
    if "://" in place:
        raise OptionError(f"--artifacts takes a folder or s3://BUCKET/PREFIX, not {place}")
    folder = Path(place).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"--artifacts: cannot make the folder {place}: {error.strerror}") from None
    return ModelStore(place, FileSystemArtifactStore(folder), storage)


def _bucket(place: str) -> _Store:
    name, _, prefix = place.removeprefix(_BUCKET).partition("/")
    if not name:
        raise OptionError("--artifacts: give a bucket name after s3://")
    try:
        store = optuna.artifacts.Boto3ArtifactStore(name)
    except ImportError:
        raise OptionError("--artifacts s3:// needs the package boto3: pip install 'rml-optimization[s3]'") from None
    except Exception as error:
        raise OptionError(f"--artifacts: {place} cannot be used: {_words(error)}") from error
    return PrefixedStore(store, f"{prefix.strip('/')}/" if prefix.strip("/") else "")


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
