"""A working directory: that several drivers of one study may share, and whose files somebody may delete."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from rml_search.errors import (
    AllTrialsFailedError,
    EngineFailedError,
    SearchError,
    StudyError,
    WorkspaceInUseError,
    WriteError,
)
from rml_search.paths import Workspace, shown
from rml_search.results import finish_move_back, move_aside
from rml_search.whole_files import write_atomically


@contextmanager
def one_of_several_in(workspace: Workspace, study: str, show: Callable[[str], None]) -> Iterator[None]:
    """Holds the working directory together with other drivers of the same study, and keeps all other searches out.

    Results of another search move aside, of which ``show`` is told.

    Args:
        study: what tells the study from all others.

    Raises:
        WorkspaceInUseError: another search is at work there.
        WriteError: nothing can be written there.
    """
    try:
        workspace.root.mkdir(parents=True, exist_ok=True)
        file = workspace.lock.open("a+")  # to be read too, as a shared lock on a network's folder needs (flock(2))
    except OSError as error:
        raise WriteError(f"cannot write in {workspace.root}: {error.strerror}") from None
    with file:
        with setting_up(workspace):
            if _study_of(workspace) != study:
                _take(file, fcntl.LOCK_EX, workspace)
                finish_move_back(workspace)
                earlier = move_aside(workspace, datetime.now())
                if earlier is not None:
                    show(f"The results of an earlier search were moved to {shown(earlier)}")
                mark(workspace, study)  # whatever was there has moved
            _take(file, fcntl.LOCK_SH, workspace)
        yield


def mark(workspace: Workspace, study: str) -> None:
    """Says that the results in the working directory are of this study.

    Raises:
        StudyError: they are another's already.
    """
    if _study_of(workspace) not in {None, study}:
        raise StudyError(f"the results in {workspace.root} belong to another study: --fresh moves them to earlier/")
    workspace.trials.mkdir(parents=True, exist_ok=True)
    write_atomically(workspace.study_mark, f"{study}\n")


def is_folder_of(workspace: Workspace, study: str) -> bool:
    """Whether the results in the working directory are those of the shared study of this identity."""
    return _study_of(workspace) == study


@contextmanager
def setting_up(workspace: Workspace) -> Iterator[None]:
    """What drivers that share a directory do one after the other, before their first trials."""
    with _one_at_a_time(workspace, "setup"):
        yield


@contextmanager
def writing_results(workspace: Workspace) -> Iterator[None]:
    """What drivers that share a directory do one after the other, when they write results."""
    with _one_at_a_time(workspace, "results"):
        yield


@contextmanager
def trials_in_place(workspace: Workspace) -> Iterator[None]:
    """Trials run in this block; where it fails since their files were deleted meanwhile, that is what it says.

    Raises:
        WriteError: they were.
    """
    try:
        yield
    except (FileNotFoundError, EngineFailedError, AllTrialsFailedError) as error:
        gone = _deleted(workspace, error)
        if gone is None:
            raise
        raise WriteError(
            f"{shown(gone)} was deleted while the search ran: leave it in its place, and run the same command again"
        ) from error


def _deleted(workspace: Workspace, error: FileNotFoundError | SearchError) -> Path | None:
    """What of the trials is not there any more: all of them, or the file of one."""
    if not workspace.trial_layers(0).is_file():  # which the search has put there before its first trial
        return workspace.trials
    if isinstance(error, FileNotFoundError) and isinstance(error.filename, (str, Path)):
        missing = Path(error.filename)
        return missing if missing.is_relative_to(workspace.trials) else None
    return None


@contextmanager
def _one_at_a_time(workspace: Workspace, what: str) -> Iterator[None]:
    with workspace.lock.with_name(f"{workspace.lock.name}.{what}").open("a") as file:
        _lock(file, fcntl.LOCK_EX, workspace)
        yield


def _study_of(workspace: Workspace) -> str | None:
    try:
        return workspace.study_mark.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None


def _take(file: IO[str], kind: int, workspace: Workspace) -> None:
    try:
        _lock(file, kind | fcntl.LOCK_NB, workspace)
    except BlockingIOError:
        raise WorkspaceInUseError(
            f"a search of another study is running in {workspace.root}: wait until it ends, or use another folder"
        ) from None


def _lock(file: IO[str], kind: int, workspace: Workspace) -> None:
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        raise
    except OSError as error:  # some parallel file systems have locks only where they were mounted with them
        raise WriteError(
            f"cannot lock files in {workspace.root} ({error.strerror}): use a folder on another disk"
        ) from None
