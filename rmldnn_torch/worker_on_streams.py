"""The worker of :mod:`rmldnn_torch.worker` behind standard input and output, as a container has them.

The messages are those of :mod:`rmldnn_contract.worker_stream`. This process imports nothing heavy: it starts the
worker as its child at the first request, hands it requests through a socket and takes up what its runs print. When the
worker dies, this process ends with its exit status (128 + N for signal N), so a container tells of it as of an engine.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from typing import NoReturn

from rmldnn_contract.worker_stream import Begin, Ended, Message, MessageReader, Printed, format_message
from rmldnn_torch import worker

_CHUNK_BYTES = 65536

#: How long the output of a worker that has died is waited for; a process that it has left may hold it open.
_SECONDS_FOR_LAST_WORDS = 1.0

#: How long a worker may take when there is nothing to do any more; it gives a run at work a part of that.
_SECONDS_TO_END = 5.0


class _Relay:
    """Between the standard streams and a worker, which does one run at a time."""

    def __init__(self, *, in_process: bool) -> None:
        self._in_process = in_process
        self._socket, self._its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reader = MessageReader()
        self._pid: int | None = None
        self._output: int | None = None  # of the run at work, until its end
        self._status: int | None = None  # of the run that has ended, until its output has too

    def serve(self) -> int:
        """Carries out requests until there are no more; gives the exit status."""
        stdin = sys.stdin.fileno()
        while True:
            sources = [stdin, self._socket] if self._output is None else [stdin, self._socket, self._output]
            ready, _, _ = select.select(sources, [], [])
            if self._output in ready:
                self._take_output()
            if self._socket in ready and not self._take_answer():
                return self._end_with_worker()
            self._tell_end()
            if stdin in ready:
                chunk = os.read(stdin, _CHUNK_BYTES)
                if not chunk:
                    return self._end_worker()
                for message in self._reader.feed(chunk):
                    self._obey(message)

    def _obey(self, message: Message) -> None:
        # The worker's end is found out by reading from it: a request that it does not take is answered by that.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if not isinstance(message, Begin):
                worker.send_stop(self._socket)
                return
            self._output, write_end = os.pipe()
            try:
                if self._pid is None:
                    self._pid = self._start_worker(write_end)
                worker.send_request(self._socket, message.arguments, message.environment, write_end)
            finally:
                os.close(write_end)

    def _start_worker(self, output: int) -> int:
        pid = os.fork()
        if pid == 0:
            self._become_worker(output)
        self._its_end.close()
        return pid

    def _become_worker(self, output: int) -> NoReturn:
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
            worker.direct_output(output)
            for ours in (self._socket.detach(), self._output, output):
                if ours is not None:
                    os.close(ours)
            worker.work(self._its_end, in_process=self._in_process)
        except BaseException:  # noqa: BLE001 - told in the first run's output, as Python tells it of a program
            traceback.print_exc()
        os._exit(1)

    def _take_output(self) -> None:
        if self._output is None:
            return
        chunk = os.read(self._output, _CHUNK_BYTES)
        if chunk:
            _say(Printed(chunk))
        else:
            os.close(self._output)
            self._output = None

    def _take_answer(self) -> bool:
        """Takes in how a run has ended; False when it is the worker that has."""
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = self._socket.recv(_CHUNK_BYTES)
        if answer:
            self._status = worker.read_status(answer)
        return bool(answer)

    def _tell_end(self) -> None:
        """Says that the run has ended, once all that it has printed is said."""
        if self._status is not None and self._output is None:
            status, self._status = self._status, None
            _say(Ended(status))

    def _end_with_worker(self) -> int:
        while self._output is not None and select.select([self._output], [], [], _SECONDS_FOR_LAST_WORDS)[0]:
            self._take_output()
        return self._wait_for_worker()

    def _end_worker(self) -> int:
        """Nobody asks for more, or wants to know about the run at work."""
        self._socket.close()
        self._its_end.close()
        deadline = time.monotonic() + _SECONDS_TO_END
        while self._pid is not None and os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.02)
        return 0

    def _wait_for_worker(self) -> int:
        if self._pid is None:
            return 0
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return code if code >= 0 else 128 - code


def _say(message: Message) -> None:
    sys.stdout.buffer.write(format_message(message))
    sys.stdout.buffer.flush()


def main() -> NoReturn:
    """The command ``rmldnn-worker [--in-process]``."""
    with contextlib.suppress(BrokenPipeError):
        sys.exit(_Relay(in_process="--in-process" in sys.argv[1:]).serve())
    os._exit(0)  # nobody reads any more; the worker sees that its socket is closed


if __name__ == "__main__":
    main()
