"""How far a search has come: counts, times left, and how they are written."""

from __future__ import annotations

import pytest

from rml_search.display import SearchPart
from rml_search.hyperparameters import Hyperparameters
from rml_search.live_observer import LiveObserver
from rml_search.progress import Progress, RunningTrial, duration, settings_line, sparkline, tally
from rml_search.results import TrialRecord, TrialResult, TrialState
from rmldnn_contract.training_log import EpochRecord

POINT = Hyperparameters("adam", "bce", 0.001)


def record(number, accuracy=None, seconds=10.0, **changes):
    state = TrialState.FAILED if accuracy is None else TrialState.COMPLETE
    settings = {"reason": "it broke" if accuracy is None else None, "state": state, **changes}
    epoch = None if accuracy is None else 2
    return TrialRecord(accuracy, "adam", 0.001, "bce", epoch, number, seconds=seconds, **settings)


def running(number, accuracies, seconds, num_epochs=4, **changes):
    epochs = tuple(EpochRecord(epoch, num_epochs, accuracy) for epoch, accuracy in enumerate(accuracies, start=1))
    return RunningTrial(number, POINT, epochs, num_epochs, seconds, len(epochs) / num_epochs, **changes)


def progress(records, *trials, num_trials=10, **changes):
    return Progress("", num_trials, tally(records), trials, **changes)


def test_what_counts_of_the_ended_trials():
    records = [record(0, 0.5), record(1), record(2, 0.6, state=TrialState.PRUNED), record(3, tried_again=True)]
    told = tally([*records, record(4, 0.8, seconds=40.0)])
    assert (told.num_counted, told.num_pruned, told.num_failed) == (4, 1, 1)
    assert (told.best.number, told.best.accuracy, told.best.epoch) == (4, 0.8, 2)
    assert [(failure.number, failure.reason) for failure in told.failures] == [(1, "it broke")]
    assert told.mean_seconds == pytest.approx((10 + 10 + 40) / 3)
    # 0.6 took as long as 0.5: only the quicker and the more accurate ones are left.
    assert [one.number for one in told.front] == [4, 2]


def test_only_the_last_failures_are_told():
    assert [failure.number for failure in tally([record(number) for number in range(8)]).failures] == [3, 4, 5, 6, 7]


def test_the_time_left_is_what_is_left_at_the_pace_of_the_trials_before():
    # 2 trials of 20 s are done, half of a third and a quarter of a fourth: 10 s, 15 s and 6 trials are left, two at a
    # time.
    now = progress([record(0, 0.5, 20.0), record(1, 0.6, 20.0)], running(2, [0.5, 0.6], 10.0), running(3, [0.4], 5.0))
    assert now.trials_done == pytest.approx(2.75)
    assert now.seconds_left == pytest.approx((10 + 15 + 6 * 20) / 2)
    assert [trial.seconds_left for trial in now.running] == [pytest.approx(10.0), pytest.approx(15.0)]


def test_before_the_first_trial_has_ended_the_running_ones_tell_the_pace():
    # 1 of 4 epochs in 5 s: 20 s a trial, 15 s are left of both, since the other one has run for 5 s too.
    now = progress([], running(0, [0.5], 5.0), running(1, [], 5.0), num_trials=4)
    assert now.seconds_left == pytest.approx((15 + 15 + 2 * 20) / 2)
    assert progress([], running(0, [], 5.0)).seconds_left is None


@pytest.mark.parametrize("changes", [{"num_trials": None}, {"is_running": False}])
def test_nobody_knows_when_a_search_ends_that_nobody_runs_or_has_no_end(changes):
    assert progress([record(0, 0.5)], **changes).seconds_left is None


def test_the_time_left_runs_down_between_epochs():
    # 2 of 4 epochs were done after 10 s, so 20 s is what it takes.
    seconds = (10.0, 14.0, 25.0)
    left = [running(0, [0.5, 0.6], now, known_seconds=10.0).seconds_left for now in seconds]
    assert left == [pytest.approx(10.0), pytest.approx(6.0), 0.0]


def test_more_trials_than_were_asked_for_leave_no_time():
    assert progress([record(number, 0.5) for number in range(3)], num_trials=2).seconds_left == 0


def test_a_running_trial_may_be_the_best_but_not_one_whose_driver_is_gone():
    assert progress([record(0, 0.5)], running(1, [0.7, 0.6], 9.0)).best.number == 1
    assert progress([record(0, 0.5)], running(1, [0.5], 9.0)).best.number == 0
    left = progress([record(0, 0.5)], running(1, [0.7, 0.6], 9.0, is_left=True))
    assert left.best.number == 0
    assert left.trials_done == 1
    assert left.running[0].seconds_left is None


def test_the_settings_in_one_line():
    settings = {"--num-epochs": 50, "--optimizers": ["adam", "sgd"], "--loss": ["bce"], "--image-size": [96, 64]}
    settings |= {"--lr-range-min": 1e-4, "--lr-range-max": 0.01, "--batch-size": 8, "--validation-fraction": 0.2}
    line = "20 trials of 50 epochs, adam|sgd, bce, lr 0.0001-0.01, 96x64, batch 8, chosen on 20% of the training images"
    assert settings_line(20, settings) == line
    assert settings_line(None, {}) == "? trials of ? epochs"
    assert settings_line(1, {"--image-size": None, "--optimizers": None}) == "1 trials of ? epochs"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-:--"), (0, "0:00"), (42.4, "0:42"), (3599.6, "1:00:00"), (3723, "1:02:03"), (183_900, "2 d 03:05")],
)
def test_times(seconds, text):
    assert duration(seconds) == text


def test_curves():
    assert sparkline([0.0, 0.5, 1.0], 8, 0, 1) == "▁▅█"
    assert sparkline([0.0, 0.5, 1.0], 8, 0, 1, ascii_only=True) == "_+@"
    assert sparkline([0.1] * 10 + [0.9] * 10, 4, 0.1, 0.9) == "▁▁██"
    assert sparkline([0.3, 0.3], 4, 0.3, 0.3) == "▅▅"  # no range: the middle
    assert sparkline([], 4, 0, 1) == sparkline([0.5], 0, 0, 1) == ""


def test_the_observer_knows_what_the_search_knows(make_options):
    clock = iter(range(100)).__next__
    lines = []
    observer = LiveObserver(SearchPart(make_options(num_trials=5), [record(0, 0.5)]), "", lines.append, clock)
    observer.trial_started(1, 2, POINT)  # at 0
    observer.trial_started(2, 3, POINT)  # at 1
    observer.epoch_finished(1, EpochRecord(1, 3, 0.6))  # at 2
    now = observer.progress()  # at 3
    assert [(trial.number, trial.seconds, trial.num_done) for trial in now.running] == [(1, 3, 1), (2, 2, 0)]
    assert now.running[0].seconds_left == pytest.approx(3 * 2 - 3)
    again = TrialResult(1, POINT, TrialState.FAILED, (), 3.0, "no memory", is_tried_again=True)
    observer.trial_finished(again, None)
    observer.trial_finished(TrialResult(2, POINT, TrialState.FAILED, (), 3.0, "the loss is nan"), None)
    now = observer.progress()
    assert (now.tally.num_counted, now.tally.num_failed, now.running) == (2, 1, ())
    assert lines == ["Trial 1 failed after 3 s: no memory", "Trial 2 failed after 3 s: the loss is nan"]


def test_the_time_left_is_known_before_the_first_epoch_has_ended(make_options):
    clock = iter(range(100)).__next__
    observer = LiveObserver(SearchPart(make_options(num_trials=5, num_epochs=4), []), "", lambda _: None, clock)
    observer.trial_started(1, 1, POINT)  # at 0
    assert observer.progress().running[0].seconds_left is None  # at 1
    observer.trials_advanced({1: 0.125, 7: 0.5})  # at 2; trial 7 has just ended
    (trial,) = observer.progress().running  # at 3
    assert (trial.fraction, trial.num_done, trial.seconds_left) == (0.125, 0, 2 / 0.125 - 3)
    observer.trials_advanced({1: 0.125})  # nothing new: what is known is as old as before
    assert observer.progress().running[0].seconds_left == 2 / 0.125 - 4  # at 4
    observer.epoch_finished(1, EpochRecord(1, 4, 0.6))  # at 5
    assert observer.progress().running[0].seconds_left == 5 * 4 - 6  # at 6


def test_the_observer_counts_the_trials_of_other_drivers(make_options):
    observer = LiveObserver(SearchPart(make_options(num_trials=9), []), "", lambda _: None)
    observer.trial_started(3, 4, POINT)
    version = observer.version
    elsewhere = running(4, [0.9], 5.0, place="process 7 on host b")
    observer.others_seen([record(0, 0.5), record(1, 0.6), record(2)], [elsewhere])
    now = observer.progress()
    assert observer.version != version
    assert (now.tally.num_counted, now.tally.num_failed) == (3, 1)
    assert [trial.number for trial in now.running] == [3, 4]
    assert (now.best.number, now.best.accuracy) == (4, 0.9)


def test_an_accuracy_that_is_no_number_is_not_drawn():
    """It ends its trial, but is seen until then."""
    trial = running(0, [0.5, float("nan"), 0.6], 5.0)
    assert trial.accuracies == (0.5, 0.6)
    assert sparkline(trial.accuracies, 4, 0.0, 1.0, ascii_only=True)
