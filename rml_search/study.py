"""What a search asks of a study: which hyperparameters come next, and what has become of those before."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from rml_search.hyperparameters import Hyperparameters
from rml_search.progress import RunningTrial
from rml_search.results import TrialRecord, TrialResult
from rmldnn_contract.training_log import EpochRecord


@dataclass(frozen=True)
class Suggestion:
    """A trial to run.

    Attributes:
        number: of the trial, from 0, in the order in which trials were begun.
        attempt: how often a failure of the machine has ended trials of these hyperparameters before.
    """

    number: int
    hyperparameters: Hyperparameters
    attempt: int = 0


class Study(Protocol):
    """The memory of a search, which outlives the process. Not to be called by several threads at once."""

    def ask(self) -> Suggestion | None:
        """The next trial; None where every point of the search space has been tried."""

    def report(self, number: int, epoch: EpochRecord) -> bool:
        """Takes in an epoch of a running trial; tells whether the trial is so bad that it should end."""

    def keep_up(self) -> None:
        """To be called several times a second: an epoch is stored with others, but not much later than a second."""

    def finish(self, result: TrialResult, checkpoint_sha256: str | None) -> None:
        """Takes in how a trial has ended."""

    def try_again(self, result: TrialResult, attempt: int) -> None:
        """Takes in that a trial has failed, and puts its hyperparameters first in line."""

    def num_running_elsewhere(self) -> int:
        """How many trials other drivers of the same study run, as far as is known."""

    def running_elsewhere(self) -> Sequence[RunningTrial] | None:
        """These trials, to be shown; None where there are no other drivers, or nobody can say just now."""

    def settling(self) -> AbstractContextManager[Sequence[TrialRecord]]:
        """The records to write results of, while no other driver writes them here."""

    def where(self, record: TrialRecord, /) -> str | None:
        """Where the checkpoint of a trial is, in words; None where it should be in the folder of the search."""

    def records(self) -> Sequence[TrialRecord]:
        """All trials that have ended, by number."""
