"""Looks for each thing that a search needs, and says what to do where one is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rml_search.dataset import SPLITS, check_split, list_pairs, split_folders
from rml_search.devices import describe_gpus, free_gpu_memory
from rml_search.engine_facts import ask_network, ask_torch
from rml_search.errors import DataSetError, RuntimeUnavailableError, SearchError
from rml_search.mask_values import survey_masks
from rml_search.network_file import check_network_file
from rml_search.options import DEFAULT_DOCKER_IMAGE
from rml_search.paths import Workspace, shown

#: A checkpoint of the tutorial's network with Adam's state is 0.4 GB, and a trial holds a few of them.
_LITTLE_DISK = 5 * 10**9

#: What ``make image`` builds.
OUR_IMAGE = "rmldnn-torch:latest"


@dataclass(frozen=True)
class Plan:
    """The search to look for: files, images of containers, size (width, height) and number of the images of a batch."""

    data: Path
    layers: Path
    docker_image: str | None = None
    singularity_image: str | None = None
    image_size: tuple[int, int] = (256, 256)
    batch_size: int = 32


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        advice: None where nothing needs to be done.
        error: why no search can run; None if one can without this.
        runs: the runtime that this gives to a search, if any.
    """

    name: str
    is_there: bool
    detail: str
    advice: str | None = None
    error: SearchError | None = None
    runs: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and what follows from them: the runtimes that work, and the first obstacle."""

    findings: tuple[Finding, ...]

    @property
    def runtimes(self) -> list[str]:
        """What a search could run on, as options."""
        return [finding.runs for finding in self.findings if finding.runs is not None]

    @property
    def obstacle(self) -> SearchError | None:
        """Why no search can run here; None if one can."""
        if not self.runtimes:
            return RuntimeUnavailableError(
                "no engine found: install the built-in engine (pip install '.[engine]') or get a container image"
            )
        return next((finding.error for finding in self.findings if finding.error is not None), None)


def examine(workspace: Workspace, plan: Plan) -> Diagnosis:
    """Looks at this machine and at the files of a search; changes nothing."""
    engine = _built_in_engine()
    findings = [
        Finding("Python", True, platform.python_version()),
        *_docker([plan.docker_image] if plan.docker_image else [DEFAULT_DOCKER_IMAGE, OUR_IMAGE]),
        _singularity(plan.singularity_image),
        engine,
        _gpus(),
        _memory(),
        _disk(workspace),
        *_data(plan.data),
        _network(plan, has_engine=engine.is_there),
    ]
    return Diagnosis(tuple(findings))


def _built_in_engine() -> Finding:
    from rml_search.runtime.local import engine_is_installed

    if not engine_is_installed():
        advice = "pip install '.[engine]', or use a container"
        return Finding("Built-in engine", False, "PyTorch is not installed", advice)
    try:
        torch = ask_torch()
    except SearchError as error:
        return Finding("Built-in engine", False, str(error), "reinstall PyTorch, or use a container")
    device = f"GPU ({', '.join(torch.gpus)})" if torch.gpus else "CPU"
    detail = f"PyTorch {torch.version}, trains on the {device} in {'bf16' if torch.has_bf16 else 'float32'}"
    unseen = bool(describe_gpus()) and not torch.gpus
    hint = "PyTorch does not see the GPU: install its CUDA build" if unseen else None
    return Finding("Built-in engine", True, detail, hint, runs="--runtime local")


def _docker(images: Sequence[str]) -> list[Finding]:
    from rml_search.runtime.docker import connect, gives_gpus, holds_image

    try:
        client = connect()
        version = client.version()["Version"]
    except SearchError as error:
        return [Finding("Docker", False, str(error))]
    has_gpus = gives_gpus(client)
    needs_runtime = bool(describe_gpus()) and not has_gpus
    return [
        Finding("Docker", True, f"engine {version}, accessible"),
        Finding(
            "NVIDIA runtime",
            has_gpus,
            "containers can use GPUs" if has_gpus else "containers cannot use GPUs",
            "install the NVIDIA Container Toolkit and restart Docker" if needs_runtime else None,
        ),
        *(_docker_image(image, holds_image(image)) for image in images),
    ]


def _docker_image(image: str, is_there: bool) -> Finding:
    if is_there:
        return Finding("Docker image", True, image, runs=f"--docker-image {image}")
    advice = "build it with make image" if image == OUR_IMAGE else f"docker pull {image}"
    return Finding("Docker image", False, f"{image} is not on this machine", advice)


def _singularity(image: str | None) -> Finding:
    from rml_search.runtime.singularity import find_program

    program = find_program()
    if program is None:
        advice = "install apptainer" if image else "only needed on clusters that use it"
        return Finding("Singularity", False, "neither apptainer nor singularity is installed", advice)
    if image is None:
        return Finding("Singularity", True, program, "name an image with --singularity-image to use it")
    if "://" not in image and not Path(image).exists():
        return Finding(
            "Singularity", False, f"{program} is installed, but there is no {image}", "build it; see the documentation"
        )
    return Finding("Singularity", True, f"{program}, {image}", runs=f"--singularity-image {image}")


def _gpus() -> Finding:
    gpus = describe_gpus()
    if gpus:
        return Finding("GPU", True, "; ".join(gpus))
    return Finding("GPU", False, "nvidia-smi finds none", "on the CPU, use a small network and small images")


def _memory() -> Finding:
    num_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding("Memory", True, f"{num_bytes / 1e9:.1f} GB in this machine")


def _disk(workspace: Workspace) -> Finding:
    free = shutil.disk_usage(workspace.root).free
    detail = f"{free / 1e9:.1f} GB free in this folder"
    if free > _LITTLE_DISK:
        return Finding("Disk", True, detail)
    return Finding("Disk", False, detail, f"free some space: {_LITTLE_DISK / 1e9:.0f} GB is enough for large networks")


def _data(data: Path) -> list[Finding]:
    if data.is_dir():
        return [_split(data, split) for split in SPLITS]
    error = DataSetError(f"there is no folder {shown(data)}")
    return [Finding("Data", False, str(error), "give one with --data, or make one: see prepare --help", error)]


def _split(data: Path, split: str) -> Finding:
    name = f"Data, {split}"
    inputs, targets = split_folders(data, split)
    try:
        summary = check_split(inputs, targets)
        survey = survey_masks([mask for _, mask in list_pairs(inputs, targets)])
    except DataSetError as error:
        return Finding(name, False, str(error), error=error)
    advice = "none of the checked masks has a lesion: are these the masks?" if not survey.has_lesions else None
    return Finding(name, True, f"{summary}, each with its mask ({survey})", advice)


def _network(plan: Plan, *, has_engine: bool) -> Finding:
    path = plan.layers
    try:
        channels = check_network_file(path).input_channels
        if not has_engine:
            of_channels = "" if channels is None else f": images of {channels} channel{'s' if channels > 1 else ''}"
            return Finding("Network", True, shown(path) + of_channels)
        facts = ask_network(path, plan.image_size, plan.batch_size)
    except RuntimeUnavailableError as error:
        return Finding("Network", True, f"{shown(path)}, but {error}")
    except SearchError as error:
        return Finding("Network", False, str(error), error=error)
    width, height = plan.image_size
    detail = (
        f"{shown(path)}: {facts.num_operations} operations, {facts.num_parameters:,} parameters; a batch of "
        f"{plan.batch_size} at {width} x {height} needs about {facts.training_bytes / 1e9:.1f} GB (float32, Adam)"
    )
    return Finding("Network", True, detail, _memory_advice(facts.training_bytes))


def _memory_advice(training_bytes: int) -> str | None:
    if describe_gpus():
        owner, has = "is free on any GPU", free_gpu_memory() or training_bytes
    else:
        owner, has = "this machine has", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if training_bytes <= has:
        return None
    return f"more than {owner}: use a smaller --batch-size, --image-size or network"
