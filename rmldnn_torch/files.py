"""Files that are whole or absent, and errors of writing as one line."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from rmldnn_contract.exit_status import OutputError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_unfinished: set[Path] = set()


def means_disk_full(error: BaseException) -> bool:
    """Whether an error, or the one that it came from, says that a disk is full."""
    failed_call = _failed_call(error)
    return failed_call is not None and failed_call.errno in _FULL


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of writing ``path`` into ``OutputError``. A closed pipe is left to the command line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (OSError, RuntimeError) as error:
        failed_call = _failed_call(error)
        if failed_call is None:
            raise
        if means_disk_full(failed_call):
            raise OutputError(f"no space left on the disk of {path}: free some, and run again") from error
        raise OutputError(f"cannot write {path}: {failed_call.strerror or failed_call}") from error


def _failed_call(error: BaseException | None) -> OSError | None:
    """The error of the operating system that ``error`` is or came from: torch raises others over it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends without an error.

    Readers see the old file or the whole new one, also after a kill or a power failure. Folders are
    created as needed. Raises ``OutputError``.
    """
    # Hidden, so that nobody takes it for a checkpoint; a leftover of a killed process of this number is overwritten.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _unfinished.add(temporary)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            _unfinished.discard(temporary)


def remove_unfinished_files() -> None:
    """Removes the temporary files of blocks that have not ended; for a process that ends at once."""
    for path in tuple(_unfinished):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
