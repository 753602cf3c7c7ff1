"""Samplers and pruners by their names: what they draw, that they draw it again, and what they end."""

from __future__ import annotations

import importlib.util
import math

import optuna
import pytest

from rml_search import options
from rml_search.errors import OptionError
from rml_search.options import SamplerName, StudyChoice
from rml_study.samplers import build_sampler

RATES = (0.001, 0.01)
PRUNED = optuna.trial.TrialState.PRUNED
OPTIMIZERS, LOSSES = ("adam", "sgd"), ("bce", "dice")


def draw(study, name, seed):
    """A point as the driver draws it: the sampler is built anew, a number is only asked for where it matters."""
    study.sampler = build_sampler(name, seed, len(study.trials))
    trial = study.ask()
    point = {
        "optimizer": trial.suggest_categorical("optimizer", OPTIMIZERS),
        "loss": trial.suggest_categorical("loss", LOSSES),
        "learning_rate": trial.suggest_float("learning_rate", *RATES, log=True),
    }
    if point["optimizer"] == "sgd":
        point["momentum"] = trial.suggest_float("momentum", 0.0, 0.9)
    return trial, point


def accuracy(point):
    """Best with adam at 0.003."""
    distance = math.log10(point["learning_rate"] / 0.003)
    return 0.8 - 0.1 * distance**2 - 0.1 * (point["optimizer"] == "sgd") - 0.02 * (point["loss"] == "bce")


def tell(study, trial, point, number):
    """Ends a trial; every second one was pruned after its first epoch."""
    trial.report(accuracy(point) - 0.1, 1)
    if number % 2:
        study.tell(trial, state=PRUNED)
    else:
        study.tell(trial, accuracy(point))


def draw_points(name, seed, num_trials=16, workers=1):
    study = optuna.create_study(direction="maximize")
    points, running = [], []
    for number in range(num_trials):
        trial, point = draw(study, name, seed)
        points.append(point)
        running.append((trial, point, number))
        if len(running) == workers:
            tell(study, *running.pop(0))
    return points


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", SamplerName)
def test_a_sampler_draws_points_of_the_space_and_the_same_with_a_seed(name, workers):
    points = draw_points(name, 5, workers=workers)
    assert {point["optimizer"] for point in points} == set(OPTIMIZERS)
    assert {point["loss"] for point in points} == set(LOSSES)
    assert all(RATES[0] <= point["learning_rate"] <= RATES[1] for point in points)
    momenta = [point["momentum"] for point in points if "momentum" in point]
    assert all(0.0 <= momentum <= 0.9 for momentum in momenta)
    assert len(set(momenta)) == len(momenta) > 2
    assert draw_points(name, 5, workers=workers) == points
    assert draw_points(name, 6, workers=workers) != points


@pytest.mark.parametrize("name", sorted({*SamplerName} - {SamplerName.CMAES}))
def test_what_a_sampler_draws_does_not_depend_on_trials_that_were_broken_off(name):
    whole, broken = (optuna.create_study(direction="maximize") for _ in range(2))
    for number in range(16):
        trial, point = draw(whole, name, 3)
        tell(whole, trial, point, number)
    num_lost = 0
    for number in range(16):
        broken.sampler = build_sampler(name, 3, len(broken.trials) - num_lost)
        trial = broken.ask(whole.trials[number].distributions)
        assert trial.params == whole.trials[number].params
        if number in {4, 12}:  # it is killed, and what it was trying runs again
            num_lost += 1
            broken.tell(trial, state=optuna.trial.TrialState.FAIL)
            broken.enqueue_trial(trial.params)
            trial = broken.ask(whole.trials[number].distributions)
        tell(broken, trial, trial.params, number)


@pytest.mark.parametrize("name", [SamplerName.TPE, SamplerName.CMAES, SamplerName.GP])
def test_a_sampler_that_learns_comes_closer_than_chance(name):
    def mean_of_the_last(name):
        return sum(accuracy(point) for point in draw_points(name, 1, 30)[-10:]) / 10

    assert mean_of_the_last(name) > mean_of_the_last(SamplerName.RANDOM) + 0.01


def test_the_gaussian_process_learns_from_pruned_trials():
    study = optuna.create_study(direction="maximize")
    for number in range(20):
        trial, point = draw(study, SamplerName.RANDOM, 2)
        trial.report(accuracy(point), 1)
        study.tell(trial, *(() if number else (accuracy(point),)), state=None if not number else PRUNED)
    points = [draw(study, SamplerName.GP, seed)[1] for seed in range(4)]
    assert {point["optimizer"] for point in points} == {"adam"}


def test_quasi_random_points_fill_the_range_of_learning_rates_evenly():
    logs = [math.log10(point["learning_rate"]) + 3 for point in draw_points(SamplerName.QMC, 1, 33)[1:]]
    # Of a scrambled Sobol sequence each of 32 equal parts holds one of the first 32 points.
    assert sorted(int(32 * log) for log in logs) == list(range(32))


@pytest.mark.parametrize(
    ("name", "packages", "words"),
    [
        (SamplerName.CMAES, {"cmaes"}, "--sampler cmaes needs cmaes: pip install cmaes, or use --sampler tpe"),
        (SamplerName.GP, {"torch", "scipy"}, "--sampler gp needs torch and scipy: pip install torch scipy, or use"),
        (SamplerName.GP, {"scipy"}, "--sampler gp needs scipy: pip install scipy, or use --sampler tpe"),
        (SamplerName.QMC, {"scipy"}, "--sampler qmc needs scipy: pip install scipy, or use --sampler tpe"),
    ],
)
def test_a_package_that_a_sampler_lacks_is_named(monkeypatch, name, packages, words):
    def find(package):
        return None if package in packages else importlib.util.find_spec(package)

    monkeypatch.setattr(options, "find_spec", find)
    with pytest.raises(OptionError, match=f"^{words}"):
        StudyChoice(sampler=name)
    StudyChoice(sampler=SamplerName.TPE)
