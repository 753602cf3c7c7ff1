"""What a job of the cluster does: it runs a driver of the search, and goes on after a time limit.

An object of this class travels to the job whole, class and all, since a driver in a checkout that is not installed
could not be imported there. So this module imports nothing of the project.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission


class Worker:
    """Runs a command to its end; called by submitit in the job.

    Before the time is over Slurm sends a signal, of which submitit makes a call of :meth:`checkpoint` and a requeued
    job. It reaches the driver and its engines too, which ignore it.
    """

    def __init__(self, command: Sequence[str], needed_variables: Sequence[str] = ()) -> None:
        self.command = list(command)
        self.needed_variables = list(needed_variables)
        self._driver: subprocess.Popen[bytes] | None = None

    def __call__(self) -> int:
        """Runs the command, whose output becomes the job's; its exit code."""
        job = JobEnvironment()
        for name in self.needed_variables:
            if name not in os.environ:  # without it the driver would begin a search of its own
                sys.stdout.write(f"Error: the job has no variable {name}: let sbatch pass on the environment\n")
                return 2
        job.paths.result_pickle.unlink(missing_ok=True)  # of an earlier run of the same job
        environment = dict(os.environ)
        cores = environment.get("SLURM_CPUS_PER_TASK")
        if cores is not None:  # a cluster that does not bind jobs to cores shows them all
            environment.setdefault("OMP_NUM_THREADS", cores)
        number = signal.Signals[f"SIG{job.USR_SIG}"]
        # Ignored while the driver is started, since what is ignored stays so in a child and in all its children.
        handler = signal.signal(number, signal.SIG_IGN)
        try:
            self._driver = subprocess.Popen(self.command, env=environment, stdin=subprocess.DEVNULL)
        finally:
            signal.signal(number, handler)
        return self._driver.wait()

    def checkpoint(self) -> DelayedSubmission:
        """Ends the driver, which puts its running trials first in line; the same command is what goes on."""
        if self._driver is not None:
            self._driver.terminate()
            # Not wait(): this interrupts one, which holds a lock, or comes when that has ended.
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self._driver.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Worker(self.command, self.needed_variables))
