"""A setting of OpenMP's threads that lets a training share its cores."""

from __future__ import annotations

import os

_SPINS = "20000"


def wait_briefly() -> None:
    """Lets threads that have nothing to do sleep after a tenth of a millisecond; call it before torch is imported.

    As it comes, GNU's OpenMP spins for ten times as long at the end of each parallel loop, which is faster while
    nothing else wants the core. Where something does, one spinning thread keeps another from its work: two trainings
    with two threads each on the same two cores went at a tenth of their speed, and go at a sixth with this setting,
    which alone costs 1 %. (Sleeping at once, they go at a third, and alone lose a tenth.) An environment that says how
    to wait (OMP_WAIT_POLICY, GOMP_SPINCOUNT) is left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
