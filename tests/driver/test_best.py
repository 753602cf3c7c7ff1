"""``best --format``: what other programs read of the best trial, through their own parsers and a real shell."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rml_commands.best import describe_best
from rml_optuna import open_study
from rml_search.observer import SilentObserver
from rml_search.options import BestFormat, StudyChoice
from rml_search.results import TrialRecord, TrialState, write_list_acc
from rml_search.search import Search

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKOUT = Path(__file__).resolve().parents[2]

#: Values that a shell would cut, expand, or run.
EVIL = "a 'b' \"c\" $HOME `touch ran` $(touch ran); touch ran\n#*?~ ümlaut \\"


def search_here(workspace, options, runtime, study):
    Search(options, workspace, runtime, study, SilentObserver()).run()
    study.close()


@pytest.fixture
def searched(workspace, make_options, scripted, script):
    """Three trials have ended: the second is the best, in its second epoch; the third failed."""
    options = make_options(num_trials=3)
    runtime = scripted(script([0.4, 0.5]), script([0.25, 0.875, 0.75]), script([], code=1))
    search_here(workspace, options, runtime, open_study(workspace, options, StudyChoice(), print))
    return workspace


def type_best(workspace, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "rml_optimization.py"), "best", *arguments],
        cwd=workspace.root,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_before_the_first_trial_has_ended_it_says_so(workspace, make_options):
    open_study(workspace, make_options(), StudyChoice(), print).close()
    answer = type_best(workspace)
    assert (answer.returncode, answer.stdout) == (4, "")
    assert answer.stderr == "Error: no trial of the search in this folder has finished yet: see status\n"


def check_facts(facts, workspace):
    [second] = [entry for entry in json.loads(workspace.list_acc.read_text()) if entry["number"] == 1]
    assert facts["trial"] == 1
    assert facts["state"] == "complete"
    assert (facts["accuracy"], facts["epoch"]) == (0.875, 2)
    assert facts["hyperparameters"] == {
        "optimizer": second["optimizer"],
        "loss": second["loss"],
        "learning_rate": second["lr"],
    }
    assert facts["num_trials"] == {"complete": 2, "pruned": 0, "failed": 1}
    assert facts["chosen_on"] == "test images"
    paths = facts["paths"]
    assert Path(paths["checkpoint"]).read_text().endswith("0001/checkpoints: epoch 2")
    assert Path(paths["config"]).samefile(workspace.best_config)
    assert Path(paths["layers"]).samefile(workspace.best_layers)
    assert Path(paths["trial"]).samefile(workspace.root / "trials" / "0001")
    assert Path(paths["list_acc"]).samefile(workspace.root / "list_acc.json")


def test_json_is_all_that_is_printed_and_tells_all(searched):
    answer = type_best(searched, "--format", "json")
    assert (answer.returncode, answer.stderr) == (0, "")
    facts = json.loads(answer.stdout)
    check_facts(facts, searched)
    assert Path(facts["paths"]["study"]).samefile(searched.root / "study.db")
    assert facts["paths"]["report"] is None


def test_toml_says_the_same_without_what_there_is_none_of(searched):
    told = json.loads(type_best(searched, "--format", "json").stdout)
    answer = type_best(searched, "--format", "toml")
    facts = tomllib.loads(answer.stdout)
    check_facts(facts, searched)
    assert "report" not in facts["paths"]
    assert facts["confirmed"] == {}
    del told["paths"]["report"], told["test_accuracy"], told["confirmed"], facts["confirmed"]
    assert facts == told


def test_a_shell_takes_the_variables(searched):
    answer = type_best(searched, "--format", "env")
    told = json.loads(type_best(searched, "--format", "json").stdout)
    names = [
        "TRIAL",
        "ACCURACY",
        "EPOCH",
        "OPTIMIZER",
        "LOSS",
        "LEARNING_RATE",
        "PATH_CHECKPOINT",
        "PATH_REPORT",
        "NUM_FAILED",
    ]
    asked_for = " ".join(f'"$RML_BEST_{name}"' for name in names)
    command = f'eval "$1"; printf "%s\\n" {asked_for}'
    shell = ["bash", "-eu", "-c", command, "bash", answer.stdout]
    lines = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[:5] == ["1", "0.875", "2", told["hyperparameters"]["optimizer"], told["hyperparameters"]["loss"]]
    assert float(lines[5]) == told["hyperparameters"]["learning_rate"]
    assert lines[6:] == [told["paths"]["checkpoint"], "", "1"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_no_value_does_anything_in_a_shell(workspace, shell):
    point = {"note": EVIL, "optimizer.amsgrad": True, "a.b": 1, "a_b": 2, "trial": "mine"}
    record = TrialRecord(0.5, "adam", 1e-05, "bce", 3, 0, TrialState.COMPLETE, 1.0, None, hyperparameters=point)
    write_list_acc(workspace, [record])
    (workspace.root / "best.env").write_text(describe_best(BestFormat.ENV, workspace, None) + "\n")
    asked_for = '"$RML_BEST_NOTE" "$RML_BEST_OPTIMIZER_AMSGRAD" "$RML_BEST_A_B" "$RML_BEST_A_B_2"'
    command = f'. ./best.env; printf "%s|" "$RML_BEST_TRIAL" "$RML_BEST_TRIAL_2" {asked_for}'
    answer = subprocess.run(
        [shell, "-eu", "-c", command], cwd=workspace.root, capture_output=True, text=True, check=True
    )
    assert (answer.stdout, answer.stderr) == (f"0|mine|{EVIL}|true|1|2|", "")
    assert not (workspace.root / "ran").exists()


def test_json_and_toml_keep_the_digits_and_the_kinds_of_values(workspace):
    point = {"note": EVIL, "optimizer.momentum": math.pi, "data.batch_size": 8, "optimizer.nesterov": False}
    record = TrialRecord(0.5, "adam", 1e-05, "bce", 3, 0, TrialState.PRUNED, 1.0, "why", hyperparameters=point)
    write_list_acc(workspace, [record])
    usual = {"optimizer": "adam", "loss": "bce", "learning_rate": 1e-05}
    for best_format, parse in ((BestFormat.JSON, json.loads), (BestFormat.TOML, tomllib.loads)):
        facts = parse(describe_best(best_format, workspace, None))
        assert facts["hyperparameters"] == {**usual, **point}
        assert facts["state"] == "pruned"


def test_a_model_that_is_not_the_best_trials_is_not_told(searched):
    searched.best_digest.write_text(f"{'0' * 64}  best_model_file.pt\n")
    facts = json.loads(describe_best(BestFormat.JSON, searched, None))
    assert facts["paths"]["checkpoint"] is facts["paths"]["config"] is None
    assert facts["paths"]["trial"] is not None


@pytest.mark.parametrize("best_format", ["json", "toml", "env"])
def test_without_a_best_trial_a_program_reads_nothing(workspace, best_format):
    record = TrialRecord(None, "adam", 0.1, "bce", None, 0, TrialState.FAILED, 1.0, "no luck")
    write_list_acc(workspace, [record])
    answer = type_best(workspace, "--format", best_format)
    assert (answer.returncode, answer.stdout) == (4, "")
    assert answer.stderr == "Error: no trial has an accuracy yet\n"
    assert "No trial has an accuracy" in type_best(workspace).stdout
