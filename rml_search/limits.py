"""When trials, and the search, are ended before their time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rml_search.errors import OptionError


@dataclass(frozen=True)
class Limits:
    """Times are in seconds; None is no limit.

    Attributes:
        search_seconds: the search ends, and its running trials with it; the same command goes on.
        trial_seconds: a trial ends with the accuracy that it has by then.
        stall_seconds: a trial that prints nothing for so long has failed.
        target_accuracy: the search ends after a trial that reaches it.
        max_consecutive_failures: so many trials that fail one after the other end the search.
        retries: how often hyperparameters are tried again after a failure of the machine.
    """

    search_seconds: float | None = None
    trial_seconds: float | None = None
    stall_seconds: float | None = None
    target_accuracy: float | None = None
    max_consecutive_failures: int = 3
    retries: int = 1

    def __post_init__(self) -> None:
        for option, seconds in (
            ("--timeout", self.search_seconds),
            ("--trial-timeout", self.trial_seconds),
            ("--stall-timeout", self.stall_seconds),
        ):
            if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
                raise OptionError(f"{option} must be a positive number of seconds, not {seconds:g}")
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise OptionError(f"--target-accuracy must be above 0 and at most 1, not {self.target_accuracy:g}")
        if self.max_consecutive_failures < 1:
            raise OptionError(f"--max-consecutive-failures must be at least 1, not {self.max_consecutive_failures}")
        if self.retries < 0:
            raise OptionError(f"--retries must be at least 0, not {self.retries}")
