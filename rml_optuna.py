"""The study: which hyperparameters are tried next, and what has become of those before, in Optuna's database."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from rml_search.driver import this_driver
from rml_search.enqueued import parse_point
from rml_search.errors import OptionError, StudyError
from rml_search.hyperparameters import Hyperparameters
from rml_search.options import Objective, SamplerName, SearchOptions, StudyChoice
from rml_search.paths import Workspace, shown
from rml_search.progress import RunningTrial
from rml_search.results import TrialRecord, TrialResult
from rml_search.run_record import RunRecord
from rml_search.search_space import SearchSpace, Value
from rml_search.study import Suggestion
from rml_search.study_settings import check_same_study, study_settings
from rml_study.buffered_storage import BufferedStorage
from rml_study.distributions import distributions, suggest
from rml_study.records import (
    BORROWED,
    DRIVER,
    DUPLICATES,
    NUM_TRIALS,
    RECORD,
    REPEATS,
    SETTINGS,
    STATES,
    ended_trials,
    stored_record,
)
from rml_study.samplers import build_sampler, load_or_create_study
from rml_study.storage import STUDY_NAME, database_errors, load_other_study, open_storage
from rmldnn_contract.training_log import EpochRecord

_MAX_DRAWS = 50
#: Of larger search spaces nobody tries every point.
_MAX_COUNTED_POINTS = 10_000
_DRAWS_OF_SAMPLER = 5  #: then, of so many points that have been tried, come random ones

#: Begins the name of the study's attribute that keeps what ``--jobs auto`` has found; the place follows.
_MEASURED_JOBS = "jobs auto, "

# User attributes of a trial.
_ATTEMPT = "attempt"
_ASKED_FOR = "asked_for"  #: a person has put it in line
_FIXED = "fixed_params"  #: where Optuna keeps what a trial in line shall be tried with


class StudyStorage(Protocol):
    """What keeps a study: when what it was told is stored, if not at once."""

    def save(self) -> None:
        """Stores all that waits."""

    def save_what_is_due(self) -> None:
        """Stores what has waited for long enough."""

    def close(self) -> None:
        """Stores all that waits, and closes the connection."""


@dataclass
class OptunaStudy:
    """A study of one search, in ``study.db``; the ``Study`` of ``rml_search.search``.

    Attributes:
        allows_duplicates: whether points that have been tried may be tried again.
    """

    study: optuna.Study
    storage: StudyStorage
    options: SearchOptions
    sampler: SamplerName = SamplerName.TPE
    allows_duplicates: bool = False
    _running: dict[int, optuna.Trial] = field(default_factory=dict)
    _read: list[FrozenTrial] | None = None
    _space: SearchSpace = field(init=False)

    def __post_init__(self) -> None:
        self._space = self.options.space

    def close(self) -> None:
        """Closes the database, which then is one file again."""
        try:
            self.study.set_user_attr(DRIVER, "")
        finally:
            self.storage.close()

    def remember_run(self, run: RunRecord) -> None:
        """Keeps how the search was begun, or went on."""
        self.study.set_user_attr(run.key, run.to_json())

    def measured_jobs(self, place: str) -> int | None:
        """How many trials at a time were found best for each device there, if that was measured."""
        jobs = self.study.user_attrs.get(_MEASURED_JOBS + place)
        return None if jobs is None else int(jobs)

    def remember_jobs(self, place: str, num_jobs: int) -> None:
        """Keeps what was found best, for when the search goes on."""
        self.study.set_user_attr(_MEASURED_JOBS + place, num_jobs)

    def ask(self) -> Suggestion | None:
        """The next trial: first those put in line, then what the sampler draws."""
        for attempt in range(_MAX_DRAWS):
            if self._is_exhausted():
                return None
            if self.sampler is SamplerName.GRID:
                self._put_grid_point_in_line()
            # A sampler that has closed in on a point draws it over and over.
            sampler = self.sampler if attempt < _DRAWS_OF_SAMPLER else SamplerName.RANDOM
            self.study.sampler = build_sampler(sampler, self.options.seed, self._num_draws())
            trial = self.study.ask()
            self._read = None
            point = suggest(trial, self._space)
            twin = self._twin(trial, point)
            if twin is None:
                self._running[trial.number] = trial
                self.storage.save()
                hyperparameters = Hyperparameters.from_point(point)
                return Suggestion(trial.number, hyperparameters, trial.user_attrs.get(_ATTEMPT, 0))
            trial.set_user_attr(DUPLICATES, twin)
            self.study.tell(trial, state=OptunaState.FAIL)
            self._read = None
        return None

    def report(self, number: int, epoch: EpochRecord) -> bool:
        """Takes in the accuracy of an epoch; whether the pruner wants the trial to end."""
        if epoch.accuracy is None:
            return False
        trial = self._running[number]
        if len(self.options.objectives) > 1:
            return False  # Optuna keeps no reports of trials with several objectives, and prunes none of them
        trial.report(epoch.accuracy, step=epoch.epoch)
        return trial.should_prune() and epoch.epoch < epoch.num_epochs

    def keep_up(self) -> None:
        """Stores what was reported a second ago."""
        self.storage.save_what_is_due()

    def finish(self, result: TrialResult, checkpoint_sha256: str | None) -> None:
        """Stores how a trial has ended, in one step: before it the trial is running, after it all is known."""
        self._tell(result, result.to_record(checkpoint_sha256=checkpoint_sha256))

    def num_running_elsewhere(self) -> int:
        """None: nobody else runs trials of this study."""
        return 0

    def running_elsewhere(self) -> Sequence[RunningTrial] | None:
        """None: there are no other drivers."""
        return None

    @contextmanager
    def settling(self) -> Iterator[Sequence[TrialRecord]]:
        """The records; nobody else writes results."""
        yield self.records()

    def where(self, _record: TrialRecord) -> str | None:
        """None: all checkpoints are in this folder."""
        return None

    def errors(self, workspace: Workspace) -> AbstractContextManager[None]:
        """Tells of a database that cannot be used, as a StudyError."""
        return database_errors(workspace)

    def try_again(self, result: TrialResult, attempt: int) -> None:
        """Stores that a trial has failed, and puts its hyperparameters first in line."""
        self._put_in_line(result.number, self._running[result.number].params, attempt)
        self._tell(result, result.to_record(tried_again=True))

    def records(self) -> Sequence[TrialRecord]:
        """All trials of this search that have ended and were run, by number."""
        return ended_trials(self._trials(), self._is_whole)

    def recover(self) -> int:
        """Ends the trials that a killed search has left running, and puts them first in line; how many there were."""
        trials = self._trials()
        repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
        left = [trial for trial in trials if trial.state is OptunaState.RUNNING and self._is_left(trial)]
        for trial in left:
            if RECORD in trial.user_attrs:  # it had ended, and the study was about to be told
                self._tell_as_recorded(trial)
                continue
            # First in line, then ended: killed in between, this finds it in line already.
            if self._is_whole(trial) and trial.number not in repeated:
                self._put_in_line(trial.number, trial.params, trial.user_attrs.get(_ATTEMPT, 0))
            elif (
                not self._is_whole(trial) and _FIXED in trial.system_attrs
            ):  # it was in line, and its turn had just come
                self.study.enqueue_trial(trial.system_attrs[_FIXED], user_attrs=trial.user_attrs)
            self.study.tell(trial.number, state=OptunaState.FAIL)
        self._read = None
        return len(left)

    def _is_left(self, _trial: FrozenTrial) -> bool:
        """Whether nobody is at work on a trial that is said to be running."""
        return True

    def enqueue(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Puts hyperparameters in line that a person asks for; what is left out the sampler draws.

        Raises:
            OptionError: some lie outside the search space; none was put in line.
        """
        for name, value in (item for point in points for item in point.items()):
            if name not in self._space.names:
                raise OptionError(
                    f"--enqueue: unknown hyperparameter {name!r}, known are {', '.join(self._space.names)}"
                )
            domain = self._space[name].domain
            if not domain.contains(value):
                raise OptionError(f"--enqueue: {name} {value!r} is not in the search space: {domain}")
        for point in points:
            self.study.enqueue_trial(dict(point), user_attrs={_ASKED_FOR: True}, skip_if_exists=True)
        self._read = None

    def borrow(self, other: optuna.Study) -> int:
        """Lets the sampler learn from the finished trials of another study; how many fit into this search space."""
        known = {trial.user_attrs.get(BORROWED) for trial in self._trials()}
        num_borrowed = 0
        for trial in other.get_trials(deepcopy=False, states=[OptunaState.COMPLETE]):
            name = f"{other.study_name}/{trial.number}"
            if not self._fits(trial) or name in known:
                continue
            attributes = {BORROWED: name}
            self.study.add_trial(
                optuna.create_trial(
                    params=trial.params,
                    distributions=distributions(self._space, trial.params),
                    values=trial.values,
                    user_attrs=attributes,
                )
            )
            num_borrowed += 1
        self._read = None
        return num_borrowed

    def _fits(self, trial: FrozenTrial) -> bool:
        """Whether a trial of another study is a point of this search space, judged by as many objectives."""
        point = trial.params
        active = {dimension.name: dimension.domain for dimension in self._space.active(point)}
        is_point = point.keys() == active.keys() and all(active[name].contains(point[name]) for name in point)
        return is_point and len(trial.values) == len(self.options.objectives)

    def _tell(self, result: TrialResult, record: TrialRecord) -> None:
        trial = self._running.pop(result.number)
        trial.set_user_attr(RECORD, {**asdict(record), "state": record.state.value})
        self._tell_optuna(trial, record)

    def _tell_optuna(self, trial: optuna.Trial | int, record: TrialRecord) -> None:
        state = STATES[record.state]
        if len(self.options.objectives) > 1 and state is OptunaState.PRUNED:
            state = OptunaState.COMPLETE  # Optuna knows no pruned trials of several objectives; the record does
        # Of a pruned trial Optuna itself takes the last accuracy that was reported.
        values = {Objective.ACCURACY: record.max_acc, Objective.SECONDS: record.seconds}
        told = [value for objective in self.options.objectives if (value := values[objective]) is not None]
        self.study.tell(trial, told if state is OptunaState.COMPLETE else None, state=state)
        self._read = None

    def _trials(self) -> list[FrozenTrial]:
        """All trials; read again only after this has changed one, since nobody else does."""
        if self._read is None:
            self._read = self.study.get_trials(deepcopy=False)
        return self._read

    def _tell_as_recorded(self, trial: FrozenTrial) -> None:
        self._tell_optuna(trial.number, stored_record(trial.user_attrs[RECORD]))

    def _put_in_line(self, number: int, params: Mapping[str, Any], attempt: int) -> None:
        self.study.enqueue_trial(dict(params), user_attrs={REPEATS: number, _ATTEMPT: attempt})

    def _num_draws(self) -> int:
        """How many points have been drawn; what was broken off and runs again counts once."""
        trials = self._trials()
        drawn = (trial for trial in trials if self._is_whole(trial) or trial.state is OptunaState.WAITING)
        return sum(not trial.user_attrs.keys() & {REPEATS, BORROWED} for trial in drawn)

    def _is_exhausted(self) -> bool:
        """Whether the search space is one of points, and all have been tried."""
        if self.allows_duplicates or self._waits():
            return False
        if self.sampler is not SamplerName.GRID and self._space.num_points() > _MAX_COUNTED_POINTS:
            return False
        return not self._untried_grid_points()

    def _waits(self) -> bool:
        return any(trial.state is OptunaState.WAITING for trial in self._trials())

    def _untried_grid_points(self) -> list[dict[str, Any]]:
        tried = [trial.params for trial in self._tried()]
        return [point for point in self._grid() if not any(self._space.is_same(point, params) for params in tried)]

    def _is_whole(self, trial: FrozenTrial) -> bool:
        """Whether all hyperparameters were drawn before the search was killed."""
        return self._space.is_whole(trial.params)

    def _grid(self) -> list[dict[str, Value]]:
        return self._space.grid(every_number=self.sampler is not SamplerName.GRID)

    def _put_grid_point_in_line(self) -> None:
        """The next point of the grid, in an order that the seed shuffles; some point once more when all were tried."""
        if self._waits():
            return
        points = self._untried_grid_points() or self._grid()
        point = self._random().choice(points)
        self.study.enqueue_trial(point)
        self._read = None

    def _random(self) -> random.Random:
        seed = self.options.seed
        return random.Random(None if seed is None else f"{seed} {self._num_draws()}")  # noqa: S311 (no secret)

    def _tried(self) -> Iterator[FrozenTrial]:
        """The trials whose hyperparameters need not be tried again, running ones among them."""
        trials = self._trials()
        repeated = {trial.user_attrs.get(REPEATS) for trial in trials}
        for trial in trials:
            is_ours = not trial.user_attrs.keys() & {DUPLICATES, BORROWED}
            if (
                is_ours
                and self._is_whole(trial)
                and trial.number not in repeated
                and trial.state != OptunaState.WAITING
            ):
                yield trial

    def _twin(self, trial: optuna.Trial, point: dict[str, Value]) -> int | None:
        """The number of an earlier trial of this point; None where there is none, or a person wants it again."""
        if self.allows_duplicates or trial.user_attrs.keys() & {REPEATS, _ASKED_FOR}:
            return None
        twins = (other.number for other in self._tried() if self._space.is_same(point, other.params))
        return next((number for number in twins if number != trial.number), None)


def open_study(
    workspace: Workspace,
    options: SearchOptions,
    choice: StudyChoice,
    show: Callable[[str], None],
    name: str = STUDY_NAME,
) -> OptunaStudy:
    """The study of that name in ``study.db``, new or as an earlier part of the search has left it.

    ``show`` is told of trials that are tried again, and of those taken over from another study.

    Raises:
        StudyError: it was made with other settings, by another version of Optuna, or cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = [parse_point(text) for text in choice.enqueued]
    with database_errors(workspace):
        storage = BufferedStorage(open_storage(workspace))
        study = load_or_create_study(storage, name, options, choice)
        _check_settings(study, study_settings(options), workspace)
        study.set_user_attr(NUM_TRIALS, options.num_trials)
        study.set_user_attr(DRIVER, this_driver().name)
        opened = OptunaStudy(study, storage, options, choice.sampler, choice.allows_duplicates)
        num_left = opened.recover()
        num_counted = sum(not record.tried_again for record in opened.records())
        if 0 < num_counted < options.num_trials:
            show(f"Resuming: {num_counted} of {options.num_trials} trials have run")
        if num_left:
            show(f"{num_left} trial{'s' * (num_left > 1)} had not finished when the search was killed: retried first")
        if choice.warm_start is not None:
            num_borrowed = opened.borrow(load_other_study(choice.warm_start, workspace))
            show(f"The sampler learns from {num_borrowed} trials in {choice.warm_start}")
        opened.enqueue(points)
    return opened


def _check_settings(study: optuna.Study, settings: Mapping[str, Any], workspace: Workspace) -> None:
    stored = study.user_attrs.get(SETTINGS)
    if stored is not None:
        check_same_study(stored, settings)
    elif study.get_trials(deepcopy=False):
        raise StudyError(
            f"{shown(workspace.study_database)} was made by an older version or another program: "
            "--fresh starts over (existing files move to earlier/, nothing is lost)"
        )
    else:
        study.set_user_attr(SETTINGS, dict(settings))
