"""How far a search has come that runs elsewhere, in this folder or on a storage that drivers share.

Nothing is written, and nobody waits.
"""

from __future__ import annotations

import optuna

from rml_search.errors import NoResultsError
from rml_search.options import SharedChoice
from rml_search.paths import Workspace, shown
from rml_search.progress import Progress
from rml_shared.records import study_to_read
from rml_study.progress import study_progress
from rml_study.storage import CONFIRMATION, STUDY_NAME, database_errors, snapshot


def folder_progress(workspace: Workspace) -> Progress:
    """The search in a working directory.

    Raises:
        NoResultsError: there is none.
        StudyError: its study cannot be read.
    """
    path = workspace.study_database
    if not path.is_file():
        if workspace.shared_journal.is_file():  # of the jobs of a cluster
            return storage_progress(SharedChoice(shown(workspace.shared_journal)))
        where = ": its study is elsewhere; give it with --storage" if workspace.study_mark.is_file() else ""
        raise NoResultsError(f"there is no {shown(path)}{where or ', so no search has been started in this folder'}")
    with database_errors(workspace), snapshot(path) as storage:
        names = [study.study_name for study in storage.get_all_studies()]
        again = [name for name in names if name.startswith(CONFIRMATION)]
        own = [name for name in names if name not in again]
        if not own:
            raise NoResultsError(f"{shown(path)} contains no study: no search has been started in this folder")
        study = optuna.load_study(study_name=STUDY_NAME if STUDY_NAME in own else own[0], storage=storage)
        part = None
        if again:
            runs = optuna.load_study(study_name=again[-1], storage=storage)
            part = study_progress(runs, workspace.part(again[-1]))
        return study_progress(study, workspace, part)


def storage_progress(shared: SharedChoice) -> Progress:
    """The search that several drivers share.

    Raises:
        NoResultsError: there is none of that name.
        OptionError: the address is none.
        StudyError: the storage cannot be read.
    """
    with study_to_read(shared) as study:
        return study_progress(study)
