"""What the trials of a shared study have brought, read without joining it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from pydantic import TypeAdapter

from rml_search.errors import NoResultsError
from rml_search.options import SharedChoice
from rml_search.results import TrialRecord
from rml_shared.storage import StorageAddress, open_shared_storage, parse_storage, storage_errors, storage_to_read
from rml_study.records import RECORD


@dataclass(frozen=True)
class SharedRecords:
    """The trials of a shared study that have ended, by number.

    Attributes:
        identity: what tells the study from all others; None of one that no driver has joined yet.
        by_validation: whether images held out of the training images chose epoch and trial.
    """

    records: Sequence[TrialRecord]
    identity: str | None
    by_validation: bool


def read_shared_records(shared: SharedChoice) -> SharedRecords:
    """Reads the study that ``--storage`` and ``--study-name`` name; drivers may be at work on it.

    Raises:
        NoResultsError: there is no such study, or none of its trials has ended.
        OptionError: no storage is named.
        StudyError: the storage cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    address = parse_storage(shared.storage)
    if isinstance(address.place, Path) and not address.place.is_file():
        raise NoResultsError(f"there is no {address.text}: run a search with this --storage first")
    storage = open_shared_storage(address, shared.study_name)
    try:
        with storage_errors(address):
            return _read(storage.optuna, address, shared.study_name)
    finally:
        storage.close()


@contextmanager
def study_to_read(shared: SharedChoice) -> Iterator[optuna.Study]:
    """The study that ``--storage`` and ``--study-name`` name; nothing is written to it, and nobody waits.

    Raises:
        NoResultsError: there is none of that name.
        OptionError: the address is none.
        StudyError: the storage cannot be read.
    """
    address = parse_storage(shared.storage)
    with storage_to_read(address) as storage:
        names = [study.study_name for study in storage.get_all_studies()]
        if shared.study_name not in names:
            others = f": it contains {', '.join(sorted(names)[:5])}; see --study-name" if names else ""
            raise NoResultsError(f"{address.text} contains no study {shared.study_name}{others}")
        yield optuna.load_study(study_name=shared.study_name, storage=storage)


def _read(storage: optuna.storages.BaseStorage, address: StorageAddress, name: str) -> SharedRecords:
    try:
        study = optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        raise NoResultsError(f"there is no study {name} in {address.text}: see --study-name") from None
    told = [trial.user_attrs.get(RECORD) for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    records = [TypeAdapter(TrialRecord).validate_python(record) for record in told if record is not None]
    if not records:
        raise NoResultsError(f"no trial of the study {name} in {address.text} has finished yet")
    attributes = study.user_attrs
    by_validation = attributes.get("settings", {}).get("--validation-fraction") is not None
    return SharedRecords(records, attributes.get("identity"), by_validation)
