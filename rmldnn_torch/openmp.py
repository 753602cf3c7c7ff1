"""A setting of OpenMP's threads that lets a training share its cores."""

from __future__ import annotations

import os

_SPINS = "2000"


def wait_briefly() -> None:
    """Lets threads that have nothing to do sleep after some microseconds; to be called before torch is imported.

    As it comes, GNU's OpenMP spins for about a millisecond at the end of each parallel loop, which is faster while
    nothing else wants the core. Where something does, one spinning thread keeps another from its work: two trainings
    on the same two cores went at a tenth of their speed each, and go at a third with this setting; alone it costs 2 %.
    An environment that says how to wait (OMP_WAIT_POLICY, GOMP_SPINCOUNT) is left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
