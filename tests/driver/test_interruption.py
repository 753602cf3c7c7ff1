"""Signals raise one exception, at a place where nothing is torn apart."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import weakref

import pytest

from rml_search.interruption import Interrupted, interruptible, interruptions_allowed, uninterrupted


class Thing:
    """Something that can be referred to weakly."""


class InterruptedAtItsEnd:
    """Python swallows what its finalizer raises."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)


def lose_in_a_finalizer():
    thing = InterruptedAtItsEnd()
    del thing


def lose_in_a_weak_references_callback():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing
    assert reference() is None


def lose_in_a_hook_of_the_garbage_collector():
    def hook(phase, info):
        if phase == "start":
            os.kill(os.getpid(), signal.SIGTERM)

    gc.callbacks.append(hook)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(hook)


def lose_in_a_library_that_catches_all():
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGTERM)


WAYS_TO_LOSE_IT = [
    lose_in_a_finalizer,
    lose_in_a_weak_references_callback,
    lose_in_a_hook_of_the_garbage_collector,
    lose_in_a_library_that_catches_all,
]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_raises_and_says_how_the_program_ends(number, code):
    with pytest.raises(Interrupted, match=f"stopped by {number.name}") as caught, interruptible():
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_steps_that_belong_together_are_finished_first():
    done = []

    def two_steps():
        with interruptible():
            with uninterrupted(), uninterrupted():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("both")
            done.append("never")

    with pytest.raises(Interrupted):
        two_steps()
    assert done == ["both"]


def test_a_second_signal_does_not_break_off_the_cleaning_up():
    cleaned = []

    def work():
        with interruptible():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                cleaned.append(True)

    with pytest.raises(Interrupted):
        work()
    assert cleaned == [True]


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def swallowed(monkeypatch):
    """What Python could only write down: kept here, where pytest would make an error of it."""
    events = []
    monkeypatch.setattr(sys, "unraisablehook", lambda event: events.append(event.exc_value))
    return events


@pytest.mark.parametrize("lose", WAYS_TO_LOSE_IT)
def test_the_next_signal_works_where_the_first_was_lost(swallowed, lose):
    reached = []

    def work():
        with interruptible():
            lose()
            reached.append("after the first")
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("after the second")

    with pytest.raises(Interrupted) as caught:
        work()
    assert reached == ["after the first"]
    assert caught.value.exit_code == 143  # the first one's
    assert all(isinstance(error, Interrupted) for error in swallowed)


@pytest.mark.parametrize("lose", WAYS_TO_LOSE_IT)
def test_a_lost_signal_is_remembered_by_the_next_block(swallowed, lose):
    steps = []

    def work():
        with interruptible():
            lose()
            with uninterrupted():
                steps.append("whole")
            steps.append("never")

    with pytest.raises(Interrupted):
        work()
    assert steps == ["whole"]


def test_cleaning_up_that_handles_other_errors_is_not_broken_off():
    cleaned = []

    def work():
        with interruptible():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                try:
                    raise OSError("the container is gone")
                except OSError:
                    os.kill(os.getpid(), signal.SIGTERM)
                    cleaned.append("after an error")
                with uninterrupted():
                    os.kill(os.getpid(), signal.SIGTERM)
                cleaned.append("after a block")

    with pytest.raises(Interrupted, match="stopped by SIGINT"):
        work()
    assert cleaned == ["after an error", "after a block"]


def test_a_signal_goes_by_when_its_program_has_ended():
    with pytest.raises(Interrupted), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    with uninterrupted():
        pass
    with interruptible(), uninterrupted():
        pass


def test_a_part_of_a_block_may_be_broken_off():
    steps = []

    def work():
        with interruptible(), uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("begun")
            try:
                with interruptions_allowed():
                    steps.append("never")
            finally:
                steps.append("ended")

    with pytest.raises(Interrupted):
        work()
    assert steps == ["begun", "ended"]


def test_a_block_is_one_again_behind_such_a_part():
    steps = []

    def work():
        with interruptible(), uninterrupted():
            with interruptions_allowed():
                steps.append("begun")
            os.kill(os.getpid(), signal.SIGTERM)
            steps.append("ended")
        steps.append("never")

    with pytest.raises(Interrupted):
        work()
    assert steps == ["begun", "ended"]
