"""One search at a time in a working directory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rml_search.errors import WorkspaceInUseError, WriteError
from rml_search.paths import Workspace


@contextmanager
def only_search_in(workspace: Workspace) -> Iterator[None]:
    """Holds the working directory; the system lets go of it when the process ends, however it ends.

    Raises:
        WorkspaceInUseError: another search holds it.
        WriteError: nothing can be written there.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(workspace.lock, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise WorkspaceInUseError(
            f"a search is running in {workspace.root}: wait until it ends, or use another folder"
        ) from None
    except OSError as error:
        raise WriteError(f"cannot write in {workspace.root}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()
