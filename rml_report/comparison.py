"""A search as Optuna compares its trials: a study in memory, and how important each hyperparameter is in it.

Optuna compares complete trials alone. Here a pruned trial counts with the best accuracy that it had by then, as it
does for ``best_model/``: a search whose pruner ended every bad trial would otherwise seem to have had none.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState as OptunaState

from rml_search.report.summary import Dimension, State, StudySummary, Value
from rml_search.report.words import best_share, why_no_importances

_STATES = {
    State.COMPLETE: OptunaState.COMPLETE,
    State.PRUNED: OptunaState.COMPLETE,
    State.FAILED: OptunaState.FAIL,
    State.INTERRUPTED: OptunaState.FAIL,
    State.RUNNING: OptunaState.RUNNING,
}


def importance_shares(study: StudySummary) -> Mapping[str, float]:
    """Hyperparameter -> its share (they add up to 1) in what makes a trial one of the best; empty where unknown.

    By PED-ANOVA (https://arxiv.org/abs/2304.10255): how much the best trials differ in it from all trials.
    """
    if why_no_importances(study) is not None:
        return {}
    shares = optuna.importance.get_param_importances(compared_study(study), evaluator=importance_evaluator(study))
    names = {axis_label(dimension.name): dimension.name for dimension in study.dimensions}
    return {names[label]: share for label, share in shares.items()}


def importance_evaluator(study: StudySummary) -> PedAnovaImportanceEvaluator:
    """What rates the hyperparameters of this study; it has enough trials to tell."""
    return PedAnovaImportanceEvaluator(target_quantile=best_share(study))


def compared_study(study: StudySummary) -> optuna.Study:
    """The trials in memory, each under its own number: gaps are filled with failed trials, which no plot shows."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    copy = optuna.create_study(direction="maximize")
    by_number = {trial.number: trial for trial in study.trials}
    dimensions = {dimension.name: dimension for dimension in study.dimensions}
    for number in range(max(by_number, default=-1) + 1):
        trial = by_number.get(number)
        if trial is None:
            copy.add_trial(optuna.create_trial(state=OptunaState.FAIL))
            continue
        values = trial.hyperparameters
        copy.add_trial(
            optuna.create_trial(
                # One that was pruned before its first accuracy has nothing to compare.
                state=_STATES[trial.state] if trial.is_judged or trial.state is State.RUNNING else OptunaState.FAIL,
                value=trial.accuracy if trial.is_judged else None,
                params={axis_label(name): _axis_value(value, dimensions[name]) for name, value in values.items()},
                distributions={axis_label(name): _distribution(dimensions[name]) for name in values},
                intermediate_values=dict(trial.accuracies),
            )
        )
    return copy


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices is not None:
        return CategoricalDistribution(tuple(_axis_value(choice, dimension) for choice in dimension.choices))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.is_log and dimension.low > 0)


def _axis_value(value: Value, dimension: Dimension) -> str | float:
    """A number of a range; a choice, also one between numbers or switches, by its name."""
    if dimension.choices is None and isinstance(value, (int, float)):
        return value
    return axis_label(str(value))


def axis_label(text: str) -> str:
    """Text that plotly shows as it is: it would take ``<`` for the beginning of markup."""
    return html.escape(text, quote=False)
