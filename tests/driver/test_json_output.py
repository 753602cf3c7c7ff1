"""A search for other programs: every line of standard output is one JSON object, and they tell all there is."""

from __future__ import annotations

import json
import math

import pytest

from rml_commands.run import run_search
from rml_search.display import open_display
from rml_search.display_name import DisplayName, display_name
from rml_search.errors import AllTrialsFailedError, OptionError
from rml_search.hyperparameters import Hyperparameters
from rml_search.json_output import JsonDisplay
from rml_search.options import ConfirmOptions, JobChoice, Objective, PrunerName, RuntimeChoice, StudyChoice
from rml_search.plain_output import PlainObserver
from rml_search.plan import SearchPlan
from rml_search.progress import RunningTrial
from rml_search.results import TrialRecord, TrialResult, TrialState
from rml_search.runtime.choice import ChosenRuntime
from rmldnn_contract.training_log import EpochRecord

#: What an event has besides its name and its time; a program may rely on each.
FIELDS = {
    "settings": {"settings"},
    "search_started": {"num_trials", "num_epochs", "num_finished"},
    "confirmation_started": {"num_trials", "num_epochs", "num_finished"},
    "trial_started": {"trial", "place", "hyperparameters"},
    "epoch": {"trial", "epoch", "num_epochs", "accuracy", "test_loss", "train_loss"},
    "trial_finished": {"trial", "state", "tried_again", "seconds", "accuracy", "epoch", "reason", "best"},
    "others": {"num_finished", "best", "running"},
    "search_finished": {"num_finished", "best", "front", "ended_early", "error"},
    "confirmed": {"trials"},
    "tested": {"loss", "accuracy"},
    "results": {"best_model", "history"},
    "note": {"text"},
}


@pytest.fixture
def search(workspace, make_options, scripted, monkeypatch):
    """Runs a search of scripts; gives its lines."""

    def run(*scripts, plan=None, display=DisplayName.JSON, **changes):
        chosen = ChosenRuntime(scripted(*scripts), "a test")
        monkeypatch.setattr("rml_search.runtime.choice.choose_runtime", lambda *_, **__: chosen)
        lines = []
        settings = {"study": StudyChoice(pruner=PrunerName.NONE), "writes_report": False, **(plan or {})}
        plan = SearchPlan(display=display, **settings)
        try:
            run_search(make_options(**changes), plan, workspace, RuntimeChoice(gpu=False), lines.append)
        except AllTrialsFailedError as error:
            lines.append(error)
        return lines

    return run


def events(lines):
    """The objects, after each was held against what is documented."""
    told = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    for event in told:
        assert event.keys() == {"event", "time"} | FIELDS[event["event"]]
    assert [event["time"] for event in told] == sorted(event["time"] for event in told)
    return told


def named(told, name):
    return [event for event in told if event["event"] == name]


def test_a_search_from_its_settings_to_its_results(search, script, workspace):
    told = events(search(script([0.5, 0.7, 0.6]), script([0.4]), num_epochs=9))
    names = [event["event"] for event in told]
    before, after = ["settings", "search_started", "trial_started"], ["trial_finished", "search_finished", "results"]
    assert names == [*before, *["epoch"] * 3, "trial_finished", "trial_started", "epoch", *after]
    assert told[0]["settings"]["Trials"] == "2"
    assert told[1] | {"num_trials": 2, "num_epochs": 9, "num_finished": 0} == told[1]
    first = named(told, "trial_started")[0]
    assert (first["trial"], first["place"]) == (0, 1)
    assert first["hyperparameters"].keys() == {"optimizer", "loss", "learning_rate"}
    epochs = [
        (event["trial"], event["epoch"], event["num_epochs"], event["accuracy"]) for event in named(told, "epoch")
    ]
    assert epochs == [(0, 1, 9, 0.5), (0, 2, 9, 0.7), (0, 3, 9, 0.6), (1, 1, 9, 0.4)]
    ends = [(event["state"], event["accuracy"], event["epoch"]) for event in named(told, "trial_finished")]
    assert ends == [("complete", 0.7, 2), ("complete", 0.4, 1)]
    end = named(told, "search_finished")[0]
    assert (end["num_finished"], end["front"], end["ended_early"], end["error"]) == (2, None, None, None)
    assert (end["best"]["trial"], end["best"]["accuracy"], end["best"]["epoch"]) == (0, 0.7, 2)
    assert end["best"]["hyperparameters"] == first["hyperparameters"]
    assert named(told, "results")[0]["history"] == str(workspace.list_acc)


def test_a_search_that_goes_on_says_how_far_it_had_come(search, script):
    search(script([0.5]), script([0.6]))
    told = events(search(script([0.7]), num_trials=3))
    assert named(told, "search_started")[0]["num_finished"] == 2
    assert named(told, "trial_started")[0]["place"] == 3
    assert named(told, "search_finished")[0]["num_finished"] == 3


def test_failures_have_a_reason_and_the_error_is_told(search, script):
    *lines, error = search(*[script(code=1, words=["it broke"])] * 3, num_trials=3)
    told = events(lines)
    ends = named(told, "trial_finished")
    assert [(end["state"], end["accuracy"], end["epoch"], end["best"]) for end in ends] == [("failed", *[None] * 3)] * 3
    assert all("it broke" in end["reason"] for end in ends)
    assert named(told, "search_finished")[0]["error"] == str(error)
    assert named(told, "results") == []


def test_a_failure_of_the_machine_does_not_count(search, script):
    told = events(search(script(code=1, is_machines_fault=True), script([0.5]), num_trials=1))
    ends = [(event["trial"], event["state"], event["tried_again"]) for event in named(told, "trial_finished")]
    assert ends == [(0, "failed", True), (1, "complete", False)]
    assert named(told, "search_finished")[0]["num_finished"] == 1


def test_trials_side_by_side_are_told_apart(search, script):
    scripts = [script([0.1 * number, 0.2], seconds=0.1) for number in range(1, 5)]
    told = events(search(*scripts, plan={"jobs": JobChoice(2)}, num_trials=4))
    for number in range(4):
        own = [event["event"] for event in told if event.get("trial") == number]
        assert own == ["trial_started", "epoch", "epoch", "trial_finished"]
    assert [event["event"] for event in told][2:4] == ["trial_started", "trial_started"]


def test_two_objectives_have_a_front(search, script):
    both = (Objective.ACCURACY, Objective.SECONDS)
    told = events(search(script([0.8], seconds=0.4), script([0.5], seconds=0.0), objectives=both))
    front = named(told, "search_finished")[0]["front"]
    assert [(one["trial"], one["accuracy"]) for one in front] == [(0, 0.8), (1, 0.5)]
    assert front[0]["seconds"] > front[1]["seconds"]


def test_the_best_ones_again_are_told_as_trials_of_their_own(search, script):
    again = {"confirm": ConfirmOptions(1, 2)}
    told = events(search(script([0.5]), script([0.7]), script([0.6]), script([0.8]), plan=again))
    names = [event["event"] for event in told]
    start = names.index("confirmation_started")
    assert names.index("search_finished") < start < names.index("confirmed")
    assert (told[start]["num_trials"], told[start]["num_finished"]) == (2, 0)
    assert names[start + 1 : -2].count("trial_finished") == 2
    (confirmed,) = named(told, "confirmed")[0]["trials"]
    assert (confirmed["trial"], confirmed["accuracy"], confirmed["accuracies"]) == (1, 0.7, [0.6, 0.8])
    assert confirmed["mean"] == pytest.approx(0.7)
    assert confirmed["deviation"] == pytest.approx(0.1 * math.sqrt(2))


def test_other_drivers_are_told_of_after_a_change():
    lines = []
    display = JsonDisplay(lines.append, lambda: 5.0)
    point = Hyperparameters("adam", "bce", 0.001)
    elsewhere = [RunningTrial(number, point, (), 3, 1.0) for number in (4, 3)]
    record = TrialRecord(0.5, "adam", 0.001, "bce", 2, 0, TrialState.COMPLETE, 9.0, None)
    for running in (elsewhere, elsewhere, []):
        display.others_seen([record], running)
    told = events(lines)
    assert [event["running"] for event in told] == [[3, 4], []]
    assert told[0]["num_finished"] == 1
    assert told[0]["best"]["accuracy"] == 0.5


def test_numbers_that_json_does_not_know_are_null():
    lines = []
    point = Hyperparameters("adam", "bce", float("nan"))
    JsonDisplay(lines.append).trial_started(0, 1, point)
    assert events(lines)[0]["hyperparameters"]["learning_rate"] is None


def test_quietly_there_is_the_last_table_alone(search, script):
    lines = search(script([0.5]), script([0.7]), display=DisplayName.QUIET)
    assert len(lines) == 1
    assert lines[0].startswith("Number of finished trials: 2\n+---")


def test_two_ways_at_a_time_are_refused():
    assert display_name() is DisplayName.AUTO
    assert display_name(quiet=True) is DisplayName.QUIET
    with pytest.raises(OptionError, match="--plain and --json cannot be combined"):
        display_name(plain=True, as_json=True)


@pytest.mark.parametrize("name", [DisplayName.AUTO, DisplayName.PLAIN])
def test_without_a_terminal_there_are_lines(name, search, script, capsys):
    assert type(open_display(name, print)).__name__ == "PlainDisplay"
    lines = search(script([0.5, 0.7]), script([0.6]), display=name, num_epochs=9)
    assert "  trial 0, epoch 2/9: accuracy 0.700, loss 0.6603 (best 0.700 in epoch 2)" in lines
    assert not any("\x1b" in line or "\r" in line for line in lines)


@pytest.mark.parametrize(
    ("state", "reason", "line"),
    [
        ("complete", None, "Trial 3 complete after 60 s: accuracy 0.700 in epoch 1 (best 0.900, trial 1)"),
        (
            "complete",
            "its log ends with epoch 1 of 9",
            "Trial 3 complete after 60 s: accuracy 0.700 in epoch 1 (best 0.900, trial 1); "
            "its log ends with epoch 1 of 9",
        ),
        (
            "pruned",
            "pruned after epoch 1 of 9",
            "Trial 3 pruned after epoch 1 of 9, 60 s: accuracy 0.700 in epoch 1 (best 0.900, trial 1)",
        ),
        (
            "pruned",
            "stopped after 60 s (--trial-timeout)",
            "Trial 3 pruned after 60 s: accuracy 0.700 in epoch 1 (best 0.900, trial 1); "
            "stopped after 60 s (--trial-timeout)",
        ),
        ("failed", "the loss became nan", "Trial 3 failed after 60 s: the loss became nan"),
    ],
)
def test_a_line_tells_how_a_trial_ended(make_options, state, reason, line):
    lines: list[str] = []
    point = Hyperparameters("adam", "bce", 0.01)
    epochs = (EpochRecord(1, 9, 0.7),)
    result = TrialResult(3, point, TrialState(state), epochs, 60.0, reason=reason)
    best = TrialRecord(0.9, "adam", 0.01, "bce", 2, 1, TrialState.COMPLETE, 1.0, None)
    PlainObserver(make_options(), lines.append).trial_finished(result, best)
    assert lines == [line]
