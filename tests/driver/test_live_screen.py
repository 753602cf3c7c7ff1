"""The live view on a terminal: a program of its own on a pseudo-terminal, and what a person would see there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]

#: A search without engines: it does what the words on its command line say, one after the other.
SEARCH = """
import fcntl, sys, termios, time, warnings
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # as a shell does: this terminal's keys are for this program
from pathlib import Path
from rml_search.display import SearchEnd, SearchPart, open_display
from rml_search.display_name import DisplayName
from rml_search.hyperparameters import Hyperparameters
from rml_search.interruption import Interrupted, interruptible
from rml_search.options import SearchOptions
from rml_search.results import TrialResult, TrialState
from rmldnn_contract.training_log import EpochRecord

options = SearchOptions(4, 5, ("adam", "sgd"), ("bce",), (Path("layers.json"),), Path("data"))
display = open_display(DisplayName(sys.argv[1]), lambda text: print(text, flush=True))
display.settings([("Trials", "4")])
points = [Hyperparameters("adam", "bce", 0.00123), Hyperparameters("sgd", "bce", 0.00456)]
epochs = [EpochRecord(number, 5, accuracy, 0.5) for number, accuracy in enumerate((0.5, 0.7, 0.6), start=1)]
records = []

def finish(observer, number, state, reason=None):
    result = TrialResult(number, points[number], state, tuple(epochs), 20.0, reason)
    records.append(result.to_record())
    observer.trial_finished(result, records[0])

def play(observer):
    observer.trial_started(0, 1, points[0])
    for epoch in epochs:
        observer.epoch_finished(0, epoch)
    finish(observer, 0, TrialState.COMPLETE)
    observer.trial_started(1, 2, points[1])
    finish(observer, 1, TrialState.FAILED, "the loss became nan in epoch 1")
    observer.trial_started(0, 3, points[0])
    for epoch in epochs[:2]:
        observer.epoch_finished(0, epoch)
    observer.trial_started(1, 4, points[1])
    observer.note("a note for the person")

try:
    with interruptible():
        try:
            with display.watching(SearchPart(options, [])) as observer:
                play(observer)
                if "warn" in sys.argv:
                    warnings.warn("a library complains")
                if "break" in sys.argv:
                    observer.progress = None  # no view can be drawn of that
                if "raise" in sys.argv:
                    time.sleep(1)
                    raise ValueError("something broke")
                time.sleep(0.5 if "short" in sys.argv else 30)
        finally:
            display.searched(SearchEnd(options, records))
except Interrupted as stopped:
    sys.exit(stopped.exit_code)
"""

ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """A terminal with its two screens, and a program in the foreground of it."""

    def __init__(self, columns: int, rows: int, *words: str, **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.first, self.second = pyte.Screen(columns, rows), pyte.Screen(columns, rows)
        self.received = b""
        self._shown = 0
        self._resize(slave, columns, rows)
        self.settings = termios.tcgetattr(self.master)
        variables = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.program = subprocess.Popen(
            [sys.executable, "-c", SEARCH, *words],
            cwd=CHECKOUT,
            env={**variables, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    @staticmethod
    def _resize(descriptor: int, columns: int, rows: int) -> None:
        fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, columns: int, rows: int) -> None:
        """What a person does with the edge of the window."""
        self._resize(self.master, columns, rows)
        self.first.resize(rows, columns)
        self.second.resize(rows, columns)

    @property
    def is_taken(self) -> bool:
        """Whether the second screen is the one that is seen."""
        return self.received.rfind(ENTER) > self.received.rfind(LEAVE)

    @property
    def cursor_is_hidden(self) -> bool:
        return self.received.rfind(b"\x1b[?25l") > self.received.rfind(b"\x1b[?25h")

    @property
    def text(self) -> str:
        """What is seen, without the blanks at the ends of lines."""
        screen = self.second if self.is_taken else self.first
        return "\n".join(line.rstrip() for line in screen.display).rstrip()

    def wait_for(self, pattern: str, seconds: float = 15.0) -> str:
        """The text as soon as the pattern is in it."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.text}"
            self.read(0.1)
        return self.text

    def read(self, seconds: float) -> bool:
        """Takes in what comes meanwhile; whether the program still has the terminal."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the program has ended
            return False
        self.received += data
        self._show()
        return bool(data)

    def _show(self) -> None:
        """Draws what is new; a sequence that has not come whole waits."""
        pieces = re.split(b"(\x1b\\[\\?1049[hl])", self.received)
        whole = pieces if len(pieces[-1]) == 0 or not re.search(b"\x1b[^a-zA-Z]*$", pieces[-1]) else pieces[:-1]
        text_so_far, screen = 0, self.first
        for piece in whole:
            start = max(0, self._shown - text_so_far)
            text_so_far += len(piece)
            if piece in (ENTER, LEAVE):
                screen = self.second if piece == ENTER else self.first
                if piece == ENTER and start == 0:
                    screen.reset()
            elif start < len(piece):
                pyte.ByteStream(screen).feed(piece[start:])
        self._shown = text_so_far

    def wait_for_a_drawing(self) -> None:
        """Until the view has been drawn once more, from the top to the end."""
        num_received, end = len(self.received), time.monotonic() + 15
        while self.received.find(b"\x1b[H", num_received) < 0 or select.select([self.master], [], [], 0.1)[0]:
            assert time.monotonic() < end, self.text
            self.read(0.1)

    def end(self, how: bytes | signal.Signals) -> None:
        """Types a key such as Ctrl-C, or sends a signal."""
        if isinstance(how, bytes):
            os.write(self.master, how)
        else:
            self.program.send_signal(how)

    def rest(self) -> int:
        """Reads on until the program has ended; its exit code."""
        end = time.monotonic() + 15
        while self.read(0.1):
            assert time.monotonic() < end, self.text
        return self.program.wait(timeout=10)


@pytest.fixture
def open_terminal() -> Iterator[type[Terminal]]:
    """Makes terminals, and closes them."""
    opened = []

    def open_one(*arguments, **environment):
        opened.append(Terminal(*arguments, **environment))
        return opened[-1]

    yield open_one
    for terminal in opened:
        terminal.program.kill()
        terminal.program.wait()
        os.close(terminal.master)


def test_the_view_shows_the_search_on_80_columns(open_terminal):
    terminal = open_terminal(80, 24, "auto")
    lines = terminal.wait_for("a note for the person").splitlines()
    assert lines[0].startswith("4 trials of 5 epochs, adam|sgd, bce, lr 0.001-0.01, 256x256, batch 32")
    # 2 trials have ended; of the two that run, one has done 2 of its 5 epochs.
    assert re.match(r"Trials [━─]+ 2/4, 1 failed +\d+:\d\d left$", lines[1])
    assert re.match(r"Epochs [━─]+ 2/10 +-:-- left$", lines[2])
    assert "Trial 0: adam, bce, learning rate 0.00123" in lines
    assert re.search(
        r"^  epoch 2/5, accuracy 0\.700, best 0\.700 in epoch 2  ▁█ +0:0\d left$", terminal.text, re.MULTILINE
    )
    assert "Best     0.700, trial 0, epoch 2: adam, bce, learning rate 0.00123" in lines
    assert "  trial 1: the loss became nan in epoch 1" in lines
    assert max(map(len, lines)) <= 80
    assert terminal.cursor_is_hidden


@pytest.mark.parametrize(("columns", "rows"), [(60, 15), (40, 8), (20, 4), (200, 50)])
def test_the_view_fits_and_a_resized_terminal_shows_it_whole(open_terminal, columns, rows):
    terminal = open_terminal(80, 24, "auto")
    before = terminal.wait_for("a note for the person")
    terminal.resize(columns, rows)
    terminal.wait_for_a_drawing()
    lines = terminal.text.splitlines()
    assert lines[0][:15] == before[:15]
    assert lines[1].startswith("Trials ")
    assert lines[2].startswith("Epochs ")
    assert sum(line.startswith("Best") for line in lines) == 1
    assert len(lines) <= rows
    if rows >= 8:
        assert len([line for line in lines if re.match(r"Trial [01]\b", line)]) == 2


@pytest.mark.parametrize(
    ("end", "code"),
    [("short", 0), ("raise", 1), (b"\x03", 130), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_every_end_leaves_the_plain_tables(open_terminal, end, code):
    words = [end] if isinstance(end, str) else []
    terminal = open_terminal(80, 60, "auto", "warn", *words)
    if not words:
        terminal.wait_for("a note for the person")
        assert terminal.is_taken
        terminal.end(end)
    assert terminal.rest() == code
    assert terminal.settings == termios.tcgetattr(terminal.master)
    assert ENTER in terminal.received
    assert not terminal.is_taken
    assert not terminal.cursor_is_hidden
    lines = terminal.text.splitlines()
    assert "| Trials    | 4       |" in lines
    assert "Trial 0 complete after 20 s: accuracy 0.700 in epoch 2, the best so far" in lines
    assert "Trial 1 failed after 20 s: the loss became nan in epoch 1" in lines
    assert "a note for the person" in lines
    assert any("UserWarning: a library complains" in line for line in lines)
    assert "| Accuracy (Dice)        | 0.700   |" in lines
    # No line of the view is left.
    assert not any("left" in line or line.startswith("Epochs") for line in lines)


def test_ctrl_z_gives_the_terminal_back_until_the_search_goes_on(open_terminal):
    terminal = open_terminal(80, 24, "auto")
    terminal.wait_for("a note for the person")
    terminal.program.send_signal(signal.SIGTSTP)
    deadline = time.monotonic() + 5
    while terminal.is_taken and time.monotonic() < deadline:
        terminal.read(0.1)
    assert not terminal.is_taken
    assert not terminal.cursor_is_hidden
    terminal.program.send_signal(signal.SIGCONT)
    assert "Best     0.700" in terminal.wait_for("a note for the person")
    assert terminal.cursor_is_hidden


def test_the_view_is_drawn_at_most_four_times_a_second(open_terminal):
    terminal = open_terminal(80, 24, "auto", "short")
    terminal.rest()
    # It is there for half a second, and each drawing begins at the top.
    assert 1 <= terminal.received.count(b"\x1b[H") <= 3


def test_a_view_that_cannot_be_drawn_gives_the_terminal_back_and_the_search_goes_on(open_terminal):
    terminal = open_terminal(80, 60, "auto", "break", "short")
    assert terminal.rest() == 0
    assert not terminal.is_taken
    assert not terminal.cursor_is_hidden
    lines = terminal.text.splitlines()
    assert "Trial 0 complete after 20 s: accuracy 0.700 in epoch 2, the best so far" in lines
    assert any(line.startswith("The live view failed (TypeError: ") for line in lines)
    assert "| Accuracy (Dice)        | 0.700   |" in lines


def test_no_color_means_none(open_terminal):
    terminal = open_terminal(80, 24, "auto", NO_COLOR="1")
    terminal.wait_for("a note for the person")
    assert not re.search(rb"\x1b\[[0-9;]*3[0-9][0-9;]*m", terminal.received)


@pytest.mark.parametrize(
    ("display", "kind"), [("auto", "dumb"), ("auto", ""), ("plain", "xterm"), ("quiet", "xterm"), ("json", "xterm")]
)
def test_other_displays_and_terminals_get_no_control_codes(open_terminal, display, kind):
    terminal = open_terminal(80, 60, display, "short", TERM=kind)
    assert terminal.rest() == 0
    assert b"\x1b" not in terminal.received
    is_plain = display in ("auto", "plain")
    assert (b"  trial 0, epoch 2/5: accuracy 0.700" in terminal.received) == is_plain


def test_without_unicode_the_view_is_ascii(open_terminal):
    terminal = open_terminal(80, 24, "auto", PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C")
    terminal.wait_for("a note for the person")
    assert terminal.received.isascii()
    assert "_@" in terminal.text
