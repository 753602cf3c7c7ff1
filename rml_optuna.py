"""The study: which hyperparameters are tried next, and what has become of those before, in Optuna's database.

With ``rml_samplers`` and ``rml_storage`` the only module that imports Optuna.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from rml_samplers import build_pruner, build_sampler, grid
from rml_search.errors import OptionError, StudyError
from rml_search.hyperparameters import Hyperparameters
from rml_search.options import SamplerName, SearchOptions, StudyChoice
from rml_search.paths import Workspace, shown
from rml_search.results import TrialRecord, TrialResult, TrialState
from rml_search.study import Suggestion
from rml_search.study_settings import check_same_study, study_settings
from rml_storage import database_errors, load_other_study, open_storage
from rmldnn_contract.training_log import EpochRecord

STUDY_NAME = "rml-optimization"

#: The user attribute of a study that says how many trials it shall have.
NUM_TRIALS = "num_trials"

#: Learning rates that agree within this factor are the same point of the search space.
SAME_LEARNING_RATE = 1.005

_STATES = {
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}
_NAMES = {state: name for name, state in _STATES.items()}
_MAX_DRAWS = 50

# User attributes of a trial.
_RECORD = "record"  #: what stands of it in list_acc.json, where it is not to be read from the trial itself
_REPEATS = "repeats"  #: the number of the trial whose hyperparameters it tries again
_ATTEMPT = "attempt"
_ASKED_FOR = "asked_for"  #: a person has put it in line
_DUPLICATES = "duplicates"  #: it was drawn, found to be a trial that has been there, and not run
_FIXED = "fixed_params"  #: where Optuna keeps what a trial in line shall be tried with
_BORROWED = "borrowed"  #: it was run by another study


@dataclass
class OptunaStudy:
    """A study of one search, in ``study.db``; the ``Study`` of ``rml_search.search``.

    Attributes:
        allows_duplicates: whether points that have been tried may be tried again.
    """

    study: optuna.Study
    storage: optuna.storages.RDBStorage
    options: SearchOptions
    sampler: SamplerName = SamplerName.TPE
    allows_duplicates: bool = False
    _running: dict[int, optuna.Trial] = field(default_factory=dict)
    _read: list[FrozenTrial] | None = None

    def close(self) -> None:
        """Closes the database, which then is one file again."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    def ask(self) -> Suggestion | None:
        """The next trial: first those put in line, then what the sampler draws."""
        for _ in range(_MAX_DRAWS):
            if self._is_exhausted():
                return None
            if self.sampler is SamplerName.GRID:
                self._put_grid_point_in_line()
            # Sampled anew from the seed each time, so that a search that was broken off draws what a whole one does.
            self.study.sampler = build_sampler(self.sampler, self._seed(), self.options)
            trial = self.study.ask()
            self._read = None
            suggestion = Suggestion(trial.number, suggest(trial, self.options), trial.user_attrs.get(_ATTEMPT, 0))
            twin = self._twin(trial, suggestion.hyperparameters)
            if twin is None:
                self._running[trial.number] = trial
                return suggestion
            trial.set_user_attr(_DUPLICATES, twin)
            self.study.tell(trial, state=OptunaState.FAIL)
            self._read = None
        return None

    def report(self, number: int, epoch: EpochRecord) -> bool:
        """Stores the accuracy of an epoch; whether the pruner wants the trial to end."""
        if epoch.accuracy is None:
            return False
        trial = self._running[number]
        trial.report(epoch.accuracy, step=epoch.epoch)
        return trial.should_prune() and epoch.epoch < epoch.num_epochs

    def finish(self, result: TrialResult, checkpoint_sha256: str | None) -> None:
        """Stores how a trial has ended, in one step: before it the trial is running, after it all is known."""
        self._tell(result, result.to_record(checkpoint_sha256=checkpoint_sha256))

    def try_again(self, result: TrialResult, attempt: int) -> None:
        """Stores that a trial has failed, and puts its hyperparameters first in line."""
        self._put_in_line(result.number, self._running[result.number].params, attempt)
        self._tell(result, result.to_record(tried_again=True))

    def records(self) -> Sequence[TrialRecord]:
        """All trials of this search that have ended and were run, by number."""
        return ended_trials(self._trials())

    def recover(self) -> int:
        """Ends the trials that a killed search has left running, and puts them first in line; how many there were."""
        trials = self._trials()
        repeated = {trial.user_attrs.get(_REPEATS) for trial in trials}
        left = [trial for trial in trials if trial.state is OptunaState.RUNNING]
        for trial in left:
            if _RECORD in trial.user_attrs:  # it had ended, and the study was about to be told
                self._tell_as_recorded(trial)
                continue
            # First in line, then ended: killed in between, this finds it in line already.
            if _is_whole(trial) and trial.number not in repeated:
                self._put_in_line(trial.number, trial.params, trial.user_attrs.get(_ATTEMPT, 0))
            elif not _is_whole(trial) and _FIXED in trial.system_attrs:  # it was in line, and its turn had just come
                self.study.enqueue_trial(trial.system_attrs[_FIXED], user_attrs=trial.user_attrs)
            self.study.tell(trial.number, state=OptunaState.FAIL)
        self._read = None
        return len(left)

    def enqueue(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Puts hyperparameters in line that a person asks for; what is left out the sampler draws.

        Raises:
            OptionError: some lie outside the search space; none was put in line.
        """
        low, high = self.options.lr_range
        allowed = {
            "optimizer": ", ".join(self.options.optimizers),
            "loss": ", ".join(self.options.losses),
            "learning_rate": f"{low:g} to {high:g}",
        }
        distributions = self._distributions()
        for name, value in (item for point in points for item in point.items()):
            if name not in distributions:
                raise OptionError(f"--enqueue: there is no hyperparameter {name!r}: {', '.join(distributions)}")
            if not _contains(distributions[name], value):
                raise OptionError(f"--enqueue: {name} {value!r} is not in the search space: {allowed[name]}")
        for point in points:
            self.study.enqueue_trial(dict(point), user_attrs={_ASKED_FOR: True}, skip_if_exists=True)
        self._read = None

    def borrow(self, other: optuna.Study) -> int:
        """Lets the sampler learn from the finished trials of another study; how many fit into this search space."""
        distributions = self._distributions()
        known = {trial.user_attrs.get(_BORROWED) for trial in self._trials()}
        num_borrowed = 0
        for trial in other.get_trials(deepcopy=False, states=[OptunaState.COMPLETE]):
            name = f"{other.study_name}/{trial.number}"
            fits = trial.params.keys() == distributions.keys() and all(
                _contains(distribution, trial.params[key]) for key, distribution in distributions.items()
            )
            if not fits or name in known:
                continue
            attributes = {_BORROWED: name}
            self.study.add_trial(
                optuna.create_trial(
                    params=trial.params, distributions=distributions, value=trial.value, user_attrs=attributes
                )
            )
            num_borrowed += 1
        self._read = None
        return num_borrowed

    def _tell(self, result: TrialResult, record: TrialRecord) -> None:
        trial = self._running.pop(result.number)
        trial.set_user_attr(_RECORD, {**asdict(record), "state": record.state.value})
        # Of a pruned trial Optuna itself takes the last accuracy that was reported.
        value = result.max_accuracy if result.state is TrialState.COMPLETE else None
        self.study.tell(trial, value, state=_STATES[result.state])
        self._read = None

    def _trials(self) -> list[FrozenTrial]:
        """All trials; read again only after this has changed one, since nobody else does."""
        if self._read is None:
            self._read = self.study.get_trials(deepcopy=False)
        return self._read

    def _tell_as_recorded(self, trial: FrozenTrial) -> None:
        record = trial.user_attrs[_RECORD]
        state = TrialState(record["state"])
        value = record["max_acc"] if state is TrialState.COMPLETE else None
        self.study.tell(trial.number, value, state=_STATES[state])

    def _put_in_line(self, number: int, params: Mapping[str, Any], attempt: int) -> None:
        self.study.enqueue_trial(dict(params), user_attrs={_REPEATS: number, _ATTEMPT: attempt})

    def _seed(self) -> int | None:
        """The seed of the next draw: it depends on how many draws there were, and not on what was broken off."""
        if self.options.seed is None:
            return None
        trials = self._trials()
        drawn = (trial for trial in trials if _is_whole(trial) or trial.state is OptunaState.WAITING)
        num_draws = sum(not trial.user_attrs.keys() & {_REPEATS, _BORROWED} for trial in drawn)
        return (self.options.seed * 1_000_003 + num_draws) % 2**32

    def _is_exhausted(self) -> bool:
        """Whether the search space is one of points, and all have been tried."""
        low, high = self.options.lr_range
        if (low != high and self.sampler is not SamplerName.GRID) or self.allows_duplicates or self._waits():
            return False
        return not self._untried_grid_points()

    def _waits(self) -> bool:
        return any(trial.state is OptunaState.WAITING for trial in self._trials())

    def _untried_grid_points(self) -> list[dict[str, Any]]:
        tried = [trial.params for trial in self._tried()]
        return [point for point in grid(self.options) if not any(_is_same(point, params) for params in tried)]

    def _put_grid_point_in_line(self) -> None:
        """The next point of the grid, in an order that the seed shuffles; some point once more when all were tried."""
        if self._waits():
            return
        points = self._untried_grid_points() or grid(self.options)
        point = random.Random(self._seed()).choice(points)  # noqa: S311 (no secret)
        self.study.enqueue_trial(point)
        self._read = None

    def _tried(self) -> Iterator[FrozenTrial]:
        """The trials whose hyperparameters need not be tried again, running ones among them."""
        trials = self._trials()
        repeated = {trial.user_attrs.get(_REPEATS) for trial in trials}
        for trial in trials:
            is_ours = not trial.user_attrs.keys() & {_DUPLICATES, _BORROWED}
            if is_ours and _is_whole(trial) and trial.number not in repeated and trial.state != OptunaState.WAITING:
                yield trial

    def _twin(self, trial: optuna.Trial, point: Hyperparameters) -> int | None:
        """The number of an earlier trial of this point; None where there is none, or a person wants it again."""
        if self.allows_duplicates or trial.user_attrs.keys() & {_REPEATS, _ASKED_FOR}:
            return None
        params = {"optimizer": point.optimizer, "loss": point.loss, "learning_rate": point.learning_rate}
        twins = (other.number for other in self._tried() if _is_same(params, other.params))
        return next((number for number in twins if number != trial.number), None)

    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        low, high = self.options.lr_range
        return {
            "optimizer": optuna.distributions.CategoricalDistribution(sorted(self.options.optimizers)),
            "loss": optuna.distributions.CategoricalDistribution(sorted(self.options.losses)),
            "learning_rate": optuna.distributions.FloatDistribution(low, high, log=True),
        }


def open_study(
    workspace: Workspace, options: SearchOptions, choice: StudyChoice, show: Callable[[str], None]
) -> OptunaStudy:
    """The study in ``study.db``, new or as an earlier part of the search has left it.

    ``show`` is told of trials that are tried again, and of those taken over from another study.

    Raises:
        StudyError: it was made with other settings, by another version of Optuna, or cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    points = [parse_point(text) for text in choice.enqueued]
    with database_errors(workspace):
        storage = open_storage(workspace)
        study = optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME,
            direction="maximize",
            pruner=build_pruner(choice.pruner, options.num_epochs),
            load_if_exists=True,
        )
        _check_settings(study, study_settings(options), workspace)
        if study.user_attrs.get(NUM_TRIALS) != options.num_trials:
            study.set_user_attr(NUM_TRIALS, options.num_trials)
        opened = OptunaStudy(study, storage, options, choice.sampler, choice.allows_duplicates)
        num_left = opened.recover()
        if num_left:
            show(f"{num_left} trial{'s' * (num_left > 1)} had not ended when the search was killed: tried again first")
        if choice.warm_start is not None:
            num_borrowed = opened.borrow(load_other_study(choice.warm_start, workspace))
            show(f"The sampler learns from {num_borrowed} trials of {choice.warm_start}")
        opened.enqueue(points)
    return opened


def _check_settings(study: optuna.Study, settings: Mapping[str, Any], workspace: Workspace) -> None:
    stored = study.user_attrs.get("settings")
    if stored is not None:
        check_same_study(stored, settings)
    elif study.get_trials(deepcopy=False):
        raise StudyError(
            f"{shown(workspace.study_database)} was made by an older version or another program: "
            "--fresh starts over (what is there moves to earlier/, nothing is lost)"
        )
    else:
        study.set_user_attr("settings", dict(settings))


def suggest(trial: optuna.Trial, options: SearchOptions) -> Hyperparameters:
    """The hyperparameters of a trial: optimizer and loss categorical, the learning rate log-uniform."""
    low, high = options.lr_range
    return Hyperparameters(
        optimizer=_category(trial, "optimizer", sorted(options.optimizers)),
        loss=_category(trial, "loss", sorted(options.losses)),
        learning_rate=trial.suggest_float("learning_rate", low, high, log=True),
    )


def _category(trial: optuna.Trial, name: str, choices: Sequence[str]) -> str:
    choice = trial.suggest_categorical(name, choices)
    if not isinstance(choice, str):
        raise TypeError(f"{name} should be one of {choices}, not {choice!r}")
    return choice


def parse_point(text: str) -> dict[str, Any]:
    """The hyperparameters of one ``--enqueue``, names in lower case. Raises OptionError."""
    try:
        point = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--enqueue: {text[:80]!r} is no JSON: {error}") from None
    if not isinstance(point, dict) or not point:
        raise OptionError(f'--enqueue: {text!r} is no object such as {{"optimizer": "adam", "learning_rate": 0.001}}')
    return {name: value.lower() if isinstance(value, str) else value for name, value in point.items()}


def _contains(distribution: optuna.distributions.BaseDistribution, value: object) -> bool:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return value in distribution.choices
    if isinstance(distribution, optuna.distributions.FloatDistribution):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and distribution.low <= value <= distribution.high  # type: ignore[operator]
    return False


def _is_same(point: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    same_names = all(point[name] == other[name] for name in ("optimizer", "loss"))
    distance = abs(math.log(point["learning_rate"] / other["learning_rate"]))
    return same_names and distance < math.log(SAME_LEARNING_RATE)


def _is_whole(trial: FrozenTrial) -> bool:
    """Whether all hyperparameters were drawn before the search was killed."""
    return trial.params.keys() >= {"optimizer", "loss", "learning_rate"}


def ended_trials(trials: Sequence[FrozenTrial]) -> list[TrialRecord]:
    """Those of a search that have ended and were run, of all that its study holds."""
    repeated = {trial.user_attrs.get(_REPEATS) for trial in trials}
    return [
        _record(trial, repeated)
        for trial in trials
        if trial.state.is_finished() and _is_whole(trial) and not trial.user_attrs.keys() & {_DUPLICATES, _BORROWED}
    ]


def running_trials(trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, Hyperparameters]]:
    """Those that the study takes for running, with what they are tried with."""
    running = [trial for trial in trials if trial.state is OptunaState.RUNNING and _is_whole(trial)]
    return [
        (trial, Hyperparameters(trial.params["optimizer"], trial.params["loss"], trial.params["learning_rate"]))
        for trial in running
    ]


def _record(trial: FrozenTrial, repeated: set[int | None]) -> TrialRecord:
    stored = trial.user_attrs.get(_RECORD)
    if stored is not None:
        return TrialRecord(**{**stored, "state": TrialState(stored["state"])})
    seconds = (trial.duration.total_seconds() if trial.duration else 0.0) if trial.datetime_complete else 0.0
    return TrialRecord(
        max_acc=None,
        optimizer=trial.params["optimizer"],
        lr=trial.params["learning_rate"],
        loss=trial.params["loss"],
        epoch_max_acc=None,
        number=trial.number,
        state=_NAMES[trial.state],
        seconds=seconds,
        reason="the search was killed while it ran",
        tried_again=trial.number in repeated,
    )
