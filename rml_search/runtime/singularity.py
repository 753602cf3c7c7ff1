"""The engine in a Singularity or Apptainer image."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rml_search.allotment import visible_gpus
from rml_search.errors import OptionError, RuntimeUnavailableError
from rml_search.paths import Workspace
from rml_search.runtime.base import CONTAINER_DIRECTORY, EngineRun, RunningEngine, engine_command
from rml_search.runtime.process import start_process

_PROGRAMS = ("apptainer", "singularity")


class SingularityRuntime:
    """Starts ``apptainer exec`` (or ``singularity exec``) for each trial."""

    name = "singularity"
    in_container = True

    def __init__(self, workspace: Workspace, image: str, *, gpu: bool) -> None:
        self._workspace = workspace
        self._image = image
        self._gpu = gpu

    def describe(self) -> str:
        """``singularity (image IMAGE)``."""
        return f"singularity (image {self._image})"

    def prepare(self, _show: Callable[[str], None]) -> None:
        """Raises RuntimeUnavailableError unless the program and the image are there."""
        if find_program() is None:
            raise RuntimeUnavailableError(
                "neither apptainer nor singularity is installed: install one, or use --docker-image or --runtime local"
            )
        self.check_image()

    def check_image(self) -> None:
        """Raises RuntimeUnavailableError unless the image is there, or one that a registry has."""
        if not _is_remote(self._image) and not Path(self._image).exists():
            raise RuntimeUnavailableError(
                f"there is no Singularity image {self._image}: build or pull it first, "
                "as in apptainer build rmldnn.sif docker-daemon:rmldnn-torch:latest"
            )

    def remove_leftovers(self, _is_gone: Callable[[str], bool] = lambda _: True, /) -> None:
        """Nothing is left: an engine ends when nobody reads its output any more."""

    def start(self, run: EngineRun) -> AbstractContextManager[RunningEngine]:
        """Starts the engine with the working directory at /home/ubuntu."""
        command = singularity_command(find_program() or _PROGRAMS[0], self._image, self._workspace, run, gpu=self._gpu)
        # The image inherits the environment of the person, so our settings reach it as they are.
        return start_process(command, self._workspace.root, run.process_environment(gpu=self._gpu))


def singularity_command(program: str, image: str, workspace: Workspace, run: EngineRun, *, gpu: bool) -> list[str]:
    """The whole command line.

    Raises:
        OptionError: a path holds a colon or comma, which ``--bind`` takes for its own.
    """
    binds = [(str(workspace.root), CONTAINER_DIRECTORY, "")]
    binds += [(str(mount.source), mount.target, ":ro") for mount in run.mounts]
    command = [program, "exec", *(["--nv"] if gpu else [])]
    for source, target, mode in binds:
        if re.search("[:,]", source):
            raise OptionError(f"Singularity cannot bind {source}: rename it, without colons and commas")
        command += ["--bind", f"{source}:{target}{mode}"]
    if not _is_remote(image):
        image = str(Path(image).resolve())
    return [
        *command,
        "--pwd",
        CONTAINER_DIRECTORY,
        image,
        *engine_command(run, gpu=gpu, devices=visible_gpus(run.num_procs)),
    ]


def find_program() -> str | None:
    """The program that runs Singularity images here, if there is one."""
    return next((program for program in map(shutil.which, _PROGRAMS) if program), None)


def _is_remote(image: str) -> bool:
    return "://" in image
