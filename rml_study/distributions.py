"""The search space in Optuna's terms."""

from __future__ import annotations

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection

from rml_search.options import Objective
from rml_search.search_space import Choices, Dimension, FloatRange, IntRange, SearchSpace, Value

#: Which way each objective is better.
DIRECTIONS = {Objective.ACCURACY: StudyDirection.MAXIMIZE, Objective.SECONDS: StudyDirection.MINIMIZE}


def distribution(dimension: Dimension) -> BaseDistribution:
    """The distribution of one dimension."""
    match dimension.domain:
        case Choices(values=values):
            return CategoricalDistribution(values)
        case FloatRange(low=low, high=high, log=log, step=step):
            return FloatDistribution(low, high, log=log, step=step)
        case IntRange(low=low, high=high, log=log, step=step):
            return IntDistribution(low, high, log=log, step=step)


def distributions(space: SearchSpace, point: dict[str, Value] | None = None) -> dict[str, BaseDistribution]:
    """The distributions of all dimensions, or of those that a point has values of."""
    dimensions = space.dimensions if point is None else tuple(space.active(point))
    return {dimension.name: distribution(dimension) for dimension in dimensions}


def suggest(trial: optuna.Trial, space: SearchSpace) -> dict[str, Value]:
    """The point of a trial: dimension after dimension, each where its conditions hold."""
    point: dict[str, Value] = {}
    for dimension in space.dimensions:
        if dimension.is_active(point):
            point[dimension.name] = _suggest_one(trial, dimension)
    return point


def _suggest_one(trial: optuna.Trial, dimension: Dimension) -> Value:
    name = dimension.name
    match dimension.domain:
        case Choices(values=values):
            choice: Value = trial.suggest_categorical(name, values)  # type: ignore[assignment]  # never None: see Choices
            return choice
        case FloatRange(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntRange(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
