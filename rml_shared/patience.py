"""Waiting for a storage, or for a place of checkpoints, that does not answer for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import optuna

from rml_search.errors import WriteError
from rml_search.interruption import interruptions_allowed, is_interrupted
from rml_shared.storage import STORAGE_ERRORS, StorageAddress, reason_of

#: How long something may be away that has worked before.
PATIENCE_SECONDS = 300.0
#: The same for a search that a person, or a batch system, wants to end.
PARTING_SECONDS = 10.0
_PAUSE_SECONDS = 1.0

Answer = TypeVar("Answer")


@dataclass
class Patience:
    """Takes steps, again and again while what they need does not answer, but not for ever.

    Attributes:
        address: of the storage.
        models_place: where drivers hand over their checkpoints, if there is such a place.
        show: told when the first answer fails to come, and when the next one has.
        seconds: how long a step is tried again.
    """

    address: StorageAddress
    models_place: str | None
    show: Callable[[str], None]
    seconds: float = PATIENCE_SECONDS
    _is_within_a_step: bool = field(default=False, init=False)

    def take(self, step: Callable[[], Answer]) -> Answer:
        """Takes a step. One within another is not repeated by itself: the turn in which it was taken may be over.

        Raises:
            StorageInternalError: the storage has stayed away.
            WriteError: the place of checkpoints has.
        """
        if self._is_within_a_step:
            return step()
        self._is_within_a_step = True
        try:
            return self._take(step)
        finally:
            self._is_within_a_step = False

    def _take(self, step: Callable[[], Answer]) -> Answer:
        begun = time.monotonic()
        away: str | None = None
        while True:
            try:
                answer = step()
            except (*STORAGE_ERRORS, WriteError) as error:
                if time.monotonic() - begun > self._seconds_now():
                    self.seconds = 0.0  # what is left to do at the end shall not wait once more
                    if isinstance(error, WriteError):
                        raise
                    raise optuna.exceptions.StorageInternalError(str(error)) from error
                if away is None:
                    away, complaint = self._complaint(error)
                    self.show(f"{complaint}: retrying for a while")
                with interruptions_allowed():
                    time.sleep(_PAUSE_SECONDS)
                continue
            if away is not None:
                self.show(f"{away} responds again")
            return answer

    def _seconds_now(self) -> float:
        return min(self.seconds, PARTING_SECONDS) if is_interrupted() else self.seconds

    def _complaint(self, error: Exception) -> tuple[str, str]:
        """What does not answer, and a sentence on it."""
        if isinstance(error, WriteError):
            return self.models_place or "the disk", str(error)
        name = self.address.text
        return name, f"{name} does not respond ({reason_of(error, self.address)})"
