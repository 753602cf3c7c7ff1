"""The checkpoints of the best trials are kept, whatever is killed in between and whatever --keep-top was before."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest

from rml_optuna import open_study
from rml_search.errors import OptionError
from rml_search.inference import read_inference_configuration
from rml_search.options import StudyChoice
from rml_search.plain_output import PlainObserver
from rml_search.plan import SearchPlan
from rml_search.search import Search

ACCURACIES = [[0.5, 0.6], [0.9, 0.7], [0.8], [0.95, 0.99, 0.9], [0.85], [0.1]]


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up behind it."""


def part_of_search(workspace, options, runtime, keep_top, told=print):
    study = open_study(workspace, options, StudyChoice(), told)
    search = Search(options, workspace, runtime, study, PlainObserver(options, told), keep_top=keep_top)
    try:
        search.run()
    finally:
        study.close()


def check(workspace, expected):
    """``expected``: trial -> the best epoch of each checkpoint that is kept, the best trial first."""
    files = {}
    for place, (number, epoch) in enumerate(expected.items()):
        name = f"best_model/top/trial_{number:04}" if place else "best_model/best_model_file"
        checkpoint, config = workspace.root / f"{name}.pt", workspace.root / f"{name}.json"
        config = config if place else workspace.root / "best_model/config_test.json"
        files |= {number: f"{name}.pt"}
        assert checkpoint.read_text().endswith(f"{number:04}/checkpoints: epoch {epoch}")
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        assert checkpoint.with_name(f"{checkpoint.name}.sha256").read_text() == f"{digest}  {checkpoint.name}\n"
        network = read_inference_configuration(config).neural_network
        layers = f"./{name}.layers.json" if place else "./best_model/layers.json"
        assert (network.checkpoints.load, network.layers) == (f"./{name}.pt", layers)
        entry = json.loads(workspace.list_acc.read_text())[number]
        assert network.loss.function.lower() == entry["loss"]
        assert (entry["checkpoint"], entry["checkpoint_sha256"]) == (f"{name}.pt", digest)
    entries = json.loads(workspace.list_acc.read_text())
    assert {entry["number"]: entry["checkpoint"] for entry in entries if entry["checkpoint"]} == files
    kept = [path.name for path in workspace.best_model.rglob("*") if path.is_file()]
    assert len(kept) == 4 * len(expected), kept
    assert list(workspace.trials.glob("*/checkpoints/*")) == []


def test_the_best_checkpoints_are_kept_with_their_configurations(workspace, make_options, scripted, script):
    part_of_search(workspace, make_options(num_trials=6), scripted(*map(script, ACCURACIES)), keep_top=3)
    check(workspace, {3: 2, 1: 1, 4: 1})


def test_where_files_cannot_have_two_names_they_are_moved(workspace, make_options, scripted, script, monkeypatch):
    def refuse(path, target):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    part_of_search(workspace, make_options(num_trials=6), scripted(*map(script, ACCURACIES)), keep_top=3)
    check(workspace, {3: 2, 1: 1, 4: 1})


def test_another_number_counts_from_then_on(workspace, make_options, scripted, script):
    parts = [script(accuracies) for accuracies in [*ACCURACIES, [0.97], [0.98]]]
    part_of_search(workspace, make_options(num_trials=4), scripted(*parts[:4]), keep_top=1)
    check(workspace, {3: 2})
    # Those that were kept once are gone; the next ones are kept.
    part_of_search(workspace, make_options(num_trials=7), scripted(*parts[4:7]), keep_top=3)
    check(workspace, {3: 2, 6: 1})
    part_of_search(workspace, make_options(num_trials=8), scripted(*parts[7:]), keep_top=3)
    check(workspace, {3: 2, 7: 1, 6: 1})
    part_of_search(workspace, make_options(num_trials=8), scripted(), keep_top=2)
    check(workspace, {3: 2, 7: 1})
    part_of_search(workspace, make_options(num_trials=8), scripted(), keep_top=1)
    check(workspace, {3: 2})


def test_a_checkpoint_that_was_changed_is_not_listed(workspace, make_options, scripted, script):
    part_of_search(workspace, make_options(num_trials=6), scripted(*map(script, ACCURACIES)), keep_top=3)
    workspace.top_model(4).checkpoint.write_text("something else")
    part_of_search(workspace, make_options(num_trials=6), scripted(), keep_top=3)
    assert [entry["number"] for entry in json.loads(workspace.list_acc.read_text()) if entry["checkpoint"]] == [1, 3]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("links", [True, False])
def test_a_kill_before_any_change_of_a_file_loses_nothing(
    workspace, make_options, scripted, script, monkeypatch, tmp_path_factory, links
):
    """Each change of a file under best_model/, or of a checkpoint, is once the one that is not done any more."""
    options = make_options(num_trials=4)
    state = {"left": 0}

    def count(original, path, *arguments, **settings):
        is_ours = workspace.best_model in path.parents or "checkpoints" in path.parts
        if is_ours and threading.current_thread() is threading.main_thread():
            state["left"] -= 1
            if state["left"] == 0:
                raise Killed
        if original is Path.hardlink_to and not links:
            raise PermissionError(1, "Operation not permitted", str(path))
        return original(path, *arguments, **settings)

    for name in ("replace", "unlink", "hardlink_to", "mkdir"):
        original = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda path, *rest, _of=original, **more: count(_of, path, *rest, **more))
    monkeypatch.setattr(Search, "_break_off", lambda *_: None)
    num_kills = 0
    while True:
        state["left"] = num_kills + 1
        try:
            part_of_search(workspace, options, scripted(*map(script, ACCURACIES[:4])), keep_top=2)
        except Killed:
            num_kills += 1
        else:
            break
        state["left"] = 0
        study = open_study(workspace, options, StudyChoice(), print)
        told = [record for record in study.records() if not record.tried_again]
        study.close()
        # Trials that are run again have another number.
        part_of_search(workspace, options, scripted(*map(script, ACCURACIES[len(told) : 4])), keep_top=2)
        numbers = [e["number"] for e in json.loads(workspace.list_acc.read_text()) if not e["tried_again"]]
        check(workspace, {numbers[3]: 2, numbers[1]: 1})
        aside = tmp_path_factory.mktemp("killed")
        for path in workspace.results():
            if path.exists():
                path.rename(aside / path.name)
    assert num_kills > 30


def test_none_is_too_few():
    with pytest.raises(OptionError, match="--keep-top must be at least 1, not 0"):
        SearchPlan(keep_top=0)
