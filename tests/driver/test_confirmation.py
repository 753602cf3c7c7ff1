"""The best trials are trained again with other seeds, and the mean decides."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import nullcontext

import pytest

from rml_commands.best import describe_best
from rml_commands.confirmation import confirm
from rml_optuna import open_study
from rml_report.page import read_summary
from rml_search.confirmation import read_kept_winner
from rml_search.display import PlainDisplay
from rml_search.errors import OptionError
from rml_search.inference import choose_inference_config
from rml_search.interruption import Interrupted, interruptible
from rml_search.options import BestFormat, ConfirmOptions, PrunerName, StudyChoice
from rml_search.plain_output import PlainObserver, confirmation_table
from rml_search.report.summary import Confirmation
from rml_search.search import Search
from rml_study.storage import load_other_study


@pytest.fixture
def searched(workspace, make_options, scripted, script):
    """A finished search whose three trials reached 0.7, 0.9 and 0.8."""
    options = make_options(num_trials=3)
    study = open_study(workspace, options, StudyChoice(pruner=PrunerName.NONE), lambda _: None)
    runtime = scripted(script([0.7]), script([0.9]), script([0.8]))
    search = Search(options, workspace, runtime, study, PlainObserver(options, lambda _: None))
    search.run()
    records = study.records()
    study.close()
    return search, records


def train_again(workspace, searched, runtime, *, num_trials=2, num_seeds=2):
    search, records = searched
    again = dataclasses.replace(search, runtime=runtime)
    return confirm(
        ConfirmOptions(num_trials, num_seeds),
        again,
        records,
        lambda part: nullcontext(PlainObserver(part.options, lambda _: None)),
        lambda _: None,
    )


def test_the_mean_of_other_seeds_decides(workspace, searched, scripted, script):
    # One seed after the other: trials 1 and 2 with the first, then with the second.
    runtime = scripted(script([0.6, 0.5]), script([0.8, 0.85]), script([0.7]), script([0.75]))
    ranked = train_again(workspace, searched, runtime)
    assert [confirmed.trial.number for confirmed in ranked] == [2, 1]
    assert ranked[0].mean == pytest.approx((0.85 + 0.75) / 2)
    assert ranked[1].mean == pytest.approx((0.6 + 0.7) / 2)
    assert ranked[0].deviation == pytest.approx(0.1 / 2**0.5)
    assert [run.seed for run in runtime.runs] == [6, 6, 7, 7]  # the search's own was 5
    assert "0.800 +- 0.071" in confirmation_table(ranked)


def test_the_winners_best_checkpoint_is_kept_and_inference_takes_it(workspace, searched, scripted, script):
    runtime = scripted(script([0.6]), script([0.8, 0.85]), script([0.7]), script([0.75]))
    train_again(workspace, searched, runtime)
    model = workspace.confirmed_model
    assert model.checkpoint.read_text().endswith("0001/checkpoints: epoch 2")
    digest = hashlib.sha256(model.checkpoint.read_bytes()).hexdigest()
    assert model.digest.read_text() == f"{digest}  {model.checkpoint.name}\n"
    assert choose_inference_config(workspace, None) == model.config
    network = json.loads(model.config.read_text())["neural_network"]
    assert network["checkpoints"]["load"] == "./best_model/confirmed/confirmed_model.pt"
    assert list(workspace.confirmations.rglob("*.pt")) == []
    # The search's own best model stays as it was.
    assert workspace.best_checkpoint.read_text().endswith("0001/checkpoints: epoch 1")
    assert json.loads(workspace.list_acc.read_text())[1]["max_acc"] == 0.9


def test_a_confirmation_goes_on_where_it_was_ended(workspace, searched, scripted, script):
    with pytest.raises(Interrupted), interruptible():
        train_again(workspace, searched, scripted(script([0.6]), script([0.5], interrupts=True)))
    runtime = scripted(script([0.8]), script([0.7]), script([0.75]))
    ranked = train_again(workspace, searched, runtime)
    assert [len(confirmed.runs) for confirmed in ranked] == [2, 2]
    assert [confirmed.trial.number for confirmed in ranked] == [2, 1]
    assert train_again(workspace, searched, scripted())[0].mean == ranked[0].mean  # nothing is left to do


def test_runs_that_fail_are_told(workspace, searched, scripted, script):
    runtime = scripted(script(code=1), script([0.8]), script(code=1), script([0.7]))
    ranked = train_again(workspace, searched, runtime)
    assert [(confirmed.trial.number, confirmed.num_failed) for confirmed in ranked] == [(2, 0), (1, 2)]
    assert "all failed" in confirmation_table(ranked)


def test_fewer_trials_than_asked_for(workspace, searched, scripted, script):
    ranked = train_again(workspace, searched, scripted(*[script([0.5])] * 3), num_trials=10, num_seeds=1)
    assert len(ranked) == 3


def test_the_search_goes_on_beside_its_confirmation(workspace, searched, scripted, script, make_options):
    train_again(workspace, searched, scripted(*[script([0.5])] * 4))
    options = make_options(num_trials=4)
    study = open_study(workspace, options, StudyChoice(pruner=PrunerName.NONE), lambda _: None)
    Search(options, workspace, scripted(script([0.95])), study, PlainObserver(options, lambda _: None)).run()
    assert len(study.records()) == 4
    study.close()
    other = workspace.root / "copy.db"
    other.write_bytes(workspace.study_database.read_bytes())
    assert load_other_study(other, workspace).study_name == "rml-optimization"


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])
def test_numbers_that_cannot_be(numbers):
    with pytest.raises(OptionError, match="must be at least 1"):
        ConfirmOptions(*numbers)


def test_best_tells_of_the_confirmed_model(workspace, searched, scripted, script):
    assert read_kept_winner(workspace) is None
    before = json.loads(describe_best(BestFormat.JSON, workspace, None))
    assert set(before["confirmed"].values()) == {None}
    assert "Retrained" not in describe_best(BestFormat.TABLE, workspace, None)

    train_again(workspace, searched, scripted(script([0.6]), script([0.85]), script([0.7]), script([0.75])))
    facts = json.loads(describe_best(BestFormat.JSON, workspace, None))
    assert (facts["trial"], facts["accuracy"]) == (1, 0.9)
    assert facts["confirmed"] == {
        "trial": 2,
        "mean_accuracy": pytest.approx(0.8),
        "standard_deviation": pytest.approx(0.1 / 2**0.5),
        "num_runs": 2,
        "checkpoint": str(workspace.confirmed_model.checkpoint),
        "config": str(workspace.confirmed_model.config),
    }
    assert "RML_BEST_CONFIRMED_TRIAL=2\n" in describe_best(BestFormat.ENV, workspace, None)
    table = describe_best(BestFormat.TABLE, workspace, None)
    told = " ".join(table.splitlines()[-2:])
    assert told == (
        "Retrained with other seeds, trial 2 is the best: accuracy 0.800 +- 0.071, over 2 runs. "
        "infer uses its model, in best_model/confirmed/."
    )
    assert max(map(len, table.splitlines())) < 80


@pytest.mark.parametrize(
    "text", ["[", "{}", "\xff", '{"trial": 2, "accuracies": [0.8], "study": "a", "checkpoint_sha256": "0"}']
)
def test_what_does_not_tell_of_this_model_confirms_nothing(workspace, searched, scripted, script, text):
    train_again(workspace, searched, scripted(script([0.6]), script([0.85]), script([0.7]), script([0.75])))
    assert read_kept_winner(workspace).trial == 2
    workspace.kept_winner.write_text(text, encoding="latin-1")
    assert read_kept_winner(workspace) is None
    assert "Retrained" not in describe_best(BestFormat.TABLE, workspace, None)


def test_of_two_confirmations_the_last_one_counts(workspace, searched, scripted, script):
    """They have a seed in common, so that even the digests of their models may be the same."""
    train_again(workspace, searched, scripted(script([0.9]), script([0.6])), num_trials=1)
    assert read_kept_winner(workspace).accuracies == (0.9, 0.6)
    train_again(workspace, searched, scripted(script([0.9]), script([0.6]), script([0.3])), num_trials=1, num_seeds=3)
    kept = read_kept_winner(workspace)
    assert kept.accuracies == (0.9, 0.6, 0.3)
    assert kept.study == "confirmation/trials_1_seeds_3"
    assert read_summary(workspace).confirmations == (Confirmation(1, (0.9, 0.6, 0.3)),)


def test_an_interrupted_run_of_a_second_confirmation_is_made_up_for(workspace, searched, scripted, script):
    train_again(workspace, searched, scripted(script([0.9]), script([0.6])), num_trials=1)
    stopped = scripted(script([0.6]), script([0.8]), script([0.7]), script([0.1], interrupts=True))
    with pytest.raises(Interrupted), interruptible():
        train_again(workspace, searched, stopped)
    ranked = train_again(workspace, searched, scripted(script([0.75])))
    assert [len(confirmed.runs) for confirmed in ranked] == [2, 2]


def test_runs_are_told_apart_from_trials(searched, workspace, scripted, script):
    lines = []
    search, records = searched
    again = dataclasses.replace(search, runtime=scripted(script([0.6]), script([0.5])))
    confirm(ConfirmOptions(1, 2), again, records, PlainDisplay(lines.append).watching, lines.append)
    assert lines[1].startswith("Run 0 (1 of 2): ")
    assert lines[2].startswith("  run 0, epoch 1/9: accuracy 0.600, ")
    assert not any(line.startswith("Trial") for line in lines)
