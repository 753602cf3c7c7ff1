"""Going on with a search: after its end, after a kill at any step, and with other options."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import optuna
import pytest

from rml_optuna import STUDY_NAME, open_study
from rml_search import best_model, search_files
from rml_search.errors import AllTrialsFailedError, OptionError, StudyError
from rml_search.interruption import Interrupted, interruptible
from rml_search.observer import SilentObserver
from rml_search.options import StudyChoice
from rml_search.results import best_record, read_list_acc
from rml_search.search import Search
from rml_study.storage import can_go_on, storage_url


class Noting(SilentObserver):
    """Keeps the notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


class Killed(BaseException):
    """Stands for SIGKILL: nothing is cleaned up behind it."""


def part_of_search(workspace, options, runtime, **settings):
    observer = Noting()
    study = open_study(workspace, options, StudyChoice(), observer.note)
    return Search(options, workspace, runtime, study, observer, **settings)


def points(runtime):
    return [(document["optimizer"], document["loss"]) for document in runtime.documents]


def check_agreement(workspace, num_trials):
    """list_acc.json, study.db and best_model/ say the same, and nothing else is left."""
    records = read_list_acc(workspace)
    study = optuna.load_study(study_name=STUDY_NAME, storage=storage_url(workspace))
    assert sum(not record.tried_again for record in records) == num_trials
    assert [trial.number for trial in study.trials] == [record.number for record in records]
    for trial, record in zip(study.trials, records, strict=True):
        assert trial.state.name.lower()[:4] == record.state.value[:4]
        assert trial.value == record.max_acc
        assert trial.params == {"optimizer": record.optimizer, "loss": record.loss, "learning_rate": record.lr}
    best = best_record(records)
    digest = hashlib.sha256(workspace.best_checkpoint.read_bytes()).hexdigest()
    assert digest == best.checkpoint_sha256
    assert workspace.best_digest.read_text() == f"{digest}  best_model_file.pt\n"
    text = workspace.best_checkpoint.read_text()
    assert text.endswith(f"{best.number:04}/checkpoints: epoch {best.epoch_max_acc}")
    configuration = json.loads(workspace.best_config.read_text())["neural_network"]
    assert configuration["loss"]["function"].lower() == best.loss
    assert list(workspace.trials.glob("*/checkpoints/*")) == []


def test_a_search_that_has_ended_goes_on_with_more_trials(workspace, make_options, scripted, script):
    part_of_search(workspace, make_options(num_trials=2), scripted(script([0.5]), script([0.9]))).run()
    runtime = scripted(script([0.7]), script([0.8]))
    part_of_search(workspace, make_options(num_trials=4), runtime).run()
    assert len(runtime.runs) == 2
    check_agreement(workspace, 4)
    idle = scripted()
    part_of_search(workspace, make_options(num_trials=4), idle).run()
    assert idle.runs == []


def test_what_was_running_when_the_search_was_killed_runs_first(workspace, make_options, scripted, script):
    first = scripted(script([0.5]), script([0.6]))
    part_of_search(workspace, make_options(num_trials=2), first).run()
    lost = open_study(workspace, make_options(num_trials=4), StudyChoice(), print).ask()
    runtime = scripted(script([0.7]), script([0.8]))
    going_on = part_of_search(workspace, make_options(num_trials=4), runtime)
    assert going_on.observer.notes == [
        "Resuming: 2 of 4 trials have run",
        "1 trial had not finished when the search was killed: retried first",
    ]
    going_on.run()
    again = runtime.documents[0]
    assert again["optimizer"]["type"].lower() == lost.hyperparameters.optimizer
    assert again["optimizer"]["learning_rate"] == lost.hyperparameters.learning_rate
    records = read_list_acc(workspace)
    assert [(r.number, r.state.value, r.tried_again) for r in records] == [
        (0, "complete", False),
        (1, "complete", False),
        (2, "failed", True),
        (3, "complete", False),
        (4, "complete", False),
    ]
    check_agreement(workspace, 4)


def test_a_search_that_was_broken_off_draws_what_a_whole_one_does(
    workspace, make_options, scripted, script, tmp_path_factory
):
    scripts = [script([0.1 * number]) for number in range(1, 9)]
    whole = scripted(*scripts)
    part_of_search(workspace, make_options(num_trials=8), whole).run()
    for path in workspace.results():
        if path.exists():
            path.rename(tmp_path_factory.mktemp("whole") / path.name)
    first = scripted(*scripts[:3], script([0.2], interrupts=True))
    with pytest.raises(Interrupted), interruptible():
        part_of_search(workspace, make_options(num_trials=8), first).run()
    rest = scripted(*scripts[3:])
    part_of_search(workspace, make_options(num_trials=8), rest).run()
    assert points(first)[:3] + points(rest) == points(whole)


DEATHS = {
    "before the digest": (search_files, "file_digest"),
    "before the study is told": (optuna.Study, "tell"),
    "before the best model": (search_files, "settle_best_model"),
    "within the best model": (best_model, "write_atomically"),
    "before checkpoints are dropped": (search_files, "drop_finished_checkpoints"),
    "before the list": (search_files, "write_list_acc"),
}


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("death", DEATHS)
def test_a_kill_between_any_two_steps_loses_nothing(workspace, make_options, scripted, script, monkeypatch, death, nth):
    options = make_options(num_trials=4)
    scripts = [script([0.5, 0.6]), script([0.9, 0.7]), script([0.8]), script([0.95, 0.99, 0.9])]
    place, name = DEATHS[death]
    original = getattr(place, name)
    calls = []

    def die(*arguments, **settings):
        calls.append(arguments)
        # A search settles once before its first trial.
        if len(calls) == nth + (place is search_files and name != "file_digest"):
            raise Killed
        return original(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(place, name, die)
        patch.setattr(Search, "_break_off", lambda *_: None)
        with pytest.raises(Killed):
            part_of_search(workspace, options, scripted(*scripts)).run()
    told = [trial for trial in open_study(workspace, options, StudyChoice(), print).records() if not trial.tried_again]
    part_of_search(workspace, options, scripted(*scripts[len(told) :])).run()
    check_agreement(workspace, 4)
    assert best_record(read_list_acc(workspace)).max_acc == 0.99


@pytest.mark.parametrize("step", ["replace", "digest"])
def test_a_kill_while_the_best_model_is_installed(workspace, make_options, scripted, script, monkeypatch, step):
    options = make_options(num_trials=1)
    replace = Path.replace

    def die(path, target):
        if Path(target) == {"replace": workspace.best_checkpoint, "digest": workspace.best_digest}[step]:
            raise Killed
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        patch.setattr(Search, "_break_off", lambda *_: None)
        with pytest.raises(Killed):
            part_of_search(workspace, options, scripted(script([0.5, 0.6]))).run()
    assert not workspace.best_digest.exists()
    part_of_search(workspace, options, scripted()).run()
    check_agreement(workspace, 1)


def test_a_checkpoint_that_is_gone_is_told(workspace, make_options, scripted, script):
    part_of_search(workspace, make_options(num_trials=1), scripted(script([0.5]))).run()
    workspace.best_checkpoint.unlink()
    going_on = part_of_search(workspace, make_options(num_trials=1), scripted())
    going_on.run()
    assert "The checkpoint of the best trial, 0, is missing from" in going_on.observer.notes[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": ("bce",)}, "was started with --loss bce,dice, not --loss bce: give the same options"),
        ({"num_epochs": 9}, "was started with --num-epochs 3, not --num-epochs 9"),
        ({"lr_scheduler_gamma": 0.9}, "was started with no --lr-scheduler-gamma, not --lr-scheduler-gamma 0.9"),
        ({"image_size": (8, 16)}, "was started with --image-size 256 256, not --image-size 8 16"),
        ({"seed": None}, "was started with --seed 5, which is missing now"),
    ],
)
def test_other_options_are_another_study(workspace, make_options, scripted, script, changes, message):
    part_of_search(workspace, make_options(num_trials=1), scripted(script([0.5]))).run()
    before = workspace.list_acc.read_bytes()
    with pytest.raises(StudyError, match=message):
        open_study(workspace, make_options(**changes), StudyChoice(), print)
    assert workspace.list_acc.read_bytes() == before
    # The order of names and the number of trials are no other study.
    open_study(workspace, make_options(num_trials=9, optimizers=("sgd", "adam")), StudyChoice(), print)


def test_another_network_and_other_images_are_another_study(workspace, make_options, scripted, script):
    options = make_options(num_trials=1)
    part_of_search(workspace, options, scripted(script([0.5]))).run()
    mask = next((workspace.root / "data" / "test" / "targets").iterdir())
    pixels = mask.read_bytes()
    mask.write_bytes(pixels + b"x")
    with pytest.raises(StudyError, match="was started with other images: give the same options"):
        open_study(workspace, options, StudyChoice(), print)
    mask.write_bytes(pixels)
    options.layers[0].write_text(options.layers[0].read_text() + " ")
    with pytest.raises(StudyError, match="was started with another network"):
        open_study(workspace, options, StudyChoice(), print)


def test_databases_that_are_none_of_ours_are_one_line(workspace, make_options):
    workspace.study_database.write_bytes(b"no database at all, but a file of some length" * 40)
    with pytest.raises(StudyError, match=r"study\.db cannot be used \(file is not a database\)"):
        open_study(workspace, make_options(), StudyChoice(), print)
    workspace.study_database.unlink()
    study = optuna.create_study(storage=storage_url(workspace), study_name=STUDY_NAME, direction="maximize")
    study.add_trial(optuna.create_trial(value=0.5))
    with pytest.raises(StudyError, match="was made by an older version or another program: --fresh starts over"):
        open_study(workspace, make_options(), StudyChoice(), print)


def test_what_was_in_line_is_not_lost_while_its_turn_comes(workspace, make_options, scripted, script, monkeypatch):
    enqueued = StudyChoice(enqueued=('{"optimizer": "SGD", "learning_rate": 0.002, "loss": "dice"}',))
    study = open_study(workspace, make_options(), enqueued, print)
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "suggest_float", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            study.ask()
    suggestion = open_study(workspace, make_options(), enqueued, print).ask()
    point = suggestion.hyperparameters
    assert (point.optimizer, point.loss, point.learning_rate) == ("sgd", "dice", 0.002)


def test_a_study_in_which_nothing_has_worked_is_not_gone_on_with(workspace, make_options, scripted, script):
    options = make_options(num_trials=1)
    assert not can_go_on(workspace, options)
    workspace.study_database.touch()
    assert not can_go_on(workspace, options)
    with pytest.raises(AllTrialsFailedError):
        part_of_search(workspace, options, scripted(script(code=1))).run()
    assert can_go_on(workspace, options)
    assert not can_go_on(workspace, make_options(num_epochs=7))
    part_of_search(workspace, make_options(num_trials=2), scripted(script([0.5]))).run()
    assert can_go_on(workspace, make_options(num_epochs=7))


def test_a_best_model_that_was_changed_is_told_and_its_files_come_back(workspace, make_options, scripted, script):
    part_of_search(workspace, make_options(num_trials=1), scripted(script([0.5]))).run()
    workspace.best_config.unlink()
    part_of_search(workspace, make_options(num_trials=1), scripted()).run()
    check_agreement(workspace, 1)
    workspace.best_checkpoint.write_text("something else")
    going_on = part_of_search(workspace, make_options(num_trials=1), scripted())
    going_on.run()
    assert "or was changed: retrain it with RMLDNN_SEED=5 rmldnn --config=trials/" in going_on.observer.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[" * 60000, "is not valid JSON"),
        ("3", "is not an object such as"),
        ('{"momentum": 1}', "unknown hyperparameter 'momentum', known are optimizer, loss, learning_rate"),
        ('{"optimizer": "lamb"}', "optimizer 'lamb' is not in the search space: adam, sgd"),
        ('{"learning_rate": 0.5}', "learning_rate 0.5 is not in the search space: 0.001 to 0.01"),
        ('{"learning_rate": true}', "learning_rate True is not in the search space"),
    ],
)
def test_points_that_cannot_be_put_in_line(workspace, make_options, text, message):
    good = '{"optimizer": "adam"}'
    with pytest.raises(OptionError, match=message):
        open_study(workspace, make_options(), StudyChoice(enqueued=(good, text)), print)
    assert not can_go_on(workspace, make_options()), "the good one was put in line all the same"


def test_a_warm_start_needs_the_study_of_another_search(workspace, make_options, tmp_path):
    for path in (tmp_path / "none.db", tmp_path, workspace.study_database):
        with pytest.raises(StudyError, match=r"is not the study\.db of another search"):
            open_study(workspace, make_options(), StudyChoice(warm_start=path), print)
    assert not (tmp_path / "none.db").exists()
