"""What a driver and a worker in a container say to each other: lines of JSON on the worker's standard streams.

The driver writes :class:`Begin` and :class:`Stop` to the worker's standard input; on its standard output the worker
answers each :class:`Begin` with what the run prints, :class:`Printed`, and after the last of it with :class:`Ended`.
One run follows another. When its standard input ends, so does the worker, with a run that may be at work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: An image that holds such a worker says so in this label, whose text is the version of what is said here.
WORKER_LABEL = "org.rmldnn-torch.worker"
WORKER_VERSION = "1"

#: The command that starts it; ``--in-process`` may follow (``rmldnn_torch/worker.py``).
WORKER_COMMAND = "rmldnn-worker"


@dataclass(frozen=True)
class Begin:
    """Run the engine's command line with these arguments, and these variables besides those of the worker."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stop:
    """Ask the run at work to end; without one it means nothing."""


@dataclass(frozen=True)
class Printed:
    """The next bytes that the run has printed, cut anywhere."""

    output: bytes


@dataclass(frozen=True)
class Ended:
    """The run's exit status, negative for the signal that killed it."""

    status: int


Message = Begin | Stop | Printed | Ended


def format_message(message: Message) -> bytes:
    """The line, with its end. Bytes become the characters of the same numbers."""
    match message:
        case Begin(arguments, environment):
            document: dict[str, object] = {"arguments": list(arguments), "environment": dict(environment)}
        case Stop():
            document = {"stop": True}
        case Printed(output):
            document = {"output": output.decode("latin-1")}
        case Ended(status):
            document = {"status": status}
    return json.dumps(document).encode("ascii") + b"\n"


def parse_message(line: bytes) -> Message:
    """Reads what :func:`format_message` writes. Raises ValueError for anything else."""
    match json.loads(line):
        case {"arguments": list(arguments), "environment": dict(environment)}:
            return Begin(tuple(map(str, arguments)), environment)
        case {"stop": True}:
            return Stop()
        case {"output": str(output)}:
            return Printed(output.encode("latin-1"))
        case {"status": int(status)}:
            return Ended(status)
    raise ValueError(f"{line[:80]!r} is no message of a worker")


class MessageReader:
    """Finds the messages in a stream of bytes that is cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """The messages that are whole by now."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        yield from map(parse_message, lines)
