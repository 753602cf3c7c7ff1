"""Failures of a trial that have nothing to do with its hyperparameters: every other trial would end alike."""

from __future__ import annotations

from rml_search.errors import EngineFailedError
from rml_search.options import SearchOptions
from rml_search.paths import Workspace, shown
from rml_search.results import TrialResult
from rml_search.search_space import SEED
from rml_search.trial_config import network_index
from rmldnn_contract.exit_status import ExitStatus

#: Failures of files and shapes, which a search of networks or transforms may have caused itself.
_OF_WHAT_MAY_BE_SEARCHED = frozenset({ExitStatus.DATA, ExitStatus.NETWORK, ExitStatus.CHECKPOINT})

#: Sections of the configuration that decide on no file and on no shape.
_WITHOUT_FILES = frozenset({"optimizer", "loss", SEED})


def every_trial_would_fail(result: TrialResult, options: SearchOptions) -> bool:
    """Whether a trial has failed for a reason that nothing in the search space could change."""
    status = result.exit_status
    if status is None or status.depends_on_hyperparameters:
        return False
    sections = {dimension.path.split(".")[0] for dimension in options.space.others}
    if status is ExitStatus.CONFIGURATION:
        return sections <= {SEED}
    if status is ExitStatus.CHECKPOINT:  # it fits a network or not, whatever the data
        sections -= {"data"}
    return status not in _OF_WHAT_MAY_BE_SEARCHED or sections <= _WITHOUT_FILES


def shared_failure(result: TrialResult, options: SearchOptions, workspace: Workspace) -> EngineFailedError:
    """What ends a search after such a trial: the engine's line, with the person's own file names and what to check."""
    reason = result.reason or "for an unknown reason"
    index = network_index(options, result.hyperparameters)
    advice = ""
    if result.exit_status is ExitStatus.NETWORK:
        if index < len(options.layers):  # trials have a copy of it, in another place
            reason = reason.replace(workspace.locate(workspace.trial_layers(index)), shown(options.layers[index]))
        advice = f": check {' and '.join(_what_to_check(options, index))}"
    code = 1 if result.exit_status is None else int(result.exit_status)
    return EngineFailedError(f"trial {result.number} failed, as every trial would: {reason}{advice}", code)


def _what_to_check(options: SearchOptions, index: int) -> list[str]:
    """What decides whether a network fits the images, as the person has given it."""
    found = []
    if options.image_size is not None:
        found.append("--image-size {} {}".format(*options.image_size))
    if index < len(options.layers):
        found.append(f"--layers {shown(options.layers[index])}")
    if options.base is not None and len(found) < 2:
        found.append(f"--config {shown(options.base.path)}")
    return found
