"""How much of the machine's memory is left, as the kernel tells it (proc(5); its documentation of cgroup v2)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that this process can still get, of the machine and of each group that limits it; very many if unknown."""
    return min((*_of_machine(), *_of_groups()), default=sys.maxsize)


def _of_machine() -> Iterator[int]:
    for kilobytes in re.findall(r"^MemAvailable:\s*(\d+) kB$", _read(Path("/proc/meminfo")), re.MULTILINE):
        yield int(kilobytes) * 1024


def _of_groups() -> Iterator[int]:
    """Of the group of this process and those above it: a container's, or that of a job of a cluster."""
    own = re.search(r"^0::/(.*)$", _read(Path("/proc/self/cgroup")), re.MULTILINE)
    if own is None:
        return
    place = _GROUPS / own[1]
    for group in (place, *place.parents):
        limit, used = (_read(group / name).strip() for name in ("memory.max", "memory.current"))
        if limit.isdecimal() and used.isdecimal():
            # What is kept of files goes as soon as somebody needs the memory.
            files = re.findall(r"^(?:in)?active_file (\d+)$", _read(group / "memory.stat"), re.MULTILINE)
            yield int(limit) - int(used) + sum(map(int, files))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
