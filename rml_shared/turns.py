"""Turns of drivers that share a storage: locks that a server keeps, or that lie beside a journal."""

from __future__ import annotations

import errno
import hashlib
import os
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from optuna.storages.journal import JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from rml_search.heartbeats import Heartbeat

#: How long a driver keeps its turn that is not heard of any more; twice as long others wait at a time.
TURN_SECONDS = 30


@dataclass(frozen=True)
class DatabaseTurn:
    """A lock that the server keeps, and lets go of when the connection ends, however it ends."""

    engine: sqlalchemy.Engine
    name: str

    @contextmanager
    def held(self) -> Iterator[None]:
        key = hashlib.sha256(f"rml-optimization {self.name}".encode()).digest()
        with self.engine.connect() as connection:
            release = _lock(connection, key)
            try:
                with _kept(lambda: connection.execute(sqlalchemy.text("SELECT 1"))):
                    yield
            finally:
                # What was done meanwhile is stored already, whatever becomes of this connection.
                with suppress(SQLAlchemyError):
                    connection.execute(release)
                    connection.commit()

    def close(self) -> None:
        self.engine.dispose()


def _lock(connection: sqlalchemy.Connection, key: bytes) -> sqlalchemy.TextClause:
    """Waits for a lock of the server's; what lets go of it."""
    # A machine that has lost its power, or its network, ends no connection: the server does when it hears nothing.
    if connection.dialect.name == "postgresql":
        number = int.from_bytes(key[:8], "big", signed=True)
        connection.execute(sqlalchemy.text(f"SET LOCAL idle_in_transaction_session_timeout = '{TURN_SECONDS}s'"))
        connection.execute(sqlalchemy.text(f"SET LOCAL lock_timeout = '{2 * TURN_SECONDS}s'"))
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": number})
        return sqlalchemy.text("SELECT 1")  # the end of the transaction does
    connection.execute(sqlalchemy.text(f"SET SESSION wait_timeout = {TURN_SECONDS}"))
    named = {"name": key.hex()[:60], "seconds": 2 * TURN_SECONDS}
    if connection.execute(sqlalchemy.text("SELECT GET_LOCK(:name, :seconds)"), named).scalar() != 1:
        raise TimeoutError(errno.ETIMEDOUT, "another driver has locked the study")
    return sqlalchemy.text("SELECT RELEASE_LOCK(:name)").bindparams(name=named["name"])


@contextmanager
def _kept(show: Callable[[], object]) -> Iterator[None]:
    """Shows meanwhile that a turn is still somebody's, however long it takes."""
    sign = Heartbeat(lambda _: show(), TURN_SECONDS / 6)
    sign.start()
    try:
        yield
    finally:
        sign.stop()


@dataclass(frozen=True)
class FileTurn:
    """A lock beside a journal, which works on network folders too; one that a dead driver holds is broken in time."""

    journal: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        turn = self.journal.with_name(f"{self.journal.name}.turn")
        lock, file = JournalFileOpenLock(str(turn), grace_period=TURN_SECONDS), turn.with_name(f"{turn.name}.lock")
        token = uuid.uuid4().hex
        lock.acquire()
        try:
            file.write_text(token, encoding="ascii")
            with _kept(lambda: os.utime(file)):
                yield
        finally:
            # It may have been broken meanwhile, as while this machine slept: then it is another's by now, or nobody's.
            with suppress(OSError, RuntimeError):
                if file.read_text(encoding="ascii") in {token, ""}:
                    lock.release()

    def close(self) -> None:
        """There is nothing to close."""


def as_mysql_reads(name: str) -> str:
    """The same for all names that are one to MySQL: it knows neither case nor accents, nor blanks at the end."""
    parts = unicodedata.normalize("NFKD", name.casefold())
    return "".join(part for part in parts if not unicodedata.combining(part)).rstrip()
