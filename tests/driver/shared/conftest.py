"""Servers of the tests' own, and drivers that share a study."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rml_search.options import SharedChoice, StudyChoice
from rml_search.paths import Workspace
from rml_search.plan import SearchPlan
from rml_shared.study import SharedStudy, open_shared_study

from .servers import PASSWORD, Bucket, MariaDB, Postgres, Server, free_port, serving, short_folder

_POSTGRES = "/usr/lib/postgresql"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server."""
    binaries = sorted(Path(_POSTGRES).glob("*/bin")) if Path(_POSTGRES).is_dir() else []
    if not binaries:
        pytest.skip(f"no PostgreSQL in {_POSTGRES}: install Debian's package postgresql")
    folder = short_folder()
    with serving(Postgres(folder, free_port(), binaries[-1]), folder) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    """A MariaDB server, which speaks MySQL's protocol."""
    if shutil.which("mariadbd") is None:
        pytest.skip("no mariadbd on the path: install Debian's package mariadb-server")
    folder = short_folder()
    with serving(MariaDB(folder, free_port()), folder) as server:
        yield server


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of them."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of moto's server, which speaks S3's protocol."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
        yield Bucket(f"models-{secrets.token_hex(4)}")  # the server keeps what other tests have left
    finally:
        server.stop()


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
