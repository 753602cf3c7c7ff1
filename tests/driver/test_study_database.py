"""A ``study.db`` that others hold, or that the person may not read."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing

import pytest

from rml_commands.status import folder_progress
from rml_optuna import open_study
from rml_report.page import write_report
from rml_search.errors import StudyError, WriteError
from rml_search.options import StudyChoice
from rml_study.storage import database_errors


@pytest.mark.parametrize("read", [folder_progress, write_report])
def test_nobody_waits_for_ever_for_a_program_that_holds_the_study_for_itself(workspace, make_options, read):
    open_study(workspace, make_options(), StudyChoice(), print).close()
    with closing(sqlite3.connect(workspace.study_database)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("CREATE TABLE theirs (number)")
        other.commit()
        began = time.monotonic()
        with pytest.raises(StudyError, match=r"cannot be used \(database is locked\): another program is using it"):
            read(workspace)
    assert time.monotonic() - began < 60  # where it hung it did so until the other had ended


def test_of_a_study_that_one_may_not_read_the_permission_is_told(workspace, monkeypatch):
    workspace.study_database.write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (workspace.study_database, os.R_OK))
    with pytest.raises(StudyError, match="you have no permission to read it"), database_errors(workspace):
        raise sqlite3.OperationalError("unable to open database file")


def test_a_full_disk_is_no_reason_to_start_over(workspace, make_options):
    open_study(workspace, make_options(), StudyChoice(), print).close()
    with closing(sqlite3.connect(workspace.study_database)) as database:
        (num_pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count={num_pages}")  # what SQLite reports then is what a full disk gives
        with pytest.raises(WriteError, match=r"disk is full\): free some space") as caught, database_errors(workspace):
            database.execute("CREATE TABLE large AS SELECT randomblob(100000) AS bytes")
    assert caught.value.exit_code == 73
