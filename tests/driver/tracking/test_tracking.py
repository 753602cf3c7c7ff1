"""Tracking never holds up a search, tells a problem once, and takes its steps in turn."""

from __future__ import annotations

import threading
import time

import pytest

from rml_search import tracking
from rml_search.errors import OptionError
from rml_search.hyperparameters import Hyperparameters
from rml_search.run_record import describe_run
from rml_search.tracking import TrackedObserver, Tracker, first_line
from rml_search.tracking_choice import TrackingChoice

POINT = Hyperparameters("adam", "bce", 0.1)


class Place:
    """A log that fails, or waits, for as long as it is told to."""

    def __init__(self):
        self.begun = []
        self.is_away = False
        self.closed = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def begin(self, number, hyperparameters, when):
        assert self.may_go_on.wait(30)
        if self.is_away:
            raise ConnectionError("\nnobody is there\nat all")
        self.begun.append(number)

    def close(self):
        self.closed = True


@pytest.fixture
def place():
    return Place()


@pytest.fixture
def observer(place, request):
    class Silent:
        def __init__(self):
            self.notes = []

        def trial_started(self, number, place, hyperparameters):
            pass

        def note(self, text):
            self.notes.append(text)

    silent = Silent()
    tracked = TrackedObserver(silent, [Tracker("a place", lambda: place)])
    tracked.notes = silent.notes
    return tracked


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_steps_are_taken_in_turn_and_all_before_the_end(place, observer):
    for number in range(100):
        observer.trial_started(number, 1, POINT)
    observer.close()
    assert place.begun == list(range(100))
    assert place.closed
    assert observer.notes == []


def test_a_place_that_comes_back_gets_all_and_the_problem_is_told_once(place, observer, monkeypatch):
    monkeypatch.setattr(tracking, "PAUSE_SECONDS", 0.01)
    place.is_away = True
    observer.trial_started(0, 1, POINT)
    wait_until(lambda: observer._trackers[0]._problem is not None)
    for number in range(1, 5):
        observer.trial_started(number, 1, POINT)
    place.is_away = False
    observer.close()
    assert place.begun == [0, 1, 2, 3, 4]
    assert observer.notes == ["a place is unavailable, the search continues without it: nobody is there"]


def test_a_place_that_stays_away_is_told_at_the_end_again(place, observer):
    place.is_away = True
    started = time.monotonic()
    observer.trial_started(0, 1, POINT)
    observer.close()
    assert time.monotonic() - started < tracking.PAUSE_SECONDS / 2
    assert observer.notes == [
        "a place is unavailable, the search continues without it: nobody is there",
        "Not everything was logged to a place: run the same command again to log the rest",
    ]


def test_a_place_that_does_not_answer_holds_nothing_up(place, observer, monkeypatch):
    monkeypatch.setattr(tracking, "PATIENCE_SECONDS", 0.2)
    place.may_go_on.clear()
    started = time.monotonic()
    for number in range(100):
        observer.trial_started(number, 1, POINT)
    observer.close()
    assert time.monotonic() - started < 5
    assert observer.notes == ["Not everything was logged to a place: run the same command again to log the rest"]
    place.may_go_on.set()


def test_what_cannot_be_is_refused_before_anything_starts(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OptionError, match="is not a folder"):
        TrackingChoice(tensorboard=file)
    for address in ("mlruns", "file:///mlruns", "", "htp://host", "http://"):
        with pytest.raises(OptionError, match=r"is not http://HOST:PORT or a database such as sqlite:///mlflow\.db"):
            TrackingChoice(mlflow=address)
    for address in ("https://host:5000/a", "sqlite:///a.db", "postgresql+psycopg://me@host/b", "databricks"):
        assert TrackingChoice(mlflow=address).mlflow == address
    monkeypatch.setattr("rml_search.tracking_choice.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"needs the package tensorboard: pip install 'rml-.*\[tensorboard\]'"):
        TrackingChoice(tensorboard=tmp_path)
    with pytest.raises(OptionError, match=r"needs the package mlflow: pip install 'rml-optimization\[mlflow\]'"):
        TrackingChoice(mlflow="http://127.0.0.1:5000")


def test_passwords_are_not_kept(monkeypatch):
    command = ["rml-optimization", "--mlflow", "https://me:secret@host:5000/a", "--storage", "postgresql://me@host/b"]
    assert describe_run(command, []).command == (
        "rml-optimization --mlflow 'https://me:***@host:5000/a' --storage postgresql://me@host/b"
    )


def test_of_an_error_the_systems_own_word_is_told():
    refused = ConnectionRefusedError(111, "Connection refused")
    about_it = ValueError("Max retries exceeded with url: http://me:secret@host/api")
    assert first_line(about_it) == "Max retries exceeded with url: http://me:***@host/api"
    about_it.__context__ = refused
    assert first_line(about_it) == "Connection refused"


def test_an_error_without_words_is_told_by_its_name():
    assert first_line(ConnectionResetError()) == "ConnectionResetError"
    assert len(first_line(ValueError("x" * 1000))) == 200
