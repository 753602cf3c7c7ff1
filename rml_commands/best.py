"""The best trial of a search, from the folder or from the storage that drivers share."""

from __future__ import annotations

from rml_search.best_output import best_text
from rml_search.folder import is_folder_of
from rml_search.options import BestFormat, SharedChoice
from rml_search.paths import Workspace
from rml_search.results import read_list_acc


def describe_best(best_format: BestFormat, workspace: Workspace, shared: SharedChoice | None) -> str:
    """The best trial in a format.

    Raises:
        NoResultsError: there is no search, or a program is to read it and no trial has reached an accuracy.
        OptionError, StudyError: the shared storage cannot be read.
    """
    if shared is None:
        by_validation = workspace.validation.exists()
        return best_text(best_format, read_list_acc(workspace), workspace, by_validation=by_validation)
    from rml_shared.records import read_shared_records

    study = read_shared_records(shared)
    is_of_folder = study.identity is not None and is_folder_of(workspace, study.identity)
    return best_text(
        best_format, study.records, workspace, by_validation=study.by_validation, is_of_folder=is_of_folder
    )
