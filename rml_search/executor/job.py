"""The job array of one search: finding it at work, and what a person is told of it."""

from __future__ import annotations

from collections.abc import Callable

from rml_search.errors import WorkspaceInUseError
from rml_search.executor.following import failures
from rml_search.executor.slurm import workers_at_work
from rml_search.executor.submission import JobArray, forget, recall
from rml_search.paths import Workspace, shown


def array_at_work(workspace: Workspace, show: Callable[[str], None], *, is_fresh: bool) -> JobArray | None:
    """The array that works on the search in this folder; ``show`` is told of one that has ended and not as it should.

    Raises:
        RuntimeUnavailableError: Slurm does not answer.
        WorkspaceInUseError: there is one, and the person wants to start over.
    """
    array = recall(workspace)
    if array is None:
        return None
    if workers_at_work(array):
        if is_fresh:
            raise WorkspaceInUseError(
                f"job {array.job_id} is working on the search in this folder: cancel it with scancel {array.job_id}, "
                "or leave out --fresh to monitor it"
            )
        show(f"Job {array.job_id} is already working on this search")
        return array
    for failure in failures(array):
        show(f"Worker {failure.index} of job {array.job_id} failed: {failure}")
    forget(workspace)
    return None


def tell_submitted(array: JobArray, show: Callable[[str], None]) -> None:
    """Where the workers are to be found."""
    workers = "1 worker" if array.num_workers == 1 else f"{array.num_workers} workers"
    show(f"Job {array.job_id} submitted: {workers}, logs in {shown(array.folder / array.job_id)}_*_log.out")


def tell_how_to_follow(array: JobArray, show: Callable[[str], None]) -> None:
    """What a person does who has not waited."""
    show(f"To monitor it, run the same command without --no-wait; to cancel it, scancel {array.job_id}")


def tell_that_it_goes_on(array: JobArray, show: Callable[[str], None]) -> None:
    """What a person does who no longer waits."""
    show(f"Job {array.job_id} continues to run. To monitor it, run the same command again;")
    show(f"to cancel it, scancel {array.job_id}. Finished trials are kept.")
