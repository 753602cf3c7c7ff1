"""The built-in engine as a process of its own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rml_search.allotment import visible_gpus
from rml_search.errors import RuntimeUnavailableError
from rml_search.paths import Workspace
from rml_search.runtime.base import EngineRun, RunningEngine, engine_command
from rml_search.runtime.process import start_process
from rml_search.runtime.warm_engine import Workplace

# A person's folder may hold a random.py or json.py, which "python -m" would import in the place of Python's own.
# ("-P" does the same from Python 3.11 on, but finds no engine in a checkout that is not installed.)
_WITHOUT_THE_CURRENT_FOLDER = "import sys\nsys.path[:] = [entry for entry in sys.path if entry]\n"
_RUN_MODULE = f"""{_WITHOUT_THE_CURRENT_FOLDER}
folder, module = sys.argv[1:3]
del sys.argv[1:3]
if folder not in sys.path:
    sys.path.insert(0, folder)
import runpy
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
_TORCH_SEES_A_GPU = f"{_WITHOUT_THE_CURRENT_FOLDER}import torch\nsys.exit(not torch.cuda.is_available())\n"


class LocalRuntime:
    """Starts the module ``rmldnn_torch`` with the Python that runs the search."""

    name = "local"
    in_container = False

    def __init__(self, workspace: Workspace, *, gpu: bool, num_procs: int = 1) -> None:
        self.root = workspace.root
        self.uses_gpu = gpu
        self._num_procs = num_procs

    def describe(self) -> str:
        """``local (built-in engine)``."""
        return "local (built-in engine)"

    def prepare(self, _show: Callable[[str], None]) -> None:
        """Raises RuntimeUnavailableError without PyTorch, or without mpirun for several processes."""
        self.check_engine()
        if self.uses_gpu and not _torch_sees_a_gpu():
            raise RuntimeUnavailableError(
                "PyTorch does not see the GPU of this machine: install its CUDA build, or use --no-gpu"
            )
        if self._num_procs > 1 and shutil.which("mpirun") is None:
            raise RuntimeUnavailableError("--num-procs above 1 needs mpirun: install Open MPI (openmpi-bin)")

    def check_engine(self) -> None:
        """Raises RuntimeUnavailableError without PyTorch."""
        if not engine_is_installed():
            raise RuntimeUnavailableError(
                "the built-in engine needs PyTorch: install this project with the extra, "
                "pip install '.[engine]', or use a container with --docker-image or --singularity-image"
            )

    def remove_leftovers(self, _is_gone: Callable[[str], bool] = lambda _: True, /) -> None:
        """Nothing is left: an engine ends when nobody reads its output any more."""

    def start(self, run: EngineRun) -> AbstractContextManager[RunningEngine]:
        """Starts the engine in the working directory."""
        command = engine_command(
            run, gpu=self.uses_gpu, program=engine_module("rmldnn_torch"), devices=visible_gpus(run.num_procs)
        )
        return start_process(command, self.root, self.environment(run))

    def workplace(self, *, in_process: bool) -> Workplace:
        """Where workers are made that outlive a trial."""
        from rml_search.runtime.local_worker import LocalWorkplace

        return LocalWorkplace(self, in_process=in_process)

    def environment(self, run: EngineRun) -> dict[str, str]:
        """The variables that an engine gets beside those of the search itself."""
        return run.process_environment(gpu=self.uses_gpu)


def engine_module(module: str) -> tuple[str, ...]:
    """The start of a command that runs a module of the engine that this driver came with, in whatever folder.

    Raises:
        RuntimeUnavailableError: the engine is not there.
    """
    package = importlib.util.find_spec("rmldnn_torch")
    if package is None or package.origin is None:
        raise RuntimeUnavailableError("the built-in engine is not installed: pip install '.[engine]'")
    return (sys.executable, "-u", "-c", _RUN_MODULE, str(Path(package.origin).parents[1]), module)


def _torch_sees_a_gpu() -> bool:
    question = [sys.executable, "-c", _TORCH_SEES_A_GPU]
    return subprocess.run(question, capture_output=True, check=False).returncode == 0


def engine_is_installed() -> bool:
    """Whether PyTorch and the engine can be imported; importing them would take seconds."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "rmldnn_torch"))
