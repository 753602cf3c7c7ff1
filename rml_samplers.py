"""Optuna's samplers and pruners, by the names of the command line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import optuna

from rml_search.options import PrunerName, SamplerName, SearchOptions


def build_sampler(name: SamplerName, seed: int | None, options: SearchOptions) -> optuna.samplers.BaseSampler:
    """The sampler of that name; workers that draw at the same time do not draw the same."""
    if name in {SamplerName.RANDOM, SamplerName.GRID}:  # a grid's points are put in line
        return optuna.samplers.RandomSampler(seed=seed)
    if name is SamplerName.QMC:
        with _without_warnings():
            return optuna.samplers.QMCSampler(seed=options.seed or 0, scramble=True, warn_independent_sampling=False)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=False)


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
