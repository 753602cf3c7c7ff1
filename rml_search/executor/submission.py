"""Which job array works on the search of a folder, as a file beside its results remembers it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rml_search.paths import Workspace
from rml_search.whole_files import write_atomically


@dataclass(frozen=True)
class JobArray:
    """A job array: Slurm's number for it, how many workers it has, and the folder of their logs."""

    job_id: str
    num_workers: int
    folder: Path

    def name_of(self, index: int) -> str:
        """Slurm's name of a worker: a single one is a job of its own."""
        return self.job_id if self.num_workers == 1 else f"{self.job_id}_{index}"


def remember(array: JobArray, workspace: Workspace) -> None:
    """Writes down which array works on the search in this folder."""
    document = {"job_id": array.job_id, "num_workers": array.num_workers}
    write_atomically(workspace.cluster_submission, json.dumps(document) + "\n")


def recall(workspace: Workspace) -> JobArray | None:
    """The array that was submitted last and that nobody has followed to its end; None where there is none."""
    try:
        document = json.loads(workspace.cluster_submission.read_text(encoding="utf-8"))
        return JobArray(str(document["job_id"]), int(document["num_workers"]), workspace.cluster_jobs)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def forget(workspace: Workspace) -> None:
    """To be called when an array has ended and the person knows how."""
    workspace.cluster_submission.unlink(missing_ok=True)
