"""Who is told what happens in a search, while it happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from rml_search.hyperparameters import Hyperparameters
from rml_search.progress import RunningTrial
from rml_search.results import TrialRecord, TrialResult
from rmldnn_contract.training_log import EpochRecord


class SearchObserver(Protocol):
    """Something that shows or stores the course of a search."""

    def trial_started(self, number: int, place: int, hyperparameters: Hyperparameters) -> None:
        """A trial begins, as the ``place``-th (from 1) of those that count."""

    def trials_advanced(self, shares: Mapping[int, float]) -> None:
        """How much of the training of each running trial, by number, is done by now, 0 to 1: a few times a second."""

    def epoch_finished(self, number: int, epoch: EpochRecord) -> None:
        """An epoch of trial ``number`` has been evaluated."""

    def trial_finished(self, result: TrialResult, best: TrialRecord | None) -> None:
        """A trial has ended; ``best`` is the best one so far, this one included."""

    def others_seen(self, records: Sequence[TrialRecord], running: Sequence[RunningTrial]) -> None:
        """Once in a while, where several drivers share a study.

        Args:
            records: of all trials that have ended, whoever ran them.
            running: the trials that other drivers run.
        """

    def note(self, text: str) -> None:
        """Something a person should know."""


class SilentObserver:
    """Shows nothing."""

    def trial_started(self, number: int, place: int, hyperparameters: Hyperparameters) -> None:
        """Nothing, as all that follow."""

    def trials_advanced(self, shares: Mapping[int, float]) -> None:
        """Nothing."""

    def epoch_finished(self, number: int, epoch: EpochRecord) -> None:
        """Nothing."""

    def trial_finished(self, result: TrialResult, best: TrialRecord | None) -> None:
        """Nothing."""

    def others_seen(self, records: Sequence[TrialRecord], running: Sequence[RunningTrial]) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""
