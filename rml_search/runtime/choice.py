"""Which runtime a search uses, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rml_search.devices import decide_gpu, find_gpus
from rml_search.options import DEFAULT_DOCKER_IMAGE, RuntimeChoice, RuntimeName
from rml_search.paths import Workspace
from rml_search.runtime.base import Runtime


@dataclass(frozen=True)
class ChosenRuntime:
    """A runtime and the reason for it."""

    runtime: Runtime
    reason: str


@dataclass(frozen=True)
class ReadyRuntime(ChosenRuntime):
    """A runtime that can start an engine; ``device`` says what that computes on, and why.

    ``num_gpus`` is how many GPUs it may use, 0 on the CPU.
    """

    device: str
    num_gpus: int = 0


def prepare_runtime(
    choice: RuntimeChoice, workspace: Workspace, gpu: bool | None, num_procs: int, show: Callable[[str], None]
) -> ReadyRuntime:
    """The runtime asked for, ready to start; ``gpu`` is None where the person left it open.

    Raises:
        RuntimeUnavailableError: the runtime, its image or the GPU is not to be had.
    """
    gpus = find_gpus() if gpu is not False else ()
    use_gpu = decide_gpu(gpu, gpus)
    chosen = choose_runtime(choice, workspace, gpu=use_gpu, num_procs=num_procs)
    chosen.runtime.prepare(show)
    on_cpu = "CPU (--no-gpu)" if gpu is False else "CPU, because nvidia-smi finds no GPU"
    return ReadyRuntime(
        chosen.runtime, chosen.reason, ", ".join(gpus) if use_gpu else on_cpu, len(gpus) if use_gpu else 0
    )


def choose_runtime(choice: RuntimeChoice, workspace: Workspace, *, gpu: bool, num_procs: int) -> ChosenRuntime:
    """The runtime asked for; with ``auto``, what an image that was named, or the machine, decides."""
    name, reason = _decide(choice)
    if name is RuntimeName.DOCKER:
        from rml_search.runtime.docker import DockerRuntime

        return ChosenRuntime(DockerRuntime(workspace, choice.docker_image or DEFAULT_DOCKER_IMAGE, gpu=gpu), reason)
    if name is RuntimeName.SINGULARITY:
        from rml_search.runtime.singularity import SingularityRuntime

        return ChosenRuntime(SingularityRuntime(workspace, choice.singularity_image or "", gpu=gpu), reason)
    from rml_search.runtime.local import LocalRuntime

    return ChosenRuntime(LocalRuntime(workspace, gpu=gpu, num_procs=num_procs), reason)


def _decide(choice: RuntimeChoice) -> tuple[RuntimeName, str]:
    if choice.name is not RuntimeName.AUTO:
        return choice.name, f"--runtime {choice.name.value}"
    if choice.docker_image is not None:
        return RuntimeName.DOCKER, "--docker-image was given"
    if choice.singularity_image is not None:
        return RuntimeName.SINGULARITY, "--singularity-image was given"
    from rml_search.runtime.docker import holds_image

    if holds_image(DEFAULT_DOCKER_IMAGE):
        return RuntimeName.DOCKER, f"Docker has the image {DEFAULT_DOCKER_IMAGE}"
    return RuntimeName.LOCAL, f"no Docker engine has the image {DEFAULT_DOCKER_IMAGE}"
