"""Which GPUs this machine has."""

from __future__ import annotations

import shutil
import subprocess

from rml_search.errors import RuntimeUnavailableError


def find_gpus() -> tuple[str, ...]:
    """The names of this machine's NVIDIA GPUs, as their driver tells them; empty where there are none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        # A driver that does not match its kernel module: as good as none.
        return ()
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def decide_gpu(asked_for: bool | None, gpus: tuple[str, ...]) -> bool:
    """Whether to use the GPU: as asked, else where there is one.

    Raises:
        RuntimeUnavailableError: a GPU was asked for and there is none.
    """
    if asked_for and not gpus:
        raise RuntimeUnavailableError("--gpu was given, but nvidia-smi finds no GPU here: leave it out to use the CPU")
    return bool(gpus) if asked_for is None else asked_for
