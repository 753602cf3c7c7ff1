"""The engine in a Docker container, one for each trial.

Imported only when Docker is to be used: the SDK takes a tenth of a second to import.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from docker import DockerClient, from_env
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, Mount
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from rml_search.errors import RuntimeUnavailableError, SearchError
from rml_search.interruption import uninterrupted
from rml_search.paths import Workspace
from rml_search.runtime.base import (
    CONTAINER_DIRECTORY,
    STOP_SECONDS,
    EngineExit,
    EngineRun,
    engine_command,
    mpi_environment,
    split_lines,
)

#: Every container of ours carries this label, so that what a killed driver left behind can be told apart.
LABEL = "org.rml-optimization"

#: What the SDK raises: its own errors, and those of its connection to an engine that is gone or does not answer.
_SDK_ERRORS = (DockerException, RequestException, HTTPError)

#: With this exit code an init process says that the command is not there.
_NOT_FOUND = 127


class DockerRuntime:
    """Runs ``rmldnn`` in containers of one image, as the person who started the search."""

    name = "docker"
    in_container = True

    def __init__(self, workspace: Workspace, image: str, *, gpu: bool) -> None:
        self._workspace = workspace
        self._image = image
        self._gpu = gpu
        self._connection: DockerClient | None = None

    def describe(self) -> str:
        """``docker (image IMAGE)``."""
        return f"docker (image {self._image})"

    def prepare(self) -> None:
        """Connects to the engine, and pulls the image where it is not here yet."""
        client = self._client()
        try:
            client.images.get(self._image)
        except ImageNotFound:
            self._pull(client)
        except _SDK_ERRORS as error:
            raise RuntimeUnavailableError(f"cannot look up the image {self._image}: {_reason(error)}") from None

    def remove_leftovers(self) -> None:
        """Removes the containers of a search that was killed; those of an inference may be at work."""
        labels = [f"{LABEL}={self._workspace.root}", f"{LABEL}.serves=search"]
        with contextlib.suppress(*_SDK_ERRORS):
            for container in self._client().containers.list(all=True, filters={"label": labels}):
                container.remove(force=True, v=True)

    @contextmanager
    def start(self, run: EngineRun) -> Iterator[ContainerEngine]:
        """Starts a container; it is removed when the context ends, however it ends."""
        container: Container | None = None
        try:
            try:
                with uninterrupted():
                    container = self._client().containers.create(self._image, **self._settings(run))
                container.start()
            except _SDK_ERRORS as error:
                raise _start_error(error, self._image) from None
            yield ContainerEngine(container, self._image)
        finally:
            # Also what a failed start has left in the state "created".
            if container is not None:
                with uninterrupted(), contextlib.suppress(*_SDK_ERRORS):
                    container.remove(force=True, v=True)

    def _settings(self, run: EngineRun) -> dict[str, Any]:
        mounts = [Mount(CONTAINER_DIRECTORY, str(self._workspace.root), type="bind")]
        mounts += [Mount(mount.target, str(mount.source), type="bind", read_only=True) for mount in run.mounts]
        return {
            "command": engine_command(run, gpu=self._gpu),
            "user": f"{os.getuid()}:{os.getgid()}",
            "working_dir": CONTAINER_DIRECTORY,
            "mounts": mounts,
            "environment": {**run.environment(), **mpi_environment(run.num_procs)},
            "labels": {
                LABEL: str(self._workspace.root),
                **{f"{LABEL}.{key}": text for key, text in run.labels.items()},
            },
            "device_requests": [DeviceRequest(count=-1, capabilities=[["gpu"]])] if self._gpu else [],
            "cap_add": ["SYS_PTRACE"] if run.num_procs > 1 else [],
            # A first process that passes signals on: rmldnn itself may not be made to be process 1.
            "init": True,
        }

    def _client(self) -> DockerClient:
        if self._connection is None:
            self._connection = connect()
        return self._connection

    def _pull(self, client: DockerClient) -> None:
        try:
            client.images.pull(self._image)
        except _SDK_ERRORS as error:
            raise RuntimeUnavailableError(
                f"the image {self._image} is neither here nor to be pulled ({_reason(error)}): "
                "build ours with 'make image' and use --docker-image rmldnn-torch:latest, or use --runtime local"
            ) from None


class ContainerEngine:
    """A running container."""

    def __init__(self, container: Container, image: str) -> None:
        self._container = container
        self._image = image

    def lines(self) -> Iterator[str]:
        """What it prints, line by line; ends also when the Docker engine is gone, of which ``wait`` tells."""
        with contextlib.suppress(*_SDK_ERRORS):
            yield from split_lines(self._container.logs(stream=True, follow=True))

    def stop(self) -> None:
        """Asks it to end, and kills it when it does not."""
        with contextlib.suppress(*_SDK_ERRORS):
            self._container.stop(timeout=STOP_SECONDS)

    def wait(self) -> EngineExit:
        """Waits for its end.

        Raises:
            RuntimeUnavailableError: there was no ``rmldnn`` to start.
        """
        try:
            code = int(self._container.wait()["StatusCode"])
            self._container.reload()
        except _SDK_ERRORS as error:
            return EngineExit(-1, f"the container is gone: {_reason(error)}")
        if code == _NOT_FOUND:
            raise _no_command(self._image)
        state = self._container.attrs["State"]
        if state.get("OOMKilled"):
            return EngineExit(code, "the container was killed: it ran out of memory")
        if code - 128 in set(signal.Signals):
            return EngineExit(code, f"the engine was ended by {signal.Signals(code - 128).name}")
        return EngineExit(code, state.get("Error") or None)


def connect() -> DockerClient:
    """A connection to the Docker engine.

    Raises:
        RuntimeUnavailableError: no engine answers, or the person may not use it.
    """
    try:
        client = from_env()
        client.ping()
    except _SDK_ERRORS as error:
        if "PermissionError" in str(error) or "Permission denied" in str(error):
            raise RuntimeUnavailableError(
                "no permission to use the Docker engine: add yourself to the group docker "
                "(sudo usermod -aG docker $USER) and log in again, or use --runtime local"
            ) from None
        raise RuntimeUnavailableError(
            f"no Docker engine answers ({_reason(error)}): start it, or use --runtime local"
        ) from None
    return client


def holds_image(image: str) -> bool:
    """Whether an engine answers and holds ``image``."""
    try:
        connect().images.get(image)
    except (RuntimeUnavailableError, *_SDK_ERRORS):
        return False
    return True


def _start_error(error: Exception, image: str) -> SearchError:
    text = str(error)
    if "could not select device driver" in text or "nvidia" in text.lower():
        return RuntimeUnavailableError(
            "Docker cannot give a container the GPU: install the NVIDIA Container Toolkit, or use --no-gpu"
        )
    if "executable file not found" in text:
        return _no_command(image)
    return RuntimeUnavailableError(f"cannot start a container of {image}: {_reason(error)}")


def _no_command(image: str) -> RuntimeUnavailableError:
    return RuntimeUnavailableError(f"the image {image} has no command rmldnn: it is no image of rmldnn or of ours")


def _reason(error: Exception) -> str:
    """The last clause of a message that wraps the messages of several libraries."""
    explanation = getattr(error, "explanation", None)
    text = explanation if isinstance(explanation, str) else str(error)
    return " ".join(text.split())[-160:].strip(" .'\")(")
