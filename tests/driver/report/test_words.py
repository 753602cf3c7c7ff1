"""What the report says, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from rml_search.report import words
from rml_search.report.summary import State, cost_of
from rml_search.run_record import RunRecord


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.4, "0.4 s"),
        (9.96, "10.0 s"),
        (45, "45 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_times(seconds, text):
    assert words.show_seconds(seconds) == text


@pytest.mark.parametrize(("share", "text"), [(0, "0 %"), (0.004, "below 1 %"), (0.126, "13 %"), (1, "100 %")])
def test_shares(share, text):
    assert words.percent(share).replace("\N{NO-BREAK SPACE}", " ") == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.00123456, "0.001235"), (16, "16"), ("adam", "adam"), (True, "True"), (None, "None")]
)
def test_values(value, text):
    assert words.show_value(value) == text


def test_a_long_value_keeps_its_ends():
    assert words.shorten("networks/resunet_without_skips.json", 21) == "networks/r…skips.json"
    assert words.shorten("short", 21) == "short"


def test_the_lead(study, trial):
    text = words.describe_lead(
        study(trial(0, [0.6]), trial(1, [0.9]), trial(2, [0.897]), trial(3, [0.2], State.PRUNED))
    )
    assert "0.003 above the second best, trial 2 (0.897)" in text
    assert "0.003 above the median of the 3 complete trials (0.897)" in text
    assert "1 other trial came within 0.005" in text


def test_a_clear_lead_has_no_doubt(study, trial):
    assert "within" not in words.describe_lead(study(trial(0, [0.6]), trial(1, [0.9])))


def test_a_single_trial_leads_nobody(study, trial):
    assert "nothing to compare" in words.describe_lead(study(trial(0, [0.6])))


def test_what_came_of_choices(study, trial):
    found = study(
        trial(0, [0.5], optimizer__type="sgd"),
        trial(1, [0.9], optimizer__type="adam"),
        trial(2, [0.7], optimizer__type="adam"),
        trial(3, [0.3], State.PRUNED, optimizer__type="adam"),
    )
    assert words.describe_effect(found, found.dimensions[0]) == (
        "adam (best 0.900, median of the complete 0.800, 3 trials, 1 of them pruned); sgd (best 0.500, 1 trial)"
    )


def test_where_in_a_range_the_best_lie(study, trial):
    """The best quarter of eight: 0.03 and 0.01."""
    rates = [0.0002, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]
    accuracies = [0.1, 0.9, 0.3, 0.8, 0.5, 0.6, 0.7, 0.2]
    found = study(
        *(
            trial(number, [accuracy], optimizer__learning_rate=rate)
            for number, (rate, accuracy) in enumerate(zip(rates, accuracies, strict=True))
        )
    )
    effect = words.describe_effect(found, found.dimensions[0])
    assert effect == "the best 2 of 8 trials had 0.01 to 0.03; searched from 0.0001 to 0.1"


def test_steps_of_the_history(study, trial):
    found = study(trial(0, [0.5]), trial(1, [0.4]), trial(2, [0.7]), trial(3, [0.7]))
    assert words.describe_history(found).endswith("The best so far was, in turn, trial 0 (0.500), trial 2 (0.700).")


@pytest.mark.parametrize(
    ("accuracies", "reason"),
    [
        ([0.1, 0.2, 0.3], "4 trials with an accuracy are needed"),
        ([0.9, 0.9, 0.9, 0.9], "same accuracy"),
        ([0.9, 0.1, 0.1, 0.1], "same accuracy"),
        ([0.1, 0.2, 0.3, 0.4], None),
        ([0.9, 0.9, 0.1, 0.1], None),
    ],
)
def test_when_importances_cannot_be_told(study, trial, accuracies, reason):
    trials = [
        trial(number, [accuracy], optimizer__type=("adam", "sgd")[number % 2])
        for number, accuracy in enumerate(accuracies)
    ]
    found = words.why_no_importances(study(*trials))
    assert found is None if reason is None else reason in found


def test_one_value_has_no_importance(study, trial):
    trials = [trial(number, [0.1 * number], optimizer__type="adam") for number in range(1, 6)]
    assert "more than one value" in words.why_no_importances(study(*trials))


def test_cost_in_words(study, trial):
    found = study(trial(0, [0.1, 0.2, 0.3, 0.4], seconds=80), trial(1, [0.1], State.PRUNED, seconds=20))
    text = words.describe_cost(cost_of(found), found.num_epochs)
    assert "1 min 40 s in total, for 5 epochs of training, 20 s per epoch" in text
    assert "Stopping trials early saved 3 epochs, about 1 min." in text


def test_cost_without_pruning_recommends_nothing(study, trial):
    """A pruner may have been at work, as it is by default, and have found all trials worth their time."""
    found = study(trial(0, [0.1, 0.2, 0.3, 0.4]))
    text = words.describe_cost(cost_of(found), found.num_epochs)
    assert text.endswith(" No trial was stopped early.")


def test_trials_that_were_broken_off_have_not_failed_for_good(study, trial):
    broken_off = [trial(number, [], State.INTERRUPTED) for number in (0, 1)]
    found = study(*broken_off, trial(2, [], State.FAILED), trial(3, [0.5]))
    assert words.describe_states(found) == "2 trials: 1 complete, 1 failed; 2 more were interrupted and do not count"
    assert words.describe_states(study(broken_off[0])) == "0 trials; 1 more was interrupted and does not count"
    assert (cost_of(found).num_trials, cost_of(found).num_finished) == (4, 2)


@pytest.mark.parametrize(
    ("command", "program"),
    [
        ("python rml_optimization.py --num-trials 3", "python rml_optimization.py"),
        ("RMLDNN_PRECISION=float32 rml-optimization --num-trials 3", "rml-optimization"),
        ("python '/my folder/rml_optimization.py' demo", "python '/my folder/rml_optimization.py'"),
        (None, "python rml_optimization.py"),
    ],
)
def test_commands_begin_as_that_of_the_search(study, command, program):
    runs = () if command is None else (RunRecord(command, "2026-03-01T12:00:00+00:00", {}, {}),)
    assert words.program_of(study(runs=runs)) == program


def test_equal_trials_are_level(study, trial):
    found = study(trial(0, [0.9]), trial(1, [0.9]))
    assert words.describe_lead(found).startswith("This is level with the second best, trial 1 (0.900)")
