"""What stands where in the view of a search, at any width and height."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rml_search.hyperparameters import Hyperparameters
from rml_search.live_view import SearchView
from rml_search.progress import BestTrial, Failure, Progress, RunningTrial, Tally
from rmldnn_contract.training_log import EpochRecord

POINT = Hyperparameters("rmsprop", "dice", 0.00123, (("batch_size", 16), ("augmentation", "a long name of a choice")))


def running(number, num_done=3, num_epochs=50, **changes):
    epochs = tuple(EpochRecord(epoch, num_epochs, 0.5 + epoch / 100) for epoch in range(1, num_done + 1))
    return RunningTrial(number, POINT, epochs, num_epochs, 30.0, num_done / num_epochs, **changes)


def progress(*trials, num_trials=50, num_counted=12, failures=(), front=(), **changes):
    best = BestTrial(3, 0.912, 7, POINT, 25.0)
    tally = Tally(num_counted, 4, len(failures), best, tuple(failures), tuple(front), 100.0)
    settings = "50 trials of 50 epochs, adam|rmsprop|sgd, bce|dice, lr 0.0001-0.01, 256x256, batch 32"
    return Progress(settings, num_trials, tally, tuple(trials), **changes)


def draw(now, width=80, height=None, encoding="utf-8"):
    output = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=output, width=width, height=height).print(SearchView(now, height), end="")
    output.seek(0)
    return output.read().splitlines()


def test_a_search_on_80_columns():
    # 12 trials have ended, two more have taken 30 s for 3 of 50 epochs: 36 of 100 s and twice 470 s are left.
    lines = draw(progress(running(12), running(13), failures=[Failure(5, "no\nmemory \x1b[31m")]))
    assert lines[1].endswith(" 12/50, 4 pruned, 1 failed   37:50 left")
    assert lines[2].endswith(" 6/100    7:50 left")  # 30 s for 3 epochs, 47 are left
    assert lines[5] == "  epoch 3/50, accuracy 0.530, best 0.530 in epoch 3  ▁▅█" + "7:50 left".rjust(24)
    assert lines[9].startswith("Best     0.912, trial 3, epoch 7: rmsprop, dice, learning rate 0.00123, ")
    assert lines[11:] == ["Failed", "  trial 5: no memory [31m"]
    assert max(map(len, lines)) == 80


def test_a_trial_in_its_first_epoch():
    begun = RunningTrial(12, POINT, (), 50, 4.0, 0.0)
    in_first = RunningTrial(13, POINT, (), 50, 10.0, 0.01)
    lines = draw(progress(begun, in_first))
    assert lines[5].split() == ["epoch", "0/50,", "starting", "-:--", "left"]
    assert lines[7].split() == ["epoch", "0/50,", "50%", "of", "the", "first", "16:30", "left"]  # 1000 s in all
    assert draw(progress(begun, in_first), 80, 6)[4].startswith("Trial 13 0/50 50% of the first")
    evaluating = RunningTrial(13, POINT, (), 50, 20.0, 0.02)
    assert "0/50, 100% of the first" in draw(progress(evaluating))[5]


def test_where_there_is_room_no_sentence_is_cut():
    note = (
        "what to do stands at the end of this sentence, which is longer than a terminal is wide: the same command again"
    )
    lines = draw(progress(failures=[Failure(5, note)], notes=(note,)))
    shown = lines[lines.index("Failed") :]
    assert [line.strip() for line in shown if line.strip()][:3] == [
        "Failed",
        "trial 5: what to do stands at the end of this sentence, which is longer than a",
        "terminal is wide: the same command again",
    ]
    assert " ".join(" ".join(lines).split()).count("the same command again") == 2
    assert max(map(len, lines)) <= 80
    # A view that shares the screen with itself keeps to one row for each.
    assert sum("the same command" in line for line in draw(progress(notes=(note,)), height=24)) == 0


def test_settings_that_do_not_fit_go_as_a_whole():
    """``batch 3…`` would be read as a batch of 3."""
    whole = "50 trials of 50 epochs, adam|rmsprop|sgd, bce|dice, lr 0.0001-0.01, 256x256, batch 32"
    assert len(whole) == 85
    assert draw(progress(), 85)[0] == whole
    assert draw(progress(), 84)[0] == whole.removesuffix("batch 32") + "…"
    assert draw(progress(), 80)[0] == whole.removesuffix("batch 32") + "…"
    assert draw(progress(), 77)[0] == whole.removesuffix("256x256, batch 32") + "…"
    assert draw(progress(), 80, encoding="ascii")[0] == whole.removesuffix("batch 32") + "..."


def test_the_bars_are_as_long_as_what_is_done():
    bar = draw(progress(num_trials=24), 80)[1].split()[1]
    assert bar.count("━") == round(len(bar) / 2)
    assert draw(progress(num_trials=12), 80)[1].split()[1].count("─") == 0
    assert draw(progress(num_trials=None), 80)[1].split()[2] == "12/?,"


@pytest.mark.parametrize("width", [10, 20, 40, 49, 50, 79, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 4, 8, 12, 24, 60])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_nothing_is_wider_or_higher_than_the_terminal(width, height, encoding):
    trials = [running(number, place=f"process {number} on a host of some name") for number in range(12, 20)]
    failures = [Failure(number, "a reason that does not end for a long while " * 4) for number in range(5)]
    front = [BestTrial(number, 0.9 - number / 100, 3, POINT, 99.0 - number) for number in range(9)]
    now = progress(*trials, failures=failures, front=front, has_front=True, notes=("a note\nof two lines",))
    lines = draw(now, width, height, encoding)
    assert 0 < len(lines) <= height
    assert max(map(len, lines)) <= width
    if height >= 4:
        assert lines[1].startswith("Trials"[:width])
    if height >= 8 and width >= 20:
        assert sum(line.startswith("Trial 1") or "more trials" in line for line in lines) >= 1
        assert any(line.startswith("Best") for line in lines)


def test_where_two_rows_for_each_trial_do_not_fit_one_does():
    lines = draw(progress(*map(running, range(12, 22))), 80, 16)
    assert "Trial 12 3/50 0.530 ▁▅█ rmsprop, dice, learning rate 0.00123, batch_size 16, au…" in lines
    assert sum(line.startswith("Trial 1") or line.startswith("Trial 2") for line in lines) == 10
    few = draw(progress(*map(running, range(12, 22))), 80, 8)
    assert "  and 7 more trials" in few


def test_trials_of_other_drivers_and_of_killed_ones_are_told_apart():
    lines = draw(progress(running(12, place="process 7 on b"), running(13, is_left=True), is_running=None))
    assert any(line.startswith("Trial 12 (process 7 on b): rmsprop") for line in lines)
    assert sum(line.endswith("was killed") for line in lines) == 1
    assert lines[2].endswith(" 3/50    7:50 left")


def test_a_search_that_has_ended_is_done_and_counts_no_epochs():
    ended = progress(num_trials=12, is_running=False)
    lines = draw(ended)
    assert lines[1].split()[2:] == ["12/12,", "4", "pruned", "done"]
    assert not any(line.startswith("Epochs") for line in lines)
    assert draw(ended, 20)[1] == "Trials 12/12 done"
    killed = draw(progress(running(12, is_left=True), is_running=False))
    assert killed[1].endswith(" -:-- left")
    assert not any(line.startswith("Epochs") for line in killed)
    assert draw(progress())[2].startswith("Epochs")


def test_with_two_objectives_the_front_is_there():
    front = [BestTrial(3, 0.912, 7, POINT, 25.4), BestTrial(1, 0.8, 7, POINT, 12.0)]
    assert "Front    0.912 in 25 s (trial 3), 0.800 in 12 s (trial 1)" in draw(progress(front=front, has_front=True))
    assert not any(line.startswith("Front") for line in draw(progress(front=front)))
