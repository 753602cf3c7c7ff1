"""Optuna's samplers and pruners, by the names of the command line, and studies with them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from rml_search.options import PrunerName, SamplerName, SearchOptions, StudyChoice
from rml_study.distributions import DIRECTIONS


def load_or_create_study(storage: BaseStorage, name: str, options: SearchOptions, choice: StudyChoice) -> optuna.Study:
    """The study of that name with the objectives and the pruner of this search; its settings are yet to be checked."""
    pruner = PrunerName.NONE if len(options.objectives) > 1 else choice.pruner
    return optuna.create_study(
        storage=storage,
        study_name=name,
        directions=[DIRECTIONS[objective] for objective in options.objectives],
        pruner=build_pruner(pruner, options.num_epochs),
        load_if_exists=True,
    )


def build_sampler(name: SamplerName, seed: int | None, num_draws: int) -> optuna.samplers.BaseSampler:
    """The sampler of that name for the draw after ``num_draws`` others.

    It is built anew for each draw and remembers nothing itself: what it draws depends on the seed, on ``num_draws`` and
    on the study, so that a search that was broken off draws what a whole one does (CMA-ES excepted).
    """
    draw_seed = None if seed is None else (seed * 1_000_003 + num_draws) % 2**32
    builders: dict[SamplerName, Callable[[], optuna.samplers.BaseSampler]] = {
        SamplerName.TPE: lambda: _tpe(draw_seed),
        SamplerName.RANDOM: lambda: optuna.samplers.RandomSampler(seed=draw_seed),
        SamplerName.GRID: lambda: optuna.samplers.RandomSampler(seed=draw_seed),  # its points are put in line
        SamplerName.QMC: lambda: _qmc(seed or 0, draw_seed),
        SamplerName.CMAES: lambda: _cma_es(draw_seed),
        SamplerName.GP: lambda: _GpSampler(draw_seed),
    }
    with _without_warnings():
        return builders[name]()


def _tpe(seed: int | None) -> optuna.samplers.TPESampler:
    """TPE; running trials count as bad ones (the constant liar), so that workers do not draw the same."""
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=False)


def _qmc(seed: int, draw_seed: int | None) -> optuna.samplers.QMCSampler:
    """Scrambled Sobol points, which the study counts; hyperparameters that not every point has are drawn at random."""
    return optuna.samplers.QMCSampler(
        seed=seed,
        scramble=True,
        independent_sampler=optuna.samplers.RandomSampler(seed=draw_seed),
        warn_independent_sampling=False,
    )


def _cma_es(seed: int | None) -> optuna.samplers.CmaEsSampler:
    """CMA-ES for the numbers that every point has; TPE draws the rest, such as optimizer and loss.

    CMA-ES goes by ranks, so that pruned trials can count: by the accuracy they had, they rank behind. Its state lies in
    the study, and Optuna mixes the number of the trial into its seed: a trial that is tried again after a kill has
    another number, and from there on other points are drawn than in a whole search.
    """
    return optuna.samplers.CmaEsSampler(
        seed=seed,
        independent_sampler=_tpe(seed),
        consider_pruned_trials=True,
        warn_independent_sampling=False,
        n_startup_trials=10,
    )


class _GpSampler(optuna.samplers.GPSampler):
    """A Gaussian process for what every point has; TPE draws the rest, and the first trials are drawn at random.

    Optuna's learns from complete trials alone, of which a pruner leaves few. Here a pruned trial counts with the
    accuracy that it had when it was ended.
    """

    def __init__(self, draw_seed: int | None) -> None:
        super().__init__(seed=draw_seed, independent_sampler=_tpe(draw_seed), warn_independent_sampling=False)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As Optuna's."""
        return super().infer_relative_search_space(_StudyWithPruned(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's."""
        return super().sample_relative(_StudyWithPruned(study), trial, search_space)


class _StudyWithPruned(optuna.Study):
    """A study whose pruned trials look complete."""

    def __init__(self, study: optuna.Study) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = [_as_complete(trial) for trial in super()._get_trials(deepcopy=deepcopy, use_cache=use_cache)]
        return [trial for trial in trials if states is None or trial.state in states]


def _as_complete(trial: FrozenTrial) -> FrozenTrial:
    if trial.state is not TrialState.PRUNED or trial.value is None:
        return trial
    complete = copy.copy(trial)
    complete.state = TrialState.COMPLETE
    return complete


def build_pruner(name: PrunerName, num_epochs: int) -> optuna.pruners.BasePruner:
    """The pruner of that name, for trials of ``num_epochs`` that report after each."""
    warm_up = max(1, num_epochs // 10)
    builders: dict[PrunerName, Callable[[], optuna.pruners.BasePruner]] = {
        PrunerName.NONE: optuna.pruners.NopPruner,
        PrunerName.MEDIAN: lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=warm_up),
        PrunerName.HALVING: lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=warm_up, reduction_factor=4),
        PrunerName.HYPERBAND: lambda: optuna.pruners.HyperbandPruner(min_resource=warm_up, max_resource=num_epochs),
        PrunerName.PERCENTILE: lambda: optuna.pruners.PercentilePruner(25.0, 5, warm_up),
        PrunerName.PATIENT: lambda: optuna.pruners.PatientPruner(None, patience=max(2, num_epochs // 5)),
    }
    with _without_warnings():
        return builders[name]()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Optuna calls some experimental: their form may change between releases, which the tests would tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
