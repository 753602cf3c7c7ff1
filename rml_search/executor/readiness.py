"""What can be said of the workers' runtime before they are submitted, on a machine that may have no GPU."""

from __future__ import annotations

from rml_search.executor.options import SlurmOptions
from rml_search.links import check_links
from rml_search.options import RuntimeChoice, SearchOptions
from rml_search.paths import Workspace
from rml_search.runtime.choice import ReadyRuntime, choose_runtime
from rml_search.runtime.local import LocalRuntime
from rml_search.runtime.singularity import SingularityRuntime
from rml_search.study_settings import data_places


def ready_for_workers(
    options: SearchOptions, workspace: Workspace, choice: RuntimeChoice, slurm: SlurmOptions
) -> ReadyRuntime:
    """The runtime that the workers are going to choose.

    The built-in engine and an image file lie where the workers see them too, so these are checked. Whether Docker,
    Apptainer or a GPU is there can be seen only where the workers run.

    Raises:
        RuntimeUnavailableError: the engine or the image is missing.
        DataSetError: a container will not see all images.
    """
    chosen = choose_runtime(choice, workspace, gpu=False, num_procs=options.num_procs)
    if isinstance(chosen.runtime, LocalRuntime):
        chosen.runtime.check_engine()
    if isinstance(chosen.runtime, SingularityRuntime):
        chosen.runtime.check_image()
    if chosen.runtime.in_container:
        check_links((place for place in data_places(options) if place.is_dir()), workspace)
    if choice.gpu is False:
        device = "CPU (--no-gpu)"
    else:
        device = "chosen by each worker" if slurm.gpus is None else f"GPUs of each worker: {slurm.gpus}"
    return ReadyRuntime(chosen.runtime, chosen.reason, device)
