"""What becomes of lines and of libraries' complaints while the view has the terminal."""

from __future__ import annotations

import sys

import pytest

from rml_search.display import SearchEnd, SearchPart
from rml_search.live_display import HeldLines, LiveDisplay, Notes


def test_lines_wait_until_the_terminal_is_free_and_come_at_once_from_then_on():
    shown = []
    held = HeldLines(shown.append)
    held("a")
    held("b")
    assert shown == []
    held.release()
    assert shown == ["a", "b"]
    held("c")
    held.release()
    assert shown == ["a", "b", "c"]


def test_a_line_that_is_shown_may_bring_another_one():
    shown = []

    def show(line):
        shown.append(line)
        if line == "a":
            held("because of a")

    held = HeldLines(show)
    held("a")
    held.release()
    assert shown == ["a", "because of a"]


def test_pieces_of_lines_become_whole_notes():
    notes = []
    file = Notes(notes.append)
    for piece in ("a wa", "rning", "\n", "  \nanother\nand a", " third\n", "a rest"):
        assert file.write(piece) == len(piece)
    assert notes == ["a warning", "another", "and a third"]


def watch(display, options):
    """What a search does whose trials end in an error."""
    with display.watching(SearchPart(options, [])) as observer:
        display.say("meanwhile")
        print("a library complains", file=sys.stderr)
        assert observer.progress().notes == ("meanwhile", "a library complains")
        raise ValueError("it broke")


def test_what_is_said_while_trials_run_is_a_note(make_options):
    """Where there is no terminal nothing is drawn; the rest is the same."""
    shown = []
    display = LiveDisplay(shown.append)
    display.say("before")
    stderr = sys.stderr
    with pytest.raises(ValueError, match="it broke"):
        watch(display, make_options())
    assert sys.stderr is stderr
    assert shown == ["before", "meanwhile", "a library complains"]
    display.say("after")
    assert shown[-1] == "after"
    display.searched(SearchEnd(make_options(), [], error="it broke"))
    assert shown[-1] == "Number of finished trials: 0\nNo trial has an accuracy."
