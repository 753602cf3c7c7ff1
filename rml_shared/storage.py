"""Where drivers on several machines keep one study: a database server, or a journal file in a folder that all see."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rml_search.errors import NoResultsError, OptionError, StudyError
from rml_shared.turns import TURN_SECONDS, DatabaseTurn, FileTurn, as_mysql_reads

#: What tells of a storage that does not answer, now or at all.
STORAGE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError)
#: Those of them that nothing but a storage raises.
ITS_OWN_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)

_JOURNAL = "journal:"
_CONNECT_SECONDS = 10
#: How each driver notices that a server, or the way to it, is gone without a word; nothing else takes a turn so long.
_TCP: dict[str, dict[str, int]] = {
    "psycopg": {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000},
    "pymysql": {"read_timeout": 3 * TURN_SECONDS, "write_timeout": TURN_SECONDS},
}
#: The first bytes of a journal.
_JOURNAL_LINE = b'{"op_code":'

#: The kind of a database -> the Python driver that our extras bring, and the extra.
_DATABASES = {"postgresql": ("psycopg", "postgres"), "mysql": ("pymysql", "mysql"), "mariadb": ("pymysql", "mysql")}

#: What a database says, in lower case -> what the person can do about it.
_ADVICE = {
    "password": "check the user and the password",
    "access denied": "check the user and the password",
    "does not exist": "create it first, or check the name",
    "unknown database": "create it first, or check the name",
    "permission denied": "the user needs the right to create tables there",
    "lock timeout": "another driver has locked the study",
    "locked": "another program is using it",
    "too long": "choose a shorter --study-name",
    "incorrect string value": "choose a --study-name with characters that the database supports",
}
_UNREACHABLE = "check the host and port, and whether the server is running; the same command resumes"


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
            raise OptionError("--storage: give a file name after journal://")
        return StorageAddress(path, Path(path).absolute())
    try:
        url = sqlalchemy.make_url(text)
    except (ArgumentError, ValueError):
        raise OptionError(
            "--storage takes postgresql://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or a file that ends in "
            ".journal in a shared folder"
        ) from None
    kind = url.get_backend_name()
    if kind not in _DATABASES:
        advice = "which works on one machine only: " if kind == "sqlite" else ""
        raise OptionError(f"--storage: not {kind}, {advice}use postgresql, mysql or a file that ends in .journal")
    if url.database is None:
        shown = url.difference_update_query(_secret_settings(url))
        raise OptionError(f"--storage: {shown.render_as_string()} names no database")
    if url.drivername == kind:
        url = url.set(drivername=f"{kind}+{_DATABASES[kind][0]}")
    shown = url.difference_update_query(_secret_settings(url))
    return StorageAddress(shown.set(drivername=kind).render_as_string(hide_password=True), url)


def _secret_settings(url: sqlalchemy.URL) -> list[str]:
    """The settings after the question mark that are passwords."""
    return [name for name in url.query if "passw" in name.lower()]


@dataclass
class SharedStorage:
    """An open storage; the ``storage`` of a study that several drivers share.

    Attributes:
        optuna: what Optuna writes to; each step is there for all at once.
    """

    address: StorageAddress
    optuna: BaseStorage
    _turn: DatabaseTurn | FileTurn
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
    return SharedStorage(address, _journal(address, path), FileTurn(path))


def _journal(address: StorageAddress, path: Path) -> JournalStorage:
    try:
        file = _JournalFile(str(path), lock_obj=_JournalLock(str(path)))
        _check_is_journal(path)
        return JournalStorage(file)
    except (ValueError, KeyError, TypeError, AssertionError):
        raise StudyError(f"{address.text} is not an Optuna journal: use another file") from None


def _url_text(url: sqlalchemy.URL) -> str:
    """As Optuna takes it, which fills in what stands in braces."""
    return url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")


def _connection(url: sqlalchemy.URL) -> dict[str, Any]:
    """Of the connections that a server has for all drivers each keeps two: for its turn, and for what it does then."""
    arguments = {"connect_timeout": _CONNECT_SECONDS, **_TCP.get(url.get_driver_name(), {})}
    return {"pool_pre_ping": True, "pool_size": 2, "connect_args": arguments}


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
        engine = sqlalchemy.create_engine(url, **_connection(url))
    try:
        # Two drivers must not make the tables at the same time.
        with DatabaseTurn(engine, "tables").held():
            storage = RDBStorage(_url_text(url), engine_kwargs=_connection(url), skip_compatibility_check=True)
    finally:
        engine.dispose()
    opened = SharedStorage(address, storage, DatabaseTurn(storage.engine, as_mysql_reads(study_name)))
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
                raise NoResultsError(f"there is no file {address.text}: no search has been started there")
            yield _journal(address, address.place)
            return
        if not _has_tables(address, address.place):
            raise NoResultsError(f"{address.text} contains no study: no search has been started there")
        storage = RDBStorage(
            _url_text(address.place),
            engine_kwargs={**_connection(address.place), "execution_options": {"postgresql_readonly": True}},
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
        engine = sqlalchemy.create_engine(url, **_connection(url))
    try:
        return bool(sqlalchemy.inspect(engine).has_table("studies"))
    finally:
        engine.dispose()


@contextmanager
def storage_errors(address: StorageAddress, kinds: tuple[type[Exception], ...] = STORAGE_ERRORS) -> Iterator[None]:
    """Tells of a storage that cannot be used, as a StudyError, without any password."""
    try:
        yield
    except kinds as error:
        raise StudyError(f"--storage {address.text} cannot be used ({reason_of(error, address)})") from None


def reason_of(error: BaseException, address: StorageAddress) -> str:
    """What the database or the system said, in one line, and what to do about it."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(address.place, Path):
        return said
    for password in (address.place.password, *map(address.place.query.get, _secret_settings(address.place))):
        said = said.replace(str(password), "***") if password else said
    advice = next((advice for words, advice in _ADVICE.items() if words in said.lower()), _UNREACHABLE)
    return f"{said}: {advice}"


def _check_is_journal(path: Path) -> None:
    """Raises StudyError where the file begins with something else: Optuna would write behind it."""
    with path.open("rb") as file:
        if not _JOURNAL_LINE.startswith(file.read(len(_JOURNAL_LINE))):
            raise StudyError(f"{path} is not an Optuna journal: use another file")


class _JournalFile(JournalFileBackend):
    """A journal that says so where one of its lines has been damaged."""

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """As Optuna's. Raises StudyError where a line cannot be read."""
        try:
            yield from super().read_logs(log_number_from)
        except ValueError:
            raise StudyError(
                f"the journal {self._file_path} is damaged: restore a backup, or use another file"
            ) from None


class _JournalLock(JournalFileOpenLock):
    """The lock of a journal, whose holder finds whole lines: a full disk cuts off the one that is being written."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._journal = Path(path)

    def acquire(self) -> bool:
        """As Optuna's. Raises StudyError where the file is no journal."""
        super().acquire()
        try:
            self._cut_off()
        except BaseException:
            self.release()
            raise
        return True

    def _cut_off(self) -> None:
        _check_is_journal(self._journal)
        with self._journal.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            if not end or (file.seek(end - 1), file.read())[1] == b"\n":
                return
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
