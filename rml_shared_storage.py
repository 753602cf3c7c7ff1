"""Where drivers on several machines keep one study: a database server, or a journal file in a folder that all see.

One of the modules that import Optuna.
"""

from __future__ import annotations

import errno
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rml_search.errors import NoResultsError, OptionError, StudyError

#: What tells of a storage that does not answer, now or at all.
STORAGE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError)

_JOURNAL = "journal:"
_CONNECT_SECONDS = 10
_TURN_SECONDS = 30
_CONNECTION: dict[str, Any] = {"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_SECONDS}}

#: The kind of a database -> the Python driver that our extras bring, and the extra.
_DATABASES = {"postgresql": ("psycopg", "postgres"), "mysql": ("pymysql", "mysql"), "mariadb": ("pymysql", "mysql")}

#: What a database says, in lower case -> what the person can do about it.
_ADVICE = {
    "password": "check the user and the password",
    "access denied": "check the user and the password",
    "does not exist": "create it first, or check the name",
    "unknown database": "create it first, or check the name",
    "permission denied": "the user needs the right to create tables there",
    "lock timeout": "another driver holds the study",
    "locked": "another program holds it",
}
_UNREACHABLE = "check the host and the port, and whether the server runs; the same command goes on"


@dataclass(frozen=True)
class StorageAddress:
    """A storage as the person named it.

    Attributes:
        text: the address without its password, to be shown.
        place: of a database, with its password, or the file of a journal.
    """

    text: str
    place: sqlalchemy.URL | Path


def parse_storage(text: str) -> StorageAddress:
    """The address that ``--storage`` names. Raises OptionError."""
    if text.startswith(_JOURNAL) or ("://" not in text and text.endswith(".journal")):
        path = text.removeprefix(_JOURNAL)
        path = path.removeprefix("//")
        if not path:
            raise OptionError("--storage: name a file after journal://")
        return StorageAddress(path, Path(path).absolute())
    try:
        url = sqlalchemy.make_url(text)
    except (ArgumentError, ValueError):
        raise OptionError(
            "--storage takes postgresql://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or a file that ends in "
            ".journal in a folder that all machines see"
        ) from None
    kind = url.get_backend_name()
    if kind not in _DATABASES:
        advice = "it serves one machine only: " if kind == "sqlite" else ""
        raise OptionError(f"--storage: not {kind}, {advice}use postgresql, mysql or a file that ends in .journal")
    if url.database is None:
        raise OptionError(f"--storage: {url.render_as_string()} names no database")
    if url.drivername == kind:
        url = url.set(drivername=f"{kind}+{_DATABASES[kind][0]}")
    return StorageAddress(url.set(drivername=kind).render_as_string(hide_password=True), url)


@dataclass
class SharedStorage:
    """An open storage; the ``storage`` of a study that several drivers share.

    Attributes:
        optuna: what Optuna writes to; each step is there for all at once.
    """

    address: StorageAddress
    optuna: BaseStorage
    _turn: _DatabaseTurn | _FileTurn
    _depth: int = 0
    _guard: threading.RLock = field(default_factory=threading.RLock)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Steps that belong together: meanwhile no other driver takes its turn. May be nested."""
        with self._guard:
            if self._depth:
                yield
                return
            with self._turn.held():
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1

    def save(self) -> None:
        """All is stored at once."""

    def save_what_is_due(self) -> None:
        """All is stored at once."""

    def close(self) -> None:
        """Closes the connections."""
        if isinstance(self.optuna, RDBStorage):
            self.optuna.remove_session()
            self.optuna.engine.dispose()
        self._turn.close()


def open_shared_storage(address: StorageAddress, study_name: str) -> SharedStorage:
    """Opens a storage, and makes its tables or its file where there are none.

    Raises:
        StudyError: it cannot be reached or used, or is of another version of Optuna.
    """
    with storage_errors(address):
        if isinstance(address.place, Path):
            return _open_journal(address, address.place)
        return _open_database(address, address.place, study_name)


def _open_journal(address: StorageAddress, path: Path) -> SharedStorage:
    return SharedStorage(address, _journal(address, path), _FileTurn(path))


def _journal(address: StorageAddress, path: Path) -> JournalStorage:
    try:
        return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))
    except (ValueError, KeyError, TypeError, AssertionError):
        raise StudyError(f"{address.text} is no journal of Optuna's: name another file") from None


def _url_text(url: sqlalchemy.URL) -> str:
    """As Optuna takes it, which fills in what stands in braces."""
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


@contextmanager
def _package_of(address: StorageAddress, url: sqlalchemy.URL) -> Iterator[None]:
    """Tells of the package that a kind of database needs where it is missing."""
    try:
        yield
    except (ImportError, NoSuchModuleError):
        extra = _DATABASES[url.get_backend_name()][1]
        raise StudyError(
            f"--storage {address.text} needs the package {url.get_driver_name()}: "
            f"pip install 'rml-optimization[{extra}]'"
        ) from None


def _open_database(address: StorageAddress, url: sqlalchemy.URL, study_name: str) -> SharedStorage:
    with _package_of(address, url):
        engine = sqlalchemy.create_engine(url, **_CONNECTION)
    try:
        # Two drivers must not make the tables at the same time.
        with _DatabaseTurn(engine, "tables").held():
            storage = RDBStorage(_url_text(url), engine_kwargs=dict(_CONNECTION), skip_compatibility_check=True)
    except BaseException:
        engine.dispose()
        raise
    opened = SharedStorage(address, storage, _DatabaseTurn(engine, study_name))
    found, known = storage.get_current_version(), storage.get_head_version()
    if found != known:
        opened.close()
        raise StudyError(
            f"--storage {address.text} was made by another version of Optuna (its tables are {found}, not {known}): "
            "use another database, or the command `optuna storage upgrade`"
        )
    return opened


@contextmanager
def storage_to_read(address: StorageAddress) -> Iterator[BaseStorage]:
    """A storage that others may be writing to; it must be there. Nothing is written, and no turn is taken.

    Raises:
        NoResultsError: it is not there.
        StudyError: it cannot be reached or used.
    """
    with storage_errors(address):
        if isinstance(address.place, Path):
            if not address.place.is_file():
                raise NoResultsError(f"there is no file {address.text}: no search has begun there")
            yield _journal(address, address.place)
            return
        if not _has_tables(address, address.place):
            raise NoResultsError(f"{address.text} holds no study: no search has begun there")
        storage = RDBStorage(
            _url_text(address.place),
            engine_kwargs={**_CONNECTION, "execution_options": {"postgresql_readonly": True}},
            skip_compatibility_check=True,
            skip_table_creation=True,
        )
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _has_tables(address: StorageAddress, url: sqlalchemy.URL) -> bool:
    with _package_of(address, url):
        engine = sqlalchemy.create_engine(url, **_CONNECTION)
    try:
        return bool(sqlalchemy.inspect(engine).has_table("studies"))
    finally:
        engine.dispose()


@contextmanager
def storage_errors(address: StorageAddress) -> Iterator[None]:
    """Tells of a storage that cannot be used, as a StudyError, without any password."""
    try:
        yield
    except STORAGE_ERRORS as error:
        raise StudyError(f"--storage {address.text} cannot be used ({reason_of(error, address)})") from None


def reason_of(error: BaseException, address: StorageAddress) -> str:
    """What the database or the system said, in one line, and what to do about it."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    password = None if isinstance(address.place, Path) else address.place.password
    if password:
        said = said.replace(str(password), "***")
    if isinstance(address.place, Path):
        return said
    advice = next((advice for words, advice in _ADVICE.items() if words in said.lower()), _UNREACHABLE)
    return f"{said}: {advice}"


@dataclass(frozen=True)
class _DatabaseTurn:
    """A lock that the server keeps, and lets go of when the connection ends, however it ends."""

    engine: sqlalchemy.Engine
    name: str

    @contextmanager
    def held(self) -> Iterator[None]:
        key = hashlib.sha256(f"rml-optimization {self.name}".encode()).digest()
        with self.engine.connect() as connection:
            release = _lock(connection, key)
            try:
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
    if connection.dialect.name == "postgresql":
        number = int.from_bytes(key[:8], "big", signed=True)
        connection.execute(sqlalchemy.text(f"SET LOCAL lock_timeout = '{_TURN_SECONDS}s'"))
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": number})
        return sqlalchemy.text("SELECT 1")  # the end of the transaction does
    named = {"name": key.hex()[:60], "seconds": _TURN_SECONDS}
    if connection.execute(sqlalchemy.text("SELECT GET_LOCK(:name, :seconds)"), named).scalar() != 1:
        raise TimeoutError(errno.ETIMEDOUT, "another driver holds the study")
    return sqlalchemy.text("SELECT RELEASE_LOCK(:name)").bindparams(name=named["name"])


@dataclass(frozen=True)
class _FileTurn:
    """A lock beside a journal, which works on network folders too; one that a dead driver holds is broken in time."""

    journal: Path

    @contextmanager
    def held(self) -> Iterator[None]:
        lock = JournalFileOpenLock(f"{self.journal}.turn", grace_period=_TURN_SECONDS)
        lock.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError):  # it was broken meanwhile
                lock.release()

    def close(self) -> None:
        """There is nothing to close."""
