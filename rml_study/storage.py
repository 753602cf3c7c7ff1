"""The study's database: SQLite files, as Optuna lays them out."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import optuna
from sqlalchemy import URL
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from rml_search.errors import StudyError, WriteError
from rml_search.options import SearchOptions
from rml_search.paths import Workspace, shown
from rml_search.study_settings import study_settings

#: The name of the study of a search that has its folder for itself.
STUDY_NAME = "rml-optimization"
_LOCK_SECONDS = 60.0
#: SQLITE_BUSY and SQLITE_LOCKED (https://www.sqlite.org/rescode.html), which Python names from 3.11 on.
_BUSY = (5, 6)
#: How the names of studies begin that train the best trials of another one again.
CONFIRMATION = "confirmation/"


def can_go_on(workspace: Workspace, options: SearchOptions) -> bool:
    """Whether ``study.db`` holds a search to go on with.

    None without a trial, and none where nothing has worked so far and the options are other ones now: those results
    make place. A database that cannot be read is left to :func:`open_study`, which says so.
    """
    if not workspace.study_database.exists():
        return False
    try:
        with closing(sqlite3.connect(workspace.study_database, timeout=_LOCK_SECONDS)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "trials" not in tables:
                return False
            states = {state for (state,) in database.execute("SELECT DISTINCT state FROM trials")}
            settings = database.execute(
                "SELECT value_json FROM study_user_attributes WHERE key = 'settings' ORDER BY study_id"
            ).fetchone()
    except sqlite3.Error:
        return True
    is_same = settings is not None and json.loads(settings[0]) == study_settings(options)
    return bool(states) and (is_same or bool(states & {"COMPLETE", "PRUNED"}))


def load_other_study(file: Path, workspace: Workspace) -> optuna.Study:
    """The only study in a database, for :meth:`OptunaStudy.borrow`. Raises StudyError."""
    path = str(file)
    if not file.is_file() or file.resolve() == workspace.study_database:
        raise StudyError(f"--warm-start: {path} is not the study.db of another search")
    try:
        summaries = optuna.get_all_study_summaries(URL.create("sqlite", database=path).render_as_string())
        summaries = [summary for summary in summaries if not summary.study_name.startswith(CONFIRMATION)]
        if len(summaries) != 1:
            raise StudyError(f"--warm-start: {path} contains {len(summaries)} studies, not one")
        return optuna.load_study(
            study_name=summaries[0].study_name, storage=URL.create("sqlite", database=path).render_as_string()
        )
    except (SQLAlchemyError, RuntimeError, sqlite3.Error) as error:
        raise StudyError(f"--warm-start: {path} is not an Optuna study: {_first_line(error)}") from None


@contextmanager
def database_errors(workspace: Workspace) -> Iterator[None]:
    """Tells of a database that cannot be used, as a StudyError; of a full disk as a WriteError."""
    path = shown(workspace.study_database)
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError) as error:
        reason = _first_line(error)
        if "disk is full" in reason:
            raise WriteError(
                f"{path} cannot be written ({reason}): free some space, and run the same command again"
            ) from None
        raise StudyError(f"{path} cannot be used ({reason}): {_advice(workspace, reason)}") from None
    except RuntimeError as error:
        if "version" not in str(error):
            raise
        raise StudyError(f"{path} was made by another version of Optuna: {_first_line(error)}") from None


def _advice(workspace: Workspace, reason: str) -> str:
    if "locked" in reason:
        return "another program is using it; try again when it has finished"
    if workspace.study_database.is_file() and not os.access(workspace.study_database, os.R_OK):
        return "you have no permission to read it"
    return "--fresh starts over and moves it to earlier/"


def _first_line(error: BaseException) -> str:
    """Of the error at the bottom, which is the database's own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0]


def storage_url(workspace: Workspace) -> str:
    """The address of ``study.db``, whatever characters its path has."""
    return URL.create("sqlite", database=str(workspace.study_database)).render_as_string()


def open_storage(workspace: Workspace) -> optuna.storages.RDBStorage:
    """``study.db`` with a write-ahead log: what was committed outlives a kill, and a commit takes a tenth of the time.

    (https://www.sqlite.org/wal.html: with ``synchronous=NORMAL`` a power failure may undo the last commits, and never
    damages the database.)
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(workspace.study_database, timeout=_LOCK_SECONDS, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return optuna.storages.RDBStorage(storage_url(workspace), engine_kwargs={"creator": connect})


def _refuse_to_wait(status: int, _num_left: int, _num_pages: int) -> None:
    """Ends a copy that another process does not let begin: Python would try again for ever, deaf to signals.

    By then SQLite has waited for as long as the connection lets it.
    """
    if status in _BUSY:
        raise sqlite3.OperationalError("database is locked")


@contextmanager
def snapshot(database: Path) -> Iterator[optuna.storages.RDBStorage]:
    """A copy of a SQLite database in memory, whole even while another process writes; nothing is written there."""
    # Without a journal nothing is under way, and "immutable" keeps SQLite from making one beside the file.
    is_quiet = not database.with_name(database.name + "-wal").exists()
    address = f"{database.as_uri()}?mode=ro" + "&immutable=1" * is_quiet
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as copy:
        with closing(sqlite3.connect(address, uri=True)) as source:
            source.backup(copy, progress=_refuse_to_wait)
        storage = optuna.storages.RDBStorage(
            "sqlite://", engine_kwargs={"creator": lambda: copy, "poolclass": StaticPool}
        )
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()
