"""A process that has imported everything, and runs the engine's command line again and again, each time in a child.

    python -m rmldnn_torch.worker DESCRIPTOR [--in-process]

The descriptor is one end of a pair of sockets (SOCK_SEQPACKET: a message is a packet, JSON). A message
``{"arguments": [...], "environment": {...}}`` comes with the descriptor of a pipe, and starts a run of ``rmldnn`` with
these arguments whose output goes to that pipe. The answer, when the run has ended, is ``{"status": N}``: its exit
status, negative for the signal that killed it. ``{"stop": true}`` sends a run at work SIGTERM. When the other end is
closed, a run at work is stopped and the worker ends.

Each run is a fork of this process, so it starts from the same state as a cold one and prints the same numbers, but
finds torch and what else takes seconds in memory, and the images decoded. That is sound as long as this process
has computed nothing: no pool of OpenMP and no context of CUDA may exist before a fork. (NumPy's and OpenCV's BLAS start
threads when they are imported, and see to forks themselves.) With ``--in-process``, for GPUs, runs follow one another
in this process instead (:mod:`rmldnn_torch.runs_in_turn`), since making a context of CUDA takes long as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

_MESSAGE_BYTES = 65536
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>

#: A run that was stopped ends within its own grace; then it is killed.
_SECONDS_TO_END = 3.0

# What a run imports on its way: torch's optimizers ask the compiler, which they do not use, at their first step.
_NEEDED_BY_ALL = ("rmldnn_torch.command_line", "rmldnn_torch.run", "torch._dynamo")
# What only some runs need, and what takes them long: imported here too once a run has needed it.
_NEEDED_BY_SOME = ("pytorch_optimizer",)


@dataclass(frozen=True)
class Request:
    """One run: the command line's arguments, variables of its environment, and where its output goes."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    output: int


@dataclass(frozen=True)
class _Run:
    """A child at work. Its end of ``channel`` closes when it ends, however that is."""

    pid: int
    channel: socket.socket


def serve(driver: socket.socket) -> None:
    """Carries out requests until the other end is closed."""
    needed: set[str] = set()
    while (request := receive_request(driver)) is not None:
        run = _start(request, driver)
        os.close(request.output)
        status = _attend(run, driver, needed)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            driver.send(json.dumps({"status": status}).encode())
        for module in needed - sys.modules.keys():
            importlib.import_module(module)


def receive_request(driver: socket.socket) -> Request | None:
    """The next request; None when the other end is closed."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(driver, _MESSAGE_BYTES, 1)
        if not message:
            return None
        request = json.loads(message)
        if "arguments" in request:  # else a stop that came after the end of its run
            return Request(request["arguments"], request["environment"], descriptors[0])


def send_request(worker: socket.socket, arguments: Sequence[str], environment: Mapping[str, str], output: int) -> None:
    """Asks the worker at the other end for a run. Raises OSError where it has died."""
    message = json.dumps({"arguments": list(arguments), "environment": dict(environment)})
    socket.send_fds(worker, [message.encode()], [output])


def send_stop(worker: socket.socket) -> None:
    """Asks the worker to end the run at work. Raises OSError where it has died."""
    worker.send(json.dumps({"stop": True}).encode())


def read_status(answer: bytes) -> int:
    """What the worker says of the end of a run: its exit status, negative for the signal that killed it."""
    return int(json.loads(answer)["status"])


def _start(request: Request, driver: socket.socket) -> _Run:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker = os.getpid()
    pid = os.fork()
    if pid == 0:
        ours.close()
        driver.close()
        _end_with(worker)
        _run(request, theirs)
    theirs.close()
    return _Run(pid, ours)


def _end_with(worker: int) -> None:
    """From now on this process is killed when the worker ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker:
        os._exit(128 + signal.SIGKILL)


def _run(request: Request, channel: socket.socket) -> NoReturn:
    """What ``rmldnn`` does, in a child of the worker."""
    from rmldnn_torch.command_line import main
    from rmldnn_torch.shared_samples import store
    from rmldnn_torch.termination import Terminated, end_on_signals, leave

    try:
        end_on_signals()
        direct_output(request.output)
        os.close(request.output)
        os.environ.update(request.environment)
        store.worker = channel
        status = main(request.arguments)
        with contextlib.suppress(OSError):
            channel.send(json.dumps({"modules": [name for name in _NEEDED_BY_SOME if name in sys.modules]}).encode())
    except Terminated as error:  # it came when the run had ended, or before it had begun
        status = error.exit_status
    leave(status)


def _attend(run: _Run, driver: socket.socket, needed: set[str]) -> int:
    """Waits for the end of a run and gives its status; ends the process when the other end is closed."""
    with run.channel, selectors.DefaultSelector() as selector:
        selector.register(driver, selectors.EVENT_READ)
        selector.register(run.channel, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if run.channel in ready and not _take(run.channel, needed):
                return os.waitstatus_to_exitcode(os.waitpid(run.pid, 0)[1])
            if driver in ready:
                message = _receive(driver)
                os.kill(run.pid, signal.SIGTERM)  # a child that has ended is still ours, so the number is its own
                if not message:
                    _leave_with(run)


def _take(channel: socket.socket, needed: set[str]) -> bool:
    """Takes in what a run hands over; False when it has ended."""
    from rmldnn_torch.shared_samples import store

    try:
        message, descriptors, _, _ = socket.recv_fds(channel, _MESSAGE_BYTES, 1)
    except ConnectionResetError:
        return False
    if not message:
        return False
    content: dict[str, Any] = json.loads(message)
    if "key" in content:
        store.keep(content["key"], content["shape"], descriptors[0])
    else:
        needed.update(content["modules"])
    return True


def _receive(driver: socket.socket) -> bytes:
    try:
        return driver.recv(_MESSAGE_BYTES)
    except ConnectionResetError:
        return b""


def _leave_with(run: _Run) -> NoReturn:
    """Nobody waits for the run any more, which has been asked to end."""
    deadline = time.monotonic() + _SECONDS_TO_END
    while time.monotonic() < deadline and os.waitpid(run.pid, os.WNOHANG) == (0, 0):
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.pid, signal.SIGKILL)
    os._exit(0)


def work(driver: socket.socket, *, in_process: bool) -> NoReturn:
    """Serves until the other end of the socket is closed, and ends this process."""
    from rmldnn_torch.allocator import keep_freed_memory
    from rmldnn_torch.openmp import wait_briefly

    keep_freed_memory()
    wait_briefly()
    for module in _NEEDED_BY_ALL:
        importlib.import_module(module)
    # Until now output went to the first run's pipe, for errors of these imports; its reader must see that run's end.
    direct_output(os.open(os.devnull, os.O_RDWR))
    if in_process:
        from rmldnn_torch.runs_in_turn import serve_in_process

        serve_in_process(driver)
    else:
        serve(driver)
    os._exit(0)


def direct_output(descriptor: int) -> None:
    """What this process prints from now on goes there."""
    for standard in (1, 2):
        os.dup2(descriptor, standard)


if __name__ == "__main__":
    work(socket.socket(fileno=int(sys.argv[1])), in_process=sys.argv[2:] == ["--in-process"])
