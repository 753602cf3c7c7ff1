"""The built-in engine as a process of its own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager

from rml_search.errors import RuntimeUnavailableError
from rml_search.paths import Workspace
from rml_search.runtime.base import EngineRun, RunningEngine, engine_command, mpi_environment
from rml_search.runtime.process import start_process


class LocalRuntime:
    """Starts ``python -m rmldnn_torch`` with the Python that runs the search."""

    name = "local"
    in_container = False

    def __init__(self, workspace: Workspace, *, gpu: bool, num_procs: int = 1) -> None:
        self._workspace = workspace
        self._gpu = gpu
        self._num_procs = num_procs

    def describe(self) -> str:
        """``local (built-in engine)``."""
        return "local (built-in engine)"

    def prepare(self) -> None:
        """Raises RuntimeUnavailableError without PyTorch, or without mpirun for several processes."""
        if not engine_is_installed():
            raise RuntimeUnavailableError(
                "the built-in engine needs PyTorch: install this project with its extra, "
                "pip install '.[engine]', or name a container with --docker-image or --singularity-image"
            )
        if self._gpu and not _torch_sees_a_gpu():
            raise RuntimeUnavailableError(
                "PyTorch sees no GPU here, though there is one: install its CUDA build, or use --no-gpu"
            )
        if self._num_procs > 1 and shutil.which("mpirun") is None:
            raise RuntimeUnavailableError("--num-procs above 1 needs mpirun: install Open MPI (openmpi-bin)")

    def remove_leftovers(self) -> None:
        """Nothing is left: an engine ends when nobody reads its output any more."""

    def start(self, run: EngineRun) -> AbstractContextManager[RunningEngine]:
        """Starts the engine in the working directory."""
        command = engine_command(run, gpu=self._gpu, program=(sys.executable, "-u", "-m", "rmldnn_torch"))
        environment = {**run.environment(), **mpi_environment(run.num_procs)}
        if not self._gpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        return start_process(command, self._workspace.root, environment)


def _torch_sees_a_gpu() -> bool:
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question], capture_output=True, check=False).returncode == 0


def engine_is_installed() -> bool:
    """Whether PyTorch and the engine can be imported; importing them would take seconds."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "rmldnn_torch"))
