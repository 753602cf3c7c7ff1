"""Sums over the trials of a study, by hand."""

from __future__ import annotations

import pytest

from rml_search.report.summary import State, accuracy_of, cost_of


def test_the_best_is_first_and_of_equals_the_earlier_one(study, trial):
    ranked = study(trial(0, [0.5]), trial(1, [0.7, 0.6]), trial(2, [0.7]), trial(3, [0.9], State.FAILED)).ranked
    assert [item.number for item in ranked] == [1, 2, 0]


def test_a_pruned_trial_can_be_the_best(study, trial):
    best = study(trial(0, [0.5, 0.6]), trial(1, [0.8], State.PRUNED)).best
    assert (best.number, best.best_epoch) == (1, 1)


def test_without_any_accuracy_there_is_no_best(study, trial):
    assert study(trial(0, [], State.FAILED), trial(1, [0.9], State.RUNNING)).best is None


def test_a_failed_trial_has_no_accuracy(trial):
    with pytest.raises(ValueError, match="trial 3 has no accuracy"):
        accuracy_of(trial(3, [], State.FAILED))


def test_cost_by_hand(study, trial):
    """Of four epochs each: 4 + 1 + 2 trained, 3 + 2 spared; 60 s for 7 epochs, so 5 epochs spare 42.86 s."""
    cost = cost_of(
        study(
            trial(0, [0.1, 0.2, 0.3, 0.4], seconds=30),
            trial(1, [0.1], State.PRUNED, seconds=9),
            trial(2, [0.1, 0.2], State.PRUNED, seconds=15),
            trial(3, [], State.FAILED, seconds=6),
        )
    )
    assert [(share.state, share.num_trials, share.num_epochs, share.seconds, share.share) for share in cost.shares] == [
        (State.COMPLETE, 1, 4, 30, 0.5),
        (State.PRUNED, 2, 3, 24, 0.4),
        (State.FAILED, 1, 0, 6, 0.1),
    ]
    assert (cost.seconds, cost.num_epochs, cost.saved_epochs) == (60, 7, 5)
    assert cost.saved_seconds == pytest.approx(42.857, abs=1e-3)
    assert cost.seconds_of_an_epoch == pytest.approx(8.571, abs=1e-3)
    # Trials start every 20 s; the one that ends last is trial 2, at 40 + 15 s, before trial 3, at 60 + 6 s.
    assert cost.wall_seconds == 66


def test_a_trial_that_a_killed_search_has_left_costs_nothing(study, trial):
    left = trial(1, [0.3], State.RUNNING, seconds=86400)
    cost = cost_of(study(trial(0, [0.1, 0.2], seconds=30), left))
    assert (cost.num_trials, cost.seconds, cost.num_epochs, cost.wall_seconds) == (1, 30, 2, 30)


def test_cost_of_a_study_that_trained_nothing(study, trial):
    cost = cost_of(study(trial(0, [], State.FAILED, seconds=0)))
    assert (cost.num_epochs, cost.saved_seconds, cost.seconds_of_an_epoch) == (0, 0.0, 0.0)
    assert cost.shares[0].share == 0.0


def test_nothing_is_said_to_be_spared_where_the_epochs_of_a_trial_are_not_known(study, trial):
    assert cost_of(study(trial(0, [0.1], State.PRUNED), num_epochs=None)).saved_epochs == 0
