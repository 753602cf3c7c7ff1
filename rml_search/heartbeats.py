"""Signs of life between drivers that share a study, and what their absence means.

Optuna's own heartbeats belong to trials and exist in databases alone; a trial whose driver dies before its first one
would stay running for ever. Here drivers beat: what a driver runs is lost when its driver is.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

#: A driver is lost that has not been heard of for so many of its intervals.
GRACE_BEATS = 4

#: The number that a driver which ends by itself leaves behind.
ENDED = -1


@dataclass(frozen=True)
class Beat:
    """The last sign of life of a driver.

    Attributes:
        number: it grows with each one.
        interval: seconds until the next one is due.
    """

    number: int
    interval: float


@dataclass
class Watch:
    """What has been seen of other drivers, by this machine's clock alone: those of others may differ.

    Time in which this driver did not look counts for two of its own intervals at most, since then it may be this one
    that was stopped, or cut off.

    Attributes:
        interval: seconds after which this driver looks again.
        clock: seconds, as ``time.monotonic``.
    """

    interval: float
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)
    _looked: float = -math.inf

    def lost(self, beats: Mapping[str, Beat]) -> set[str]:
        """The drivers that have ended, or have not been heard of for too long."""
        now = self.clock()
        passed = min(now - self._looked, 2 * self.interval) if self._seen else 0.0
        self._looked = now
        for name, beat in beats.items():
            number, silent = self._seen.get(name, (None, 0.0))
            self._seen[name] = (beat.number, silent + passed if number == beat.number else 0.0)
        return {
            name
            for name, beat in beats.items()
            if beat.number == ENDED or self._seen[name][1] > GRACE_BEATS * beat.interval
        }


class Heartbeat:
    """Tells at intervals, in a thread of its own, that this driver is at work.

    Args:
        tell: told the number of each beat, from 1; a beat that it raises an error for is one that was not heard.
        interval: seconds between two beats.
    """

    def __init__(self, tell: Callable[[int], object], interval: float) -> None:
        self._tell = tell
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begins; the first beat follows after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when no further beat will follow."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        number = 0
        while not self._ended.wait(self._interval):
            number += 1
            try:
                self._tell(number)
            except Exception:  # noqa: BLE001, S112 - the search itself tells of a storage that does not answer
                continue
