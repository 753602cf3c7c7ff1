"""Summaries of made-up searches, whose numbers are easy to check, and the real browser that opens their pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from rml_search.report.summary import Dimension, State, StudySummary, TrialSummary
from rml_search.run_record import RunRecord

START = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)

#: Text that would be markup, and close a script, where a page forgets to escape it.
NASTY = "</script><b onload=\"x\">&amp; 'quoted'"

DIMENSIONS = (
    Dimension("data.batch_size", choices=(8, 16)),
    Dimension("layers", choices=(f"networks/{NASTY}.json", "networks/small.json")),
    Dimension("optimizer.learning_rate", low=1e-4, high=1e-1, is_log=True),
    Dimension("optimizer.momentum", low=0.0, high=0.99),
    Dimension("optimizer.type", choices=("adam", "sgd")),
)


@pytest.fixture
def nasty() -> str:
    """Text that must never become markup."""
    return NASTY


def make_trial(
    number: int, accuracies: list[float], state: State = State.COMPLETE, seconds: float = 10.0, **values: Any
) -> TrialSummary:
    """A trial of a study whose hyperparameters are ``values``, with dots for double underlines."""
    best = max(accuracies, default=None)
    return TrialSummary(
        number=number,
        hyperparameters={name.replace("__", "."): value for name, value in values.items()},
        state=state,
        accuracies=tuple(enumerate(accuracies, start=1)),
        accuracy=best if state in {State.COMPLETE, State.PRUNED} else None,
        best_epoch=accuracies.index(best) + 1 if best is not None and state is not State.FAILED else None,
        seconds=seconds,
        started=START + timedelta(seconds=20 * number),
    )


@pytest.fixture
def trial() -> Callable[..., TrialSummary]:
    """Makes a trial: ``trial(3, [0.5, 0.7], State.PRUNED, optimizer__type="adam")``."""
    return make_trial


def make_study(*trials: TrialSummary, **changes: Any) -> StudySummary:
    """A study of these trials, of four epochs each."""
    names = {name for trial in trials for name in trial.hyperparameters}
    dimensions = tuple(dimension for dimension in DIMENSIONS if dimension.name in names)
    read_at = START + timedelta(hours=1)
    return replace(StudySummary("a search", trials, dimensions, read_at, num_epochs=4), **changes)


@pytest.fixture
def study() -> Callable[..., StudySummary]:
    """Makes a study of trials."""
    return make_study


def make_mixed_study() -> StudySummary:
    """Twelve trials in all states: adam beats SGD, which alone has a momentum; the best is trial 7 with 0.92."""
    trials = []
    for number in range(12):
        is_adam = number % 3 != 0
        values: dict[str, Any] = {
            "optimizer.type": "adam" if is_adam else "sgd",
            "optimizer.learning_rate": 10 ** (-3.6 + 0.2 * number),
            "data.batch_size": 8 if number % 2 else 16,
            "layers": DIMENSIONS[1].choices[number % 2],
        }
        if not is_adam:
            values["optimizer.momentum"] = 0.05 * number
        top = 0.85 + 0.01 * number if is_adam else 0.4 + 0.01 * number
        state = State.COMPLETE if is_adam else State.PRUNED
        curve = [round(top * factor, 3) for factor in ((0.5, 0.8, 0.95, 1.0) if is_adam else (0.5, 1.0))]
        trial = make_trial(number, curve, state, seconds=40.0 if is_adam else 15.0)
        trials.append(replace(trial, hyperparameters=values))
    trials[8] = replace(trials[8], state=State.FAILED, accuracy=None, best_epoch=None, reason=f"it said {NASTY}")
    trials[9] = replace(trials[9], reason="worse than the median of the trials before")
    trials[10] = replace(trials[10], state=State.FAILED, accuracies=(), accuracy=None, best_epoch=None, reason="no")
    trials[11] = replace(trials[11], state=State.RUNNING, accuracies=trials[11].accuracies[:2], accuracy=None)
    run = RunRecord(
        command=f"python rml_optimization.py --layers '{NASTY}'",
        started="2026-03-01T12:00:00+00:00",
        versions={"rml-optimization": "0.1.0"},
        machine={"Processor": "a <fast> one"},
        settings=(("Network", NASTY),),
    )
    return make_study(*trials, settings={"--num-epochs": "4", "--seed": "5", "--layers": "ab" * 32}, runs=(run,))


@pytest.fixture(scope="session")
def mixed_study() -> StudySummary:
    """A study with trials in all states and conditional hyperparameters."""
    return make_mixed_study()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """A browser without a window, without a network and without a past."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with its driver; .ci/install-packages installs both")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="session")
def report_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for pages that several tests read."""
    return tmp_path_factory.mktemp("report")
