"""Runs of the command line one after the other in one process, which keeps its context of CUDA and its kernels.

The messages are those of :mod:`rmldnn_torch.worker`. A run begins with the seed, so its numbers are those of a
process of its own; what an earlier one has left behind is collected before. Where that may not be all, the worker ends
with the run, and the driver makes another.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from rmldnn_contract.exit_status import ExitStatus
from rmldnn_torch.checkpoint_writer import CheckpointWriter
from rmldnn_torch.command_line import main
from rmldnn_torch.cuda_graphs import CudaGraphs
from rmldnn_torch.kept_network import kept_network
from rmldnn_torch.shared_samples import store
from rmldnn_torch.termination import Terminated, end_on_signals
from rmldnn_torch.worker import Request, direct_output, receive_request

#: After these ends nobody knows what the process still holds, or in which state.
_DOUBTFUL = frozenset({ExitStatus.UNEXPECTED, ExitStatus.OUT_OF_MEMORY})

_STOP_BYTES = 4096


def serve_in_process(driver: socket.socket) -> None:
    """Carries out requests until the other end is closed."""
    store.is_of_the_worker = kept_network.is_of_the_worker = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    while (request := receive_request(driver)) is not None:
        direct_output(request.output)
        os.close(request.output)
        had_steps = kept_network.num_steps > 0
        status = _run(request, driver)
        # The reader of the output must see its end before the answer comes.
        direct_output(nowhere)
        if CudaGraphs.have_failed:  # the run went on without them, and memory may be beyond recall
            _refuse_requests(driver)
        elif had_steps and status == ExitStatus.OUT_OF_MEMORY:
            os._exit(ExitStatus.OK)  # without an answer: the driver tries it again with a worker that keeps nothing yet
        elif status in _DOUBTFUL or CheckpointWriter.have_left_one or not _forget():
            os._exit(status or ExitStatus.UNEXPECTED)  # which is told as the status of the run
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            driver.send(json.dumps({"status": status}).encode())
        if CudaGraphs.have_failed:
            os._exit(0)


def _refuse_requests(driver: socket.socket) -> None:
    """From now on sending one is an error: the end of a process takes its time, and looks like life until then."""
    driver.shutdown(socket.SHUT_RD)
    while driver.recv(_STOP_BYTES):  # what is left unread would cost the driver the answer
        pass


def _run(request: Request, driver: socket.socket) -> int:
    undo = end_on_signals()
    store.begin_run()
    try:
        with _environment(request.environment), _listening(driver):
            return main(request.arguments)
    except Terminated as error:  # it came when the run had ended, or before it had begun
        return error.exit_status
    finally:
        undo()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables that hold for one run: the next may have none of them."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        # Those alone that have changed: threads of libraries read the others at any time.
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


def _forget() -> bool:
    """Frees what a run has left but for what the next one may need; False where the process can serve no other.

    An error within one of CUDA's kernels (an assertion, an illegal address) breaks the context: every call that
    follows in this process fails with it
    (https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html, cudaErrorAssert).
    """
    gc.collect()
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    except RuntimeError:
        return False
    return True


@contextmanager
def _listening(driver: socket.socket) -> Iterator[None]:
    """Sends this process SIGTERM when the driver says so, or is gone."""
    is_over, tell = os.pipe()
    thread = threading.Thread(target=_listen, args=(driver, is_over), name="requests", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(tell)
        thread.join()
        os.close(is_over)


def _listen(driver: socket.socket, is_over: int) -> None:
    ready, _, _ = select.select([driver.fileno(), is_over], [], [])
    if is_over not in ready:
        # What came is left to be read: a stop is passed over there, and an end of the driver ends the worker.
        os.kill(os.getpid(), signal.SIGTERM)
