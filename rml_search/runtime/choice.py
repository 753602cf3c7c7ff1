"""Which runtime a search uses, and why."""

from __future__ import annotations

from dataclasses import dataclass

from rml_search.options import DEFAULT_DOCKER_IMAGE, RuntimeChoice, RuntimeName
from rml_search.paths import Workspace
from rml_search.runtime.base import Runtime


@dataclass(frozen=True)
class ChosenRuntime:
    """A runtime and the reason for it."""

    runtime: Runtime
    reason: str


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
        return RuntimeName.DOCKER, f"a Docker engine here holds {DEFAULT_DOCKER_IMAGE}"
    return RuntimeName.LOCAL, f"no Docker engine here holds {DEFAULT_DOCKER_IMAGE}"
