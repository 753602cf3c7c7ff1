"""A working directory that drivers share: whose results it holds, and where no file can be locked."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from rml_search.errors import StudyError, WriteError
from rml_search.folder import mark, one_of_several_in


def test_results_are_marked_once(workspace):
    mark(workspace, "one")
    mark(workspace, "one")
    with pytest.raises(StudyError, match=r"another study: --fresh moves them to earlier/$"):
        mark(workspace, "other")
    assert workspace.study_mark.read_text() == "one\n"


def test_a_folder_without_locks_is_one_line(workspace, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    expected = pytest.raises(WriteError, match=r"cannot lock files in .* \(Function not implemented\)")
    with expected, one_of_several_in(workspace, "one", print):
        raise AssertionError("not locked")


def test_a_shared_lock_is_one_that_network_folders_have(workspace, monkeypatch):
    """There it needs a file that is open for reading (flock(2), NFS details)."""
    kinds = {}
    real = fcntl.flock

    def flock(file, kind: int) -> None:
        kinds[kind] = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        real(file, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with one_of_several_in(workspace, "one", print):
        assert kinds[fcntl.LOCK_SH | fcntl.LOCK_NB] in {os.O_RDONLY, os.O_RDWR}
        assert kinds[fcntl.LOCK_EX | fcntl.LOCK_NB] in {os.O_WRONLY, os.O_RDWR}
