"""Files of the driver that a reader sees whole, old or new, and what a kill leaves of the writing."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rml_search.paths import Workspace

_UNFINISHED = re.compile(r"\..+\.(?P<process>[0-9]+)\.tmp")

#: Writing one takes seconds; clocks of machines that share a folder may differ by more.
_OLD_SECONDS = 24 * 3600.0


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, which takes its name when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str, *, durably: bool = True) -> None:
    """Writes ``text`` beside ``path`` and renames it, so that a reader sees the old or the new file, whole.

    ``durably`` waits for the disk, against a power failure: milliseconds, for files that cannot be written anew.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if durably:
            os.fsync(file.fileno())


def remove_unfinished_files(workspace: Workspace, *, is_shared: bool = False) -> None:
    """Removes what processes that were killed have left half-written among the results; data are not looked through.

    Args:
        is_shared: others may be writing there now, on other machines or in containers, so only old files go. Else the
            caller holds the working directory, and whatever a process of this machine has left goes.
    """
    places = [workspace.trials, *workspace.trials.glob("*/")]
    for top in (workspace.best_model, workspace.confirmations):
        places += [top, *top.rglob("*/")]
    found = [path for place in places for path in place.glob(".*.tmp")]
    found += workspace.root.glob(f".{workspace.list_acc.name}.*.tmp")  # what else is there may be the person's own
    reports = list(workspace.report.glob(".*.tmp"))  # which are written at any time, perhaps in a container
    for path in (*found, *reports):
        match = _UNFINISHED.fullmatch(path.name)
        may_be_at_work = is_shared or path in reports
        if match is not None and (_is_old(path) or (not may_be_at_work and _is_of_the_dead(path, match["process"]))):
            with contextlib.suppress(OSError):  # it harms nobody
                path.unlink()


def _is_old(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - path.stat().st_mtime > _OLD_SECONDS
    return False


def _is_of_the_dead(path: Path, process: str) -> bool:
    return path.name.endswith(f".{platform.node()}.{process}.tmp") and not _is_running(int(process))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another person's
        pass
    return True
