"""Signals raise one exception, at a place where nothing is torn apart."""

from __future__ import annotations

import os
import signal

import pytest

from rml_search.interruption import Interrupted, interruptible, uninterrupted


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
