"""Database servers of the tests' own, which listen on the loopback device alone."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import boto3

PASSWORD = "geheim"

_OTHER_USER = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]


class Server(Protocol):
    """A server with an empty database ``optuna``, whose user has the same name and the password above."""

    port: int

    @property
    def url(self) -> str: ...

    def make(self) -> None:
        """Makes its files and starts it."""

    def start(self) -> None:
        """Starts it; returns when it answers."""

    def stop(self) -> None:
        """Ends it at once, as a kill would."""


def free_port() -> int:
    """A port of the loopback device that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(server: Server, folder: Path) -> Iterator[Server]:
    """Makes a server, and ends it."""
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", "nobody:nogroup", str(folder)], check=True)
    try:
        server.make()
        yield server
    finally:
        server.stop()
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def short_folder() -> Path:
    """A folder for a server: its socket's path must be short, and its user must be able to reach it."""
    return Path(tempfile.mkdtemp(prefix="db.", dir="/tmp"))


@dataclass
class Postgres:
    """A server on a free port, run by a user that is not root, as it demands."""

    folder: Path
    port: int
    binaries: Path

    @property
    def url(self) -> str:
        return f"postgresql://optuna:{PASSWORD}@127.0.0.1:{self.port}/optuna"

    def command(self, name: str, *arguments: str) -> None:
        user = _OTHER_USER if os.getuid() == 0 else []
        environment = {**os.environ, "HOME": str(self.folder), "PGPASSWORD": PASSWORD}
        # Into a file: the server that pg_ctl starts keeps what it inherits open.
        with (self.folder / "commands.log").open("a") as log:
            words = [*user, str(self.binaries / name), *arguments]
            subprocess.run(words, cwd=self.folder, env=environment, stdout=log, stderr=log, check=True, timeout=60)

    def make(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        data = ("-D", str(self.folder / "data"), "--no-sync", "-E", "UTF8")
        self.command("initdb", *data, "-U", "optuna", "-A", "scram-sha-256", f"--pwfile={self.folder / 'password'}")
        self.start()
        self.command("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "optuna", "optuna")

    def start(self) -> None:
        settings = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c fsync=off"
        log = self.folder / "server.log"
        self.command("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(log), "-o", settings, "start")

    def stop(self) -> None:
        self.command("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")


@dataclass
class MariaDB:
    """A server on a free port, run by a user that is not root."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mysql://optuna:{PASSWORD}@127.0.0.1:{self.port}/optuna"

    def make(self) -> None:
        (self.folder / "users.sql").write_text(
            "CREATE DATABASE IF NOT EXISTS optuna;\n"
            f"CREATE USER IF NOT EXISTS optuna@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON optuna.* TO optuna@'127.0.0.1';\n"
        )
        words = [*self._as_other_user(), "mariadb-install-db", "--no-defaults", f"--datadir={self.folder / 'data'}"]
        words += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(words, cwd=self.folder, capture_output=True, check=True, timeout=60)
        self.start()

    def start(self) -> None:
        settings = [f"--datadir={self.folder / 'data'}", f"--socket={self.folder / 'socket'}", f"--port={self.port}"]
        settings += ["--bind-address=127.0.0.1", "--skip-name-resolve", f"--init-file={self.folder / 'users.sql'}"]
        with (self.folder / "server.log").open("a") as log:
            words = [*self._as_other_user(), "mariadbd", "--no-defaults", *settings]
            self.process = subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def _as_other_user(self) -> list[str]:
        return _OTHER_USER if os.getuid() == 0 else []


@dataclass
class Bucket:
    """A bucket of S3, at the address that boto3's environment variables name."""

    name: str

    def __post_init__(self) -> None:
        self._client().create_bucket(Bucket=self.name)

    def keys(self) -> list[str]:
        """The names of the objects."""
        return [found["Key"] for found in self._client().list_objects_v2(Bucket=self.name).get("Contents", [])]

    def change(self, key: str, content: bytes) -> None:
        """Overwrites an object."""
        self._client().put_object(Bucket=self.name, Key=key, Body=content)

    def _client(self) -> Any:
        return boto3.client("s3")
