"""Looks for each thing that a search needs, and says what to do where one is missing."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rml_search.dataset import check_data_set
from rml_search.devices import find_gpus
from rml_search.errors import SearchError
from rml_search.network_file import check_network_file
from rml_search.options import DEFAULT_DOCKER_IMAGE
from rml_search.paths import Workspace

#: A checkpoint of the tutorial's network with Adam's state is 0.4 GB, and a trial holds a few of them.
_LITTLE_DISK = 5 * 10**9

#: What ``make image`` builds.
OUR_IMAGE = "rmldnn-torch:latest"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for; ``advice`` is None where nothing needs to be done."""

    name: str
    is_there: bool
    detail: str
    advice: str | None = None


def examine(workspace: Workspace, data: Path, layers: Path, docker_image: str | None) -> list[Finding]:
    """Looks at this machine and at the folder of a search; changes nothing."""
    return [
        Finding("Python", True, platform.python_version()),
        _built_in_engine(),
        *_docker([docker_image] if docker_image else [DEFAULT_DOCKER_IMAGE, OUR_IMAGE]),
        _singularity(),
        _gpus(),
        _disk(workspace),
        _checked("Data", lambda: _describe_data(data)),
        _checked("Network", lambda: _describe_network(layers)),
    ]


def _checked(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, look())
    except SearchError as error:
        return Finding(name, False, str(error))


def _built_in_engine() -> Finding:
    from importlib.metadata import version

    from rml_search.runtime.local import engine_is_installed

    if engine_is_installed():
        return Finding("Built-in engine", True, f"PyTorch {version('torch')}")
    return Finding("Built-in engine", False, "PyTorch is not installed", "pip install '.[engine]', or use a container")


def _docker(images: Sequence[str]) -> list[Finding]:
    from rml_search.runtime.docker import connect, holds_image

    try:
        version = connect().version()["Version"]
    except SearchError as error:
        return [Finding("Docker", False, str(error))]
    return [
        Finding("Docker", True, f"engine {version}"),
        *(_docker_image(image, holds_image(image)) for image in images),
    ]


def _docker_image(image: str, is_there: bool) -> Finding:
    if is_there:
        return Finding("Docker image", True, image)
    advice = "make image builds it" if image == OUR_IMAGE else None
    return Finding("Docker image", False, f"{image} is not on this machine", advice)


def _singularity() -> Finding:
    from rml_search.runtime.singularity import find_program

    program = find_program()
    if program is not None:
        return Finding("Singularity", True, program)
    return Finding(
        "Singularity", False, "neither apptainer nor singularity is installed", "only for clusters that use it"
    )


def _gpus() -> Finding:
    gpus = find_gpus()
    if gpus:
        return Finding("GPU", True, ", ".join(gpus))
    return Finding("GPU", False, "nvidia-smi finds none", "searches run on the CPU, with a small network")


def _disk(workspace: Workspace) -> Finding:
    free = shutil.disk_usage(workspace.root).free
    detail = f"{free / 1e9:.1f} GB free in {workspace.root}"
    if free > _LITTLE_DISK:
        return Finding("Disk", True, detail)
    return Finding("Disk", False, detail, f"free some: {_LITTLE_DISK / 1e9:.0f} GB are safe for large networks")


def _describe_data(data: Path) -> str:
    summary = check_data_set(data)
    return f"{data}: train {summary.train}; test {summary.test}"


def _describe_network(layers: Path) -> str:
    channels = check_network_file(layers).input_channels
    return f"{layers}" if channels is None else f"{layers}: images of {channels} channel{'s' if channels > 1 else ''}"
