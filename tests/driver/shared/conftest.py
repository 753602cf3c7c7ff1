"""A PostgreSQL server of the tests' own, and drivers that share a study."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rml_search.options import SharedChoice, StudyChoice
from rml_search.paths import Workspace
from rml_search.plan import SearchPlan
from rml_shared_study import SharedStudy, open_shared_study

_BINARIES = "/usr/lib/postgresql"
PASSWORD = "geheim"


@dataclass
class Postgres:
    """A server on a free port of the loopback device, run by a user that is not root, as it demands."""

    folder: Path
    port: int
    binaries: Path

    @property
    def url(self) -> str:
        return f"postgresql://optuna:{PASSWORD}@127.0.0.1:{self.port}/optuna"

    def command(self, name: str, *arguments: str) -> None:
        user = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"] if os.getuid() == 0 else []
        environment = {**os.environ, "HOME": str(self.folder), "PGPASSWORD": PASSWORD}
        # Into a file: the server that pg_ctl starts keeps what it inherits open.
        with (self.folder / "commands.log").open("a") as log:
            words = [*user, str(self.binaries / name), *arguments]
            subprocess.run(words, cwd=self.folder, env=environment, stdout=log, stderr=log, check=True, timeout=60)

    def make(self) -> None:
        (self.folder / "password").write_text(PASSWORD)
        (self.folder / "commands.log").touch()
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "nobody:nogroup", str(self.folder)], check=True)
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


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL server with an empty database ``optuna``."""
    binaries = sorted(Path(_BINARIES).glob("*/bin")) if Path(_BINARIES).is_dir() else []
    if not binaries:
        pytest.skip(f"no PostgreSQL in {_BINARIES}: install Debian's package postgresql")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Its socket's path must be short, and its user must be able to reach the folder.
    folder = Path(subprocess.check_output(["mktemp", "-d", "/tmp/pg.XXXXXX"], text=True).strip())
    server = Postgres(folder, port, binaries[-1])
    try:
        server.make()
        yield server
    finally:
        server.stop()
        subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture
def join(
    workspace: Workspace, make_options: Callable[..., Any], tmp_path: Path
) -> Iterator[Callable[..., SharedStudy]]:
    """Joins the study of a journal, as another driver each time: ``join(num_trials=3, storage=..., folder=...)``."""
    opened: list[SharedStudy] = []

    def join(**changes: Any) -> SharedStudy:
        names = {"study_name", "artifacts", "heartbeat_seconds"}
        shared = {"heartbeat_seconds": 3600.0} | {name: changes.pop(name) for name in names & changes.keys()}
        choice = SharedChoice(changes.pop("storage", f"journal://{tmp_path}/study.journal"), **shared)
        study_choice = changes.pop("study", StudyChoice())
        show = changes.pop("show", print)
        folder = changes.pop("folder", None)
        own = workspace if folder is None else Workspace(folder)
        own.trials.mkdir(parents=True, exist_ok=True)
        options = make_options(**changes)
        opened.append(open_shared_study(own, options, SearchPlan(study_choice, shared=choice), choice, show))
        return opened[-1]

    yield join
    for study in opened:
        study.close()
