"""One search at a time in a working directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rml_search.errors import WorkspaceInUseError, WriteError
from rml_search.paths import Workspace

_PATIENCE_SECONDS = 0.3


def is_held(workspace: Workspace) -> bool:
    """Whether a search runs in the working directory on this machine."""
    import fcntl

    try:
        with workspace.lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def only_search_in(workspace: Workspace) -> Iterator[None]:
    """Holds the working directory; the system lets go of it when the process ends, however it ends.

    Raises:
        WorkspaceInUseError: another search holds it.
        WriteError: nothing can be written there.
    """
    from filelock import FileLock, Timeout

    # Not at once refused: whoever asks whether a search is running holds it for a moment.
    lock = FileLock(workspace.lock, timeout=_PATIENCE_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise WorkspaceInUseError(
            f"a search is running in {workspace.root}: wait for its end, or search in another folder"
        ) from None
    except OSError as error:
        raise WriteError(f"cannot write in {workspace.root}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
