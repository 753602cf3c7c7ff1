"""What trials that have ended leave behind of their checkpoints."""

from __future__ import annotations

from rml_search.best_model import drop_finished_checkpoints

NAMES = ("model_checkpoint_3.pt", ".model_checkpoint_4.pt.711.tmp")  # the second as a killed engine leaves it


def test_trials_that_have_ended_keep_neither_whole_nor_unfinished_ones(workspace):
    for number in (0, 1):
        workspace.trial(number).checkpoints.mkdir(parents=True)
        for name in NAMES:
            (workspace.trial(number).checkpoints / name).touch()
    drop_finished_checkpoints(workspace, ended=[0])
    assert list(workspace.trial(0).checkpoints.iterdir()) == []
    assert {path.name for path in workspace.trial(1).checkpoints.iterdir()} == set(NAMES)
