"""How much memory is left, in files as proc(5) and the kernel's documentation of cgroup v2 describe them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rmldnn_torch import memory

MACHINE = {"/proc/meminfo": "MemTotal:        9000 kB\nMemAvailable:    5000 kB\n"}
JOB = {
    "/proc/self/cgroup": "0::/slurm/job_7/step_0\n",
    "/sys/fs/cgroup/slurm/job_7/step_0/memory.max": "max\n",
    "/sys/fs/cgroup/slurm/job_7/step_0/memory.current": "1000\n",
    "/sys/fs/cgroup/slurm/job_7/memory.max": "8000\n",
    "/sys/fs/cgroup/slurm/job_7/memory.current": "7000\n",
    "/sys/fs/cgroup/slurm/job_7/memory.stat": "anon 5000\nfile 2000\ninactive_file 1500\nactive_file 400\n",
}


@pytest.mark.parametrize(
    ("files", "available"),
    [
        (MACHINE, 5000 * 1024),
        ({**MACHINE, **JOB}, 8000 - 7000 + 1900),
        (JOB, 8000 - 7000 + 1900),
        ({**JOB, "/sys/fs/cgroup/slurm/job_7/memory.max": "max\n"}, sys.maxsize),
        ({**MACHINE, "/proc/self/cgroup": "4:memory:/old\n0::/\n", "/sys/fs/cgroup/memory.max": "9\n"}, 5000 * 1024),
        ({}, sys.maxsize),
    ],
)
def test_the_tightest_limit_counts(monkeypatch: pytest.MonkeyPatch, files: dict[str, str], available: int) -> None:
    def read(path: Path) -> str:
        return files.get(str(path), "")

    monkeypatch.setattr(memory, "_read", read)
    assert memory.available_memory() == available


def test_this_machine_has_some_memory_left() -> None:
    assert 2**20 < memory.available_memory() < 2**50
