"""The worker behind standard input and output, as a process of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rmldnn_contract.worker_stream import Begin, Ended, Printed, Stop, format_message, parse_message

CHECKOUT = Path(__file__).resolve().parents[2]


class Relay:
    def __init__(self, *options):
        command = [sys.executable, "-m", "rmldnn_torch.worker_on_streams", *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT)

    def say(self, message):
        self.process.stdin.write(format_message(message))
        self.process.stdin.flush()

    def hear(self):
        return parse_message(self.process.stdout.readline())

    def finish(self):
        """What the run prints, and its status."""
        output = b""
        while isinstance(message := self.hear(), Printed):
            output += message.output
        return output.decode(), message

    def child(self, parent=None):
        """The only child of a process."""
        parent = parent or self.process.pid
        (child,) = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(child)

    def end(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


KINDS = pytest.mark.parametrize("options", [[], ["--in-process"]], ids=["children", "in process"])


@pytest.fixture(scope="module", params=[[], ["--in-process"]], ids=["children", "in process"])
def relay(request):
    """One that all these tests share: it takes seconds to start."""
    relay = Relay(*request.param)
    yield relay
    relay.end()


@pytest.fixture
def mortal():
    """Starts one for a test that will end it: its worker has had a run."""
    started = []

    def start(options=()):
        relay = Relay(*options)
        started.append(relay)
        relay.say(Begin(("--config=a.json",)))
        relay.finish()
        return relay

    yield start
    for relay in started:
        relay.end()


@pytest.fixture
def begin_endless(tmp_path):
    """Begins a run that never ends, since its configuration is a pipe that says nothing; returns when it reads that."""
    pipe, opened = tmp_path / "config.json", []
    os.mkfifo(pipe)

    def begin(relay):
        relay.say(Begin((f"--config={pipe}",)))
        opened.append(os.open(pipe, os.O_WRONLY))  # waits for a reader

    yield begin
    for descriptor in opened:
        os.close(descriptor)


def test_runs_follow_one_another_each_with_its_output_and_status(relay):
    for name in ("a.json", "b.json"):
        relay.say(Begin((f"--config={name}",)))
        output, ended = relay.finish()
        assert output.endswith(f"Error: there is no configuration file {name}\n")
        assert ended == Ended(78)


def test_variables_of_a_run_reach_it(relay):
    relay.say(Begin(("--config=a.json",), {"RMLDNN_SEED": "none"}))
    output, ended = relay.finish()
    assert "the seed 'none' is not a whole number" in output
    assert ended == Ended(64)


def test_a_run_can_be_stopped_and_a_late_stop_means_nothing(relay, begin_endless):
    relay.say(Stop())
    begin_endless(relay)
    relay.say(Stop())
    output, ended = relay.finish()
    assert output.endswith("Stopped by SIGTERM.\n")
    assert ended == Ended(143)


@KINDS
def test_the_end_of_the_input_ends_a_run_at_work(mortal, begin_endless, options):
    relay = mortal(options)
    begin_endless(relay)
    relay.process.stdin.close()
    assert relay.process.wait(10) == 0


@KINDS
def test_a_worker_that_dies_takes_the_relay_along(mortal, begin_endless, options):
    relay = mortal(options)
    begin_endless(relay)
    os.kill(relay.child(), signal.SIGKILL)
    assert relay.process.wait(10) == 128 + signal.SIGKILL


def test_a_run_that_dies_is_told_with_its_signal(mortal, begin_endless):
    relay = mortal()
    begin_endless(relay)
    os.kill(relay.child(relay.child()), signal.SIGKILL)
    assert relay.finish() == ("", Ended(-signal.SIGKILL))


def test_a_worker_that_does_not_end_is_killed(mortal):
    relay = mortal()
    worker = relay.child()
    os.kill(worker, signal.SIGSTOP)
    relay.process.stdin.close()
    assert relay.process.wait(15) == 0
    assert not Path(f"/proc/{worker}").exists()
