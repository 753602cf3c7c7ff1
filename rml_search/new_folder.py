"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rml_search.errors import WriteError


def check_free(out: Path) -> Path:
    """Returns ``out``, links followed, if it is not there or an empty folder.

    Raises :class:`WriteError` if anything is in it, or if it is the current folder, which cannot be replaced.
    """
    out = out.resolve()
    if out == Path.cwd():
        raise WriteError(f"{out} is the current folder: use a folder in it, such as ./data")
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise WriteError(f"{out} exists and is not empty: use another folder or move it away")
    except OSError as error:
        raise WriteError(f"{out} cannot be used: {error.strerror}") from error
    return out


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a hidden folder beside ``out`` that becomes ``out`` at the end, or vanishes on an error.

    After a kill it stays, and the next call for the same ``out`` removes it. Raises :class:`WriteError` as
    :func:`check_free` does, and for whatever the system refuses (a full disk, no permission).
    """
    out = check_free(out)
    temporary = out.with_name(f".{out.name}.being-written")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(out)
    except OSError as error:
        raise WriteError(f"cannot write {out}, nothing was kept: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
