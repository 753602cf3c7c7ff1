"""Errors that a person can mend: one line that says what is wrong and what to do, and an exit code."""

from __future__ import annotations


class SearchError(Exception):
    """An error that ends the program with a message and without a traceback."""

    exit_code: int = 1


class OptionError(SearchError):
    """An option is missing or has an invalid value."""

    exit_code = 2


class AllTrialsFailedError(SearchError):
    """The search stopped because too many trials failed."""

    exit_code = 3


class DataSetError(SearchError):
    """Images or masks are missing, unreadable, not paired, or cannot be written."""

    exit_code = 65


class NetworkFileError(SearchError):
    """The network file is missing or is not a Keras network."""

    exit_code = 66


class CheckpointFileError(SearchError):
    """The checkpoint to start from, or the best model, is missing."""

    exit_code = 67


class RuntimeUnavailableError(SearchError):
    """Docker, Singularity, the built-in engine, an image or a GPU is not available."""

    exit_code = 69


class WriteError(SearchError):
    """A result could not be written: the disk is full or the folder is not writable."""

    exit_code = 73


class NoResultsError(SearchError):
    """There are no search results to show."""

    exit_code = 4


class WorkspaceInUseError(SearchError):
    """Another search is running in the same folder."""

    exit_code = 5


class StudyError(SearchError):
    """The study in this folder belongs to another search or cannot be used."""

    exit_code = 6


class EngineFailedError(SearchError):
    """A run of the engine ended with an error; the exit code is the engine's where it is one of ours."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
