"""The engine in a Docker container, one for each trial where the image knows of no workers.

Imported only when Docker is to be used: the SDK takes a tenth of a second to import.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from docker import DockerClient, from_env
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, Mount
from docker.utils import parse_repository_tag
from requests.exceptions import RequestException
from urllib3.exceptions import HTTPError

from rml_search.allotment import gpus_of_engine
from rml_search.devices import num_cpus
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
    was_killed,
)
from rml_search.runtime.warm_engine import Workplace
from rmldnn_contract.worker_stream import WORKER_LABEL, WORKER_VERSION

#: Every container of ours carries this label, so that what a killed driver left behind can be told apart.
LABEL = "org.rml-optimization"

#: What the SDK raises: its own errors, and those of its connection to an engine that is gone or does not answer.
SDK_ERRORS = (DockerException, RequestException, HTTPError)

#: With this exit code an init process says that the command is not there.
_NOT_FOUND = 127


class DockerRuntime:
    """Runs ``rmldnn`` in containers of one image, as the person who started the search."""

    name = "docker"
    in_container = True

    def __init__(self, workspace: Workspace, image: str, *, gpu: bool) -> None:
        self._workspace = workspace
        self.image = image
        self.uses_gpu = gpu
        # One for each thread: the SDK's sessions are not made to be shared.
        self._connections = threading.local()

    def describe(self) -> str:
        """``docker (image IMAGE)``."""
        return f"docker (image {self.image})"

    def prepare(self, show: Callable[[str], None]) -> None:
        """Connects to the engine, and pulls the image where it is not here yet; ``show`` is told how far that is."""
        client = self._client()
        try:
            client.images.get(self.image)
        except ImageNotFound:
            self._pull(client, show)
        except SDK_ERRORS as error:
            raise RuntimeUnavailableError(f"cannot look up the image {self.image}: {_reason(error)}") from None

    def remove_leftovers(self, is_gone: Callable[[str], bool] = lambda _: True, /) -> None:
        """Removes the containers of searches that were killed; those of an inference may be at work."""
        labels = [f"{LABEL}={self._workspace.root}", f"{LABEL}.serves=search"]
        containers: list[Container] = []
        with contextlib.suppress(*SDK_ERRORS):
            # One that goes by itself meanwhile is no reason to leave the others.
            containers = self._client().containers.list(all=True, filters={"label": labels}, ignore_removed=True)
        for container in containers:
            if is_gone(container.labels.get(f"{LABEL}.driver", "")):
                remove(container)

    @contextmanager
    def start(self, run: EngineRun) -> Iterator[ContainerEngine]:
        """Starts a container; it is removed when the context ends, however it ends."""
        container: Container | None = None
        settings = self.settings(run)
        program = settings["command"][0]
        try:
            with uninterrupted():
                container = self.create(settings)
            try:
                container.start()
            except SDK_ERRORS as error:
                raise start_error(error, self.image, program) from None
            yield ContainerEngine(container, self.image, program)
        finally:
            # Also what a failed start has left in the state "created".
            if container is not None:
                with uninterrupted():
                    remove(container)

    def workplace(self, *, in_process: bool) -> Workplace | None:
        """Where containers are made that outlive a trial; None where the image knows of no such."""
        from rml_search.runtime.docker_worker import DockerWorkplace

        try:
            labels = self._client().images.get(self.image).labels
        except SDK_ERRORS:  # the first trial tells of it
            return None
        return DockerWorkplace(self, in_process=in_process) if labels.get(WORKER_LABEL) == WORKER_VERSION else None

    def create(self, settings: Mapping[str, Any]) -> Container:
        """Makes a container of the image. Raises RuntimeUnavailableError."""
        try:
            return self._client().containers.create(self.image, **settings)
        except SDK_ERRORS as error:
            raise start_error(error, self.image, settings["command"][0]) from None

    def settings(self, run: EngineRun) -> dict[str, Any]:
        """Of a container for this run, as the SDK takes them."""
        mounts = [Mount(CONTAINER_DIRECTORY, str(self._workspace.root), type="bind")]
        mounts += [Mount(mount.target, str(mount.source), type="bind", read_only=True) for mount in run.mounts]
        return {
            "command": engine_command(run, gpu=self.uses_gpu),
            "user": f"{os.getuid()}:{os.getgid()}",
            "working_dir": CONTAINER_DIRECTORY,
            "mounts": mounts,
            "environment": {**_own_share(), **run.environment(), **mpi_environment(run.num_procs)},
            "labels": {
                LABEL: str(self._workspace.root),
                **{f"{LABEL}.{key}": text for key, text in run.labels.items()},
            },
            "device_requests": [_gpus(run.device)] if self.uses_gpu else [],
            "cap_add": ["SYS_PTRACE"] if run.num_procs > 1 else [],
            # NCCL's processes talk through it, and Docker's 64 MB do not suffice.
            "shm_size": "1g" if run.num_procs > 1 and self.uses_gpu else None,
            # A first process that passes signals on: rmldnn itself may not be made to be process 1.
            "init": True,
        }

    def _client(self) -> DockerClient:
        client: DockerClient | None = getattr(self._connections, "client", None)
        if client is None:
            client = self._connections.client = connect()
        return client

    def _pull(self, client: DockerClient, show: Callable[[str], None]) -> None:
        show(f"Pulling {self.image} ...")
        repository, tag = parse_repository_tag(self.image)
        try:
            # Not images.pull, which says nothing until it has ended.
            for text in _pull_progress(client.api.pull(repository, tag=tag or "latest", stream=True, decode=True)):
                show(text)
            client.images.get(self.image)
        except SDK_ERRORS as error:
            raise RuntimeUnavailableError(
                f"the image {self.image} is not on this machine and cannot be pulled ({_reason(error)}): "
                "build one with 'make image' and use --docker-image rmldnn-torch:latest, or use --runtime local"
            ) from None


class ContainerEngine:
    """A running container."""

    def __init__(self, container: Container, image: str, program: str) -> None:
        self._container = container
        self._image = image
        self._program = program

    def lines(self) -> Iterator[str]:
        """What it prints, line by line; ends also when the Docker engine is gone, of which ``wait`` tells."""
        with contextlib.suppress(*SDK_ERRORS):
            yield from split_lines(self._container.logs(stream=True, follow=True))

    def stop(self) -> None:
        """Asks it to end, and kills it when it does not."""
        with contextlib.suppress(*SDK_ERRORS):
            self._container.stop(timeout=STOP_SECONDS)

    def wait(self) -> EngineExit:
        """Waits for its end.

        Raises:
            RuntimeUnavailableError: the image has no such program.
        """
        ended = exit_of_container(self._container)
        if ended.code == _NOT_FOUND:
            raise _no_command(self._image, self._program)
        return ended


def exit_of_container(container: Container) -> EngineExit:
    """Waits for its end."""
    try:
        code = int(container.wait()["StatusCode"])
        container.reload()
    except SDK_ERRORS as error:
        return EngineExit(-1, f"the container disappeared: {_reason(error)}", is_machines_fault=True)
    state = container.attrs["State"]
    if state.get("OOMKilled"):
        return EngineExit(code, "the container was killed: it ran out of memory", is_machines_fault=True)
    return exit_of_code(code, state.get("Error") or None)


def exit_of_code(code: int, note: str | None = None) -> EngineExit:
    """What an exit code says; above 128 it is, as in a shell, that of a signal."""
    if code - 128 in set(signal.Signals):
        return EngineExit(code, f"the engine was stopped by {signal.Signals(code - 128).name}", was_killed(code))
    return EngineExit(code, note)


def remove(container: Container) -> None:
    """Removes a container, whatever it does; not one that is gone, or whose engine is."""
    with contextlib.suppress(*SDK_ERRORS):
        container.remove(force=True, v=True)


def _own_share() -> dict[str, str]:
    """A container is started outside of this process's job, or affinity, and would take all cores of the machine."""
    return {"OMP_NUM_THREADS": str(num_cpus())} if num_cpus() < (os.cpu_count() or 1) else {}


def _gpus(device: str | None) -> DeviceRequest:
    """All GPUs of the machine, or the one that a container shall see."""
    devices = gpus_of_engine(device)
    which = {"count": -1} if devices is None else {"device_ids": list(devices)}
    return DeviceRequest(capabilities=[["gpu"]], **which)


def connect() -> DockerClient:
    """A connection to the Docker engine.

    Raises:
        RuntimeUnavailableError: no engine answers, or the person may not use it.
    """
    try:
        client = from_env()
        client.ping()
    except SDK_ERRORS as error:
        if "PermissionError" in str(error) or "Permission denied" in str(error):
            raise RuntimeUnavailableError(
                "no permission to use the Docker engine: add yourself to the group docker "
                "(sudo usermod -aG docker $USER) and log in again, or use --runtime local"
            ) from None
        reason = "it is not running here" if "FileNotFoundError" in str(error) else _reason(error)
        raise RuntimeUnavailableError(
            f"no Docker engine responds ({reason}): start it, or use --runtime local"
        ) from None
    return client


def gives_gpus(client: DockerClient) -> bool:
    """Whether the engine can hand NVIDIA GPUs to containers: by NVIDIA's runtime, or by devices that it has listed."""
    try:
        about = client.info()
    except SDK_ERRORS:
        return False
    devices = about.get("DiscoveredDevices") or ()
    return "nvidia" in about.get("Runtimes", {}) or any("nvidia" in str(device.get("ID")) for device in devices)


def holds_image(image: str) -> bool:
    """Whether an engine answers and holds ``image``."""
    try:
        connect().images.get(image)
    except (RuntimeUnavailableError, *SDK_ERRORS):
        return False
    return True


def _pull_progress(events: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each layer of an image that has come, from the events of the Docker engine.

    Raises:
        DockerException: the pull failed on the way, which the engine tells as an event.
    """
    layers: set[str] = set()
    finished: set[str] = set()
    for event in events:
        if "error" in event:
            raise DockerException(event["error"])
        layer, status = event.get("id", ""), event.get("status")
        if status in {"Pulling fs layer", "Already exists", "Pull complete"}:
            layers.add(layer)
        if status in {"Already exists", "Pull complete"} and layer not in finished:
            finished.add(layer)
            yield f"  {len(finished)} of {len(layers)} layers"


def start_error(error: Exception, image: str, program: str) -> SearchError:
    """What the person has to know of a container that could not be made or started."""
    text = str(error)
    if "could not select device driver" in text or "nvidia" in text.lower():
        return RuntimeUnavailableError(
            "Docker containers cannot use the GPU: install the NVIDIA Container Toolkit, or use --no-gpu"
        )
    if "executable file not found" in text:
        return _no_command(image, program)
    return RuntimeUnavailableError(f"cannot start a container of {image}: {_reason(error)}")


def _no_command(image: str, program: str) -> RuntimeUnavailableError:
    if program == "mpirun":  # whose own exit code is that of its processes
        return RuntimeUnavailableError(
            f"the image {image} has no command mpirun, needed for --num-procs above 1, or no command rmldnn: "
            "try it with --num-procs 1"
        )
    return RuntimeUnavailableError(f"the image {image} has no command {program}: it is not an rmldnn image")


def _reason(error: Exception) -> str:
    """The last clause of a message that wraps the messages of several libraries."""
    explanation = getattr(error, "explanation", None)
    text = explanation if isinstance(explanation, str) else str(error)
    return " ".join(text.split())[-160:].strip(" .'\")(")
