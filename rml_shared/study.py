"""One study that drivers on several machines work on: joining it, taking turns, and giving back what a lost one ran."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from rml_optuna import OptunaStudy
from rml_search.best_model import is_at_hand
from rml_search.driver import Driver, is_gone, parse_driver, this_driver
from rml_search.enqueued import parse_point
from rml_search.errors import OptionError, StudyError
from rml_search.folder import writing_results
from rml_search.heartbeats import ENDED, Beat, Heartbeat, Watch
from rml_search.options import SearchOptions, SharedChoice, StudyChoice
from rml_search.paths import Workspace
from rml_search.plan import SearchPlan
from rml_search.progress import RunningTrial
from rml_search.results import TrialRecord, TrialResult, best_records
from rml_search.run_record import RunRecord
from rml_search.study import Suggestion
from rml_search.study_settings import check_same_study, study_settings
from rml_shared.artifacts import ModelStore, open_model_store
from rml_shared.patience import Patience
from rml_shared.storage import (
    ITS_OWN_ERRORS,
    STORAGE_ERRORS,
    SharedStorage,
    StorageAddress,
    open_shared_storage,
    parse_storage,
    storage_errors,
)
from rml_study.progress import running_trials
from rml_study.records import BEAT, DRIVER, NUM_TRIALS, RECORD, REPEATS, SETTINGS, beats_of
from rml_study.samplers import load_or_create_study
from rml_study.storage import load_other_study
from rmldnn_contract.training_log import EpochRecord

#: How old what is known of other drivers' trials may be.
FRESH_SECONDS = 1.0

_IDENTITY = "identity"  #: tells a study from another of the same name


@dataclass
class SharedStudy(OptunaStudy):
    """A study whose trials several drivers run.

    What belongs together is done in one turn of the storage's. A storage that does not answer for a while is waited
    for; every step may be taken twice, since nobody knows whether the first one was heard.
    """

    storage: SharedStorage
    workspace: Workspace = field(kw_only=True)
    heartbeat_seconds: float = field(kw_only=True)
    show: Callable[[str], None] = field(kw_only=True)
    keep_top: int = field(kw_only=True, default=1)
    models: ModelStore | None = field(kw_only=True, default=None)
    driver: Driver = field(default_factory=this_driver)
    _read_at: float = 0.0
    _looked_at: float = 0.0
    _lost: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__post_init__()
        place = None if self.models is None else self.models.place
        self._patience = Patience(self.storage.address, place, self.show)
        self._watch = Watch(self.heartbeat_seconds)
        self._heartbeat = Heartbeat(self._tell_beat, self.heartbeat_seconds)

    @property
    def identity(self) -> str:
        """What tells this study from all others."""
        return str(self.study.user_attrs[_IDENTITY])

    def errors(self, _workspace: Workspace) -> AbstractContextManager[None]:
        """Tells of a storage that cannot be used, as a StudyError; errors of other files are none of it."""
        return storage_errors(self.storage.address, ITS_OWN_ERRORS)

    def join(self) -> None:
        """Shows a first sign of life, and others from then on."""
        self._tell_beat(0)
        self._heartbeat.start()

    def close(self) -> None:
        """Leaves the study: what this driver has not ended others may take over at once."""
        self._heartbeat.stop()
        with suppress(*STORAGE_ERRORS, StudyError):  # what is wrong with the storage was told
            self._tell_beat(ENDED)
        self.storage.close()

    def remember_run(self, run: RunRecord) -> None:
        """As for one driver."""
        self._patience.take(lambda: OptunaStudy.remember_run(self, run))

    # --- what a search asks ----------------------------------------------------------------------------

    def ask(self) -> Suggestion | None:
        """The next trial; None where others have begun the last one, or every point has been tried."""
        known = dict(self._running)

        def ask() -> Suggestion | None:
            self._running = dict(known)  # without what was asked for when an answer was lost: nobody will run it
            with self.storage.turn():
                self._read = None
                self.recover()
                if len(self._counted()) >= self.options.num_trials:
                    return None
                suggestion = OptunaStudy.ask(self)
                if suggestion is not None:
                    self._running[suggestion.number].set_user_attr(DRIVER, self.driver.name)
                self._read = None
                return suggestion

        while True:
            with suppress(UpdateFinishedTrialError):  # this driver had lost its turn, and others have ended the trial
                return self._patience.take(ask)

    def report(self, number: int, epoch: EpochRecord) -> bool:
        """As for one driver; a trial that others have taken over meanwhile shall end too."""
        try:
            return self._patience.take(lambda: OptunaStudy.report(self, number, epoch))
        except UpdateFinishedTrialError:
            return True

    def finish(self, result: TrialResult, checkpoint_sha256: str | None) -> None:
        """As for one driver; what belongs to the best checkpoints is there for all before the study is told."""
        if checkpoint_sha256 is not None and self.models is not None and result.best_epoch is not None:
            checkpoint = self.workspace.trial(result.number).checkpoint(result.best_epoch.epoch)
            models, trial = self.models, self._running[result.number]
            with suppress(UpdateFinishedTrialError):
                self._patience.take(lambda: models.keep(trial, checkpoint))
        self._end(result, lambda: OptunaStudy.finish(self, result, checkpoint_sha256))
        if checkpoint_sha256 is not None and self.models is not None:
            self._drop_beaten_models(self.models)

    def try_again(self, result: TrialResult, attempt: int) -> None:
        """As for one driver."""
        self._end(result, lambda: OptunaStudy.try_again(self, result, attempt))

    def keep_up(self) -> None:
        """Looks, once in a while, whether a driver is lost."""
        if time.monotonic() - self._looked_at >= self.heartbeat_seconds:
            self.num_running_elsewhere()

    def num_running_elsewhere(self) -> int:
        """How many trials other drivers run; those of lost ones are given back first."""

        def look() -> int:
            if time.monotonic() - self._looked_at >= min(self.heartbeat_seconds, 2.0):
                with self.storage.turn():
                    self._read = None
                    self.recover()
            running = [trial for trial in self._trials() if trial.state is OptunaState.RUNNING]
            return sum(trial.number not in self._running for trial in running)

        return self._patience.take(look)

    def running_elsewhere(self) -> Sequence[RunningTrial] | None:
        """The trials of other drivers; None while the storage does not answer."""
        try:
            trials = self.study.get_trials(deepcopy=False)
        except STORAGE_ERRORS:
            return None  # what needs an answer waits for it
        self._read, self._read_at = trials, time.monotonic()
        return running_trials([trial for trial in trials if trial.number not in self._running], self.study.user_attrs)

    @contextmanager
    def settling(self) -> Iterator[Sequence[TrialRecord]]:
        """The records as they are now, with the best checkpoints at hand, while no other driver writes results here."""
        with writing_results(self.workspace):
            self._read = None
            records = self.records()
            if self.models is not None:
                self._fetch(self.models, best_records(records, self.keep_top))
            yield records

    def where(self, record: TrialRecord) -> str | None:
        """Who has the checkpoint of a trial that is not in this folder; None where it should be."""
        trial = next(trial for trial in self._trials() if trial.number == record.number)
        name = trial.user_attrs.get(DRIVER, "")
        if name == self.driver.name or self.models is not None:
            return None
        folder = self._patience.take(lambda: self.study.user_attrs).get(BEAT + name, {}).get("folder")
        driver = parse_driver(name)
        host = "another machine" if driver is None else driver.host
        if (host, folder) == (self.driver.host, str(self.workspace.root)):
            return None
        return f"The best model, of trial {record.number}, is on {host} in {folder}: see --artifacts"

    # --- what others have done -------------------------------------------------------------------------

    def recover(self) -> int:
        """Ends what lost drivers have left running, and puts it first in line; how many trials. Call it in turn."""
        self._looked_at = time.monotonic()
        beats = beats_of(self.study.user_attrs)
        self._lost = self._watch.lost(beats) | {name for name in beats if is_gone(name)}
        num_left = super().recover()
        if num_left:
            self.show(f"{num_left} trial{'s' * (num_left > 1)} of a lost driver: retried first")
        return num_left

    def _is_left(self, trial: FrozenTrial) -> bool:
        name = trial.user_attrs.get(DRIVER)
        if name == self.driver.name:  # or its answer was lost on the way
            return trial.number not in self._running
        return name is None or name in self._lost  # without a name it was being drawn, by a driver that had the turn

    def _trials(self) -> list[FrozenTrial]:
        if self._read is None or time.monotonic() - self._read_at > FRESH_SECONDS:
            self._read = self._patience.take(lambda: self.study.get_trials(deepcopy=False))
            self._read_at = time.monotonic()
        return self._read

    def _counted(self) -> list[FrozenTrial]:
        """The trials that count: those that have ended and will not be tried again, and those that run."""
        ended = {record.number for record in self.records() if not record.tried_again}
        trials = self._trials()
        return [trial for trial in trials if trial.number in ended or trial.state is OptunaState.RUNNING]

    def _put_in_line(self, number: int, params: Any, attempt: int) -> None:
        if not any(trial.user_attrs.get(REPEATS) == number for trial in self.study.get_trials(deepcopy=False)):
            super()._put_in_line(number, params, attempt)

    def _end(self, result: TrialResult, tell: Callable[[], None]) -> None:
        """Tells the study of the end of a trial, once, and unless another driver has taken it over."""
        trial = self._running[result.number]

        def end() -> bool:
            self._running[result.number] = trial
            with self.storage.turn():
                self._read = None
                stored = next(other for other in self._trials() if other.number == result.number)
                if stored.state is OptunaState.RUNNING:
                    tell()
                    return True
                return stored.user_attrs.get(DRIVER) == self.driver.name and RECORD in stored.user_attrs

        is_ours = self._patience.take(end)
        self._running.pop(result.number, None)
        self._read = None
        if not is_ours:
            self.show(f"Trial {result.number}: other drivers considered this driver lost and retried it")

    # --- signs of life ---------------------------------------------------------------------------------

    def _tell_beat(self, number: int) -> None:
        beat = {**asdict(Beat(number, self.heartbeat_seconds)), "folder": str(self.workspace.root)}
        self.study.set_user_attr(BEAT + self.driver.name, beat)

    # --- checkpoints -----------------------------------------------------------------------------------

    def _fetch(self, models: ModelStore, records: Sequence[TrialRecord]) -> None:
        """Brings checkpoints of other drivers to where those of this one's trials lie until they are settled."""
        for record in records:
            if record.checkpoint_sha256 is None or record.epoch_max_acc is None:
                continue
            waiting = self.workspace.trial(record.number).checkpoint(record.epoch_max_acc)
            if waiting.is_file() or is_at_hand(self.workspace, record):
                continue
            trial = next(trial for trial in self._trials() if trial.number == record.number)
            self._patience.take(partial(models.fetch, trial, waiting, record.checkpoint_sha256))

    def _drop_beaten_models(self, models: ModelStore) -> None:
        kept = {record.number for record in best_records(self.records(), self.keep_top)}
        for trial in self._trials():
            if trial.state.is_finished() and trial.number not in kept:
                self._patience.take(partial(models.drop, trial))


def open_shared_study(
    workspace: Workspace, options: SearchOptions, plan: SearchPlan, shared: SharedChoice, show: Callable[[str], None]
) -> SharedStudy:
    """Joins a study, or begins it where there is none of that name; ``show`` is told what was there.

    Raises:
        StudyError: the storage cannot be used, or the study was begun with other settings.
        OptionError: an option cannot be as it is.
        WriteError: the shared place of checkpoints cannot be made, or written to.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    choice = plan.study
    points = [parse_point(text) for text in choice.enqueued]
    address = parse_storage(shared.storage)
    _check_stays(address, workspace)
    artifacts = shared.artifacts
    if artifacts is None and isinstance(address.place, Path):  # all drivers see its folder
        artifacts = str(address.place.with_suffix(".artifacts"))
    with ExitStack() as parting:
        storage = open_shared_storage(address, shared.study_name)
        parting.callback(storage.close)
        with storage_errors(address), storage.turn():
            models = None if artifacts is None else open_model_store(artifacts, storage.optuna)
            if models is not None:
                models.check()
            otherwise = "--fresh" if plan.owns_storage else "another --study-name"
            opened = SharedStudy(
                _open(storage, options, choice, shared.study_name, otherwise),
                storage,
                options,
                choice.sampler,
                choice.allows_duplicates,
                workspace=workspace,
                heartbeat_seconds=shared.heartbeat_seconds,
                show=show,
                keep_top=plan.keep_top,
                models=models,
            )
            parting.callback(opened.close)
            opened.join()
            opened.recover()
            _say_what_is_there(opened, shared)
            if choice.warm_start is not None:
                num_borrowed = opened.borrow(load_other_study(choice.warm_start, workspace))
                show(f"The sampler learns from {num_borrowed} trials in {choice.warm_start}")
            opened.enqueue(points)
        parting.pop_all()
    return opened


def _check_stays(address: StorageAddress, workspace: Workspace) -> None:
    """Raises OptionError where a journal would move aside with the results of an earlier search."""
    place = address.place
    if not isinstance(place, Path) or place.resolve() == workspace.shared_journal:
        return
    if any(place.resolve().is_relative_to(result) for result in workspace.results()):
        raise OptionError(f"--storage {address.text} is the name of a result of the search: choose another file")


def _say_what_is_there(opened: SharedStudy, shared: SharedChoice) -> None:
    ended = sum(not record.tried_again for record in opened.records())
    elsewhere = opened.num_running_elsewhere()
    place = opened.storage.address.text
    opened.show(
        f"Study {shared.study_name} in {place}: {ended} trials have finished, {elsewhere} are running elsewhere"
    )


def _open(
    storage: SharedStorage, options: SearchOptions, choice: StudyChoice, name: str, otherwise: str
) -> optuna.Study:
    """``otherwise``: what a person gives who wants another study."""
    study = load_or_create_study(storage.optuna, name, options, choice)
    settings, stored = study_settings(options), study.user_attrs.get(SETTINGS)
    place = f"the study {name} in {storage.address.text}"
    if stored is not None:
        check_same_study(stored, settings, place=place, advice=f"give the same options, or {otherwise}")
    elif study.get_trials(deepcopy=False):
        raise StudyError(f"{place} was made by another program: choose {otherwise}")
    else:
        study.set_user_attr(SETTINGS, settings)
    study.set_user_attr(NUM_TRIALS, options.num_trials)
    if _IDENTITY not in study.user_attrs:
        study.set_user_attr(_IDENTITY, uuid.uuid4().hex)
    return study
