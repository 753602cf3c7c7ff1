"""Files of the driver that a reader sees whole, old or new, and what a kill leaves of the writing."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rml_search.paths import Workspace

_UNFINISHED = re.compile(r"\..+\.(?P<process>[0-9]+)\.tmp")


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


def remove_unfinished_files(workspace: Workspace) -> None:
    """Removes what processes of this machine that were killed have left half-written among the results.

    For who holds the working directory, since then no other machine writes there. The data are not looked through.
    """
    places = [workspace.root, workspace.trials, *workspace.trials.glob("*/"), workspace.report]
    for top in (workspace.best_model, workspace.confirmations):
        places += [top, *top.rglob("*/")]
    for place in places:
        for path in place.glob(f".*.{platform.node()}.*.tmp"):
            match = _UNFINISHED.fullmatch(path.name)
            if match is not None and not _is_running(int(match["process"])):
                with contextlib.suppress(OSError):  # it harms nobody
                    path.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another person's
        pass
    return True
