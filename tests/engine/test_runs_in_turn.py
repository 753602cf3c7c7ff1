"""What one run leaves behind in a worker that does the next one too."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rmldnn_contract.training_log import without_stamp
from rmldnn_torch import runs_in_turn
from rmldnn_torch.worker import read_status, send_request, send_stop

from .conftest import convolution, layers_of
from .test_trainer import Written, numbers_only

CHECKOUT = Path(__file__).resolve().parents[2]


def start(program: str, descriptor: int) -> subprocess.Popen[bytes]:
    """A process that has a descriptor of this one's, whose number is its argument."""
    imports = "import os, signal, socket, sys\nfrom rmldnn_torch import worker\ngiven = int(sys.argv[1])\n"
    command = [sys.executable, "-c", imports + program, str(descriptor)]
    return subprocess.Popen(command, cwd=CHECKOUT, pass_fds=[descriptor])


def test_variables_of_a_run_and_what_it_has_changed_are_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHANGED", "before")
    monkeypatch.setenv("REMOVED", "before")
    monkeypatch.delenv("GIVEN", raising=False)
    before = dict(os.environ)
    with runs_in_turn._environment({"GIVEN": "to the run"}):
        assert os.environ["GIVEN"] == "to the run"
        os.environ["CHANGED"] = "by the run"
        del os.environ["REMOVED"]
        os.environ["ADDED"] = "by the run"
    assert dict(os.environ) == before


def test_a_context_of_cuda_that_is_broken_serves_no_other_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch raises then, on a stand-in for a GPU."""

    def fail() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    assert runs_in_turn._forget()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert runs_in_turn._forget()
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    assert not runs_in_turn._forget()


@pytest.mark.parametrize("is_sound", [True, False])
def test_a_worker_that_can_serve_no_other_run_ends_with_the_status_of_its_last(tmp_path: Path, is_sound: bool) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = f"""
from rmldnn_torch import runs_in_turn
runs_in_turn._forget = lambda: {is_sound}
worker.work(socket.socket(fileno=given), in_process=True)
"""
    with ours, theirs, (tmp_path / "output").open("wb") as output:
        process = start(program, theirs.fileno())
        theirs.close()
        send_request(ours, [f"--config={tmp_path / 'missing.json'}"], {}, output.fileno())
        answer = ours.recv(4096)
        assert (read_status(answer) if answer else process.wait(20)) == 78
        assert bool(answer) == is_sound
    assert process.wait(20) == (0 if is_sound else 78)
    assert "there is no configuration file" in (tmp_path / "output").read_text()


@pytest.mark.parametrize(
    ("ending", "status", "serves_again"),
    [
        ("return 0", 0, True),
        ("return 75", 75, True),
        ("return ExitStatus.UNEXPECTED", 70, False),
        ("return ExitStatus.OUT_OF_MEMORY", 71, False),
        ("kept_network._steps = {1: {2: 3}}; return ExitStatus.OUT_OF_MEMORY", 71, False),
        ("CheckpointWriter.have_left_one = True; return 143", 143, False),
        ("CudaGraphs.have_failed = True; return 0", 0, False),
        ("CudaGraphs.have_failed = True; return ExitStatus.OUT_OF_MEMORY", 71, False),
    ],
)
def test_a_worker_whose_state_is_in_doubt_takes_no_other_run(
    tmp_path: Path, ending: str, status: int, serves_again: bool
) -> None:
    """Also while its end takes time, as with a GPU: a run that it took then would be lost."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = f"""
from rmldnn_contract.exit_status import ExitStatus
from rmldnn_torch import runs_in_turn
from rmldnn_torch.checkpoint_writer import CheckpointWriter
from rmldnn_torch.cuda_graphs import CudaGraphs
from rmldnn_torch.kept_network import kept_network
import time
def main(arguments):
    {ending}
def leave(status, leave=os._exit):
    time.sleep(1)
    leave(status)
runs_in_turn.main = main
os._exit = leave
worker.work(socket.socket(fileno=given), in_process=True)
"""
    with ours, theirs, (tmp_path / "output").open("wb") as output:
        process = start(program, theirs.fileno())
        theirs.close()
        send_request(ours, [], {}, output.fileno())
        answer = ours.recv(4096)
        assert (read_status(answer) if answer else process.wait(20)) == status
        if serves_again:
            send_request(ours, [], {}, output.fileno())
            assert ours.recv(4096)
        else:
            with pytest.raises(BrokenPipeError):
                send_request(ours, [], {}, output.fileno())
    assert process.wait(20) == (0 if answer else status)


def test_where_a_worker_has_kept_steps_too_little_memory_is_no_fault_of_the_trial(tmp_path: Path) -> None:
    """Without an answer, which the driver takes for a reason to try the trial again, in a worker that is new."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = """
from rmldnn_torch import runs_in_turn
from rmldnn_torch.kept_network import kept_network
statuses = [0, 71]
def main(arguments):
    kept_network._steps = {"a loss": {"a shape": "a step"}}
    return statuses.pop(0)
runs_in_turn.main = main
worker.work(socket.socket(fileno=given), in_process=True)
"""
    with ours, theirs, (tmp_path / "output").open("wb") as output:
        process = start(program, theirs.fileno())
        theirs.close()
        send_request(ours, [], {}, output.fileno())
        assert read_status(ours.recv(4096)) == 0
        send_request(ours, [], {}, output.fileno())
        assert ours.recv(4096) == b""
    assert process.wait(20) == 0


def test_a_worker_keeps_the_recorded_steps_for_its_next_run(written: Written) -> None:
    """On a stand-in for a GPU's recorder, which makes a recording of 24 images, three to a batch, in each process."""
    document = written({"layers": layers_of(convolution("conv1", 4, "relu")), "data.batch_size": 3})
    program = f"""
from rmldnn_torch import run
from tests.engine.test_cuda_graphs import Repeater
run.recorder_of = lambda device: Repeater()
os.chdir({str(document.parent)!r})
worker.work(socket.socket(fileno=given), in_process=True)
"""
    outputs = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = start(program, theirs.fileno())
        theirs.close()
        for number in range(3):
            with (document.parent / f"output_{number}").open("w+b") as output:
                send_request(ours, [f"--config={document}", "--cuda-graphs"], {}, output.fileno())
                assert read_status(ours.recv(4096)) == 0
                output.seek(0)
                outputs.append([without_stamp(line) for line in output.read().decode().splitlines()])
        ours.close()
        assert process.wait(20) == 0
    words = [[line for line in lines if line.endswith(" as a CUDA graph")] for lines in outputs]
    assert words == [[f"{verb} the step of batches of 3 as a CUDA graph"] for verb in ("Recorded", "Found", "Found")]
    others = [numbers_only([line for line in lines if line not in words[0] + words[1]]) for lines in outputs]
    assert others[0] == others[1] == others[2]


def test_the_last_answer_arrives_also_after_a_stop_that_came_too_late() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send_stop(ours)
        runs_in_turn._refuse_requests(theirs)
        theirs.send(b"answer")
        with pytest.raises(BrokenPipeError):
            send_stop(ours)
        theirs.close()
        assert ours.recv(4096) == b"answer"
        assert ours.recv(4096) == b""


def test_a_signal_that_comes_when_a_run_has_ended_is_told_as_one(tmp_path: Path) -> None:
    """In a child of the worker: outside of the command line, which catches those that come meanwhile."""
    program = """
from rmldnn_torch import command_line
command_line.main = lambda arguments: os.kill(os.getpid(), signal.SIGTERM)
_, channel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
worker._run(worker.Request([], {}, given), channel)
"""
    with (tmp_path / "output").open("wb") as output:
        process = start(program, output.fileno())
    assert process.wait(20) == 128 + signal.SIGTERM
    assert (tmp_path / "output").read_text() == ""
