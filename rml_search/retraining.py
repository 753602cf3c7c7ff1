"""How one trial is trained again by hand, and what to do where the files of the best model are damaged."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rml_search.errors import CheckpointFileError, EngineFailedError, NetworkFileError, NoResultsError
from rml_search.network_file import check_network_file
from rml_search.paths import Workspace
from rml_search.results import best_record, read_list_acc
from rml_search.runtime.base import SEED_VARIABLE
from rml_search.search_space import Value
from rmldnn_contract.exit_status import ConfigurationError, ExitStatus

_RESTORE = "run the search's command again, which restores best_model/ or tells how to retrain its trial"


def train_command(config: Path, seed: Value | None) -> str:
    """What trains a trial alone with the built-in engine, into its own folder.

    ``config`` is relative to the folder of the search, in which the command is to be typed.
    """
    variables = [] if seed is None else [f"{SEED_VARIABLE}={shlex.quote(str(seed))}"]
    return " ".join([*variables, "rmldnn", f"--config={shlex.quote(config.as_posix())}"])


def has_brought_a_model(workspace: Workspace) -> bool:
    """Whether a search in this folder has had a best trial, wherever its model is now."""
    try:
        return best_record(read_list_acc(workspace)) is not None
    except NoResultsError:
        return False


@contextmanager
def telling_how_to_restore(document: Path, workspace: Workspace) -> Iterator[None]:
    """Adds to an error in the files of the best model what brings them back; ``document`` is what is run."""
    try:
        yield
    except (ConfigurationError, EngineFailedError) as error:
        if document != workspace.best_config or not _is_damage(error, workspace):
            raise
        if isinstance(error, ConfigurationError):
            raise ConfigurationError(f"{error}: {_RESTORE}") from None
        raise EngineFailedError(f"{error}: {_RESTORE}", error.exit_code) from None


def _is_damage(error: ConfigurationError | EngineFailedError, workspace: Workspace) -> bool:
    """Whether a file of the model is at fault, and not the images or the machine."""
    if isinstance(error, ConfigurationError) or error.exit_code == CheckpointFileError.exit_code:
        return True
    if error.exit_code != ExitStatus.NETWORK:
        return False
    try:
        check_network_file(workspace.best.layers)
    except NetworkFileError:
        return True
    return False
