"""A setting of the C library's allocator that makes training on a CPU a third to a half faster."""

from __future__ import annotations

import ctypes
import os

# From <malloc.h>; mallopt(3) describes them.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_TOP_PAD_BYTES = 256 * 1024**2
_OTHER_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory in the process instead of returning it to the kernel.

    As it comes, glibc maps every large block afresh and unmaps it when it is freed, so each training
    step faults all of its activations in anew, page by page. This is the effect of MALLOC_MMAP_THRESHOLD_,
    MALLOC_TRIM_THRESHOLD_ and MALLOC_TOP_PAD_, which need a second start of the process; ``mallopt`` needs none. The
    memory that the process holds stays at its peak until it ends.

    Returns whether anything was changed: not where the environment says how to allocate (a MALLOC_ variable,
    GLIBC_TUNABLES, another allocator preloaded), nor with another C library.
    """
    if _environment_decides() or not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(parameter, value) == 1
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    )


def _environment_decides() -> bool:
    preloaded = os.environ.get("LD_PRELOAD", "")
    return (
        any(name.startswith("MALLOC_") for name in os.environ)
        or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
        or any(name in preloaded for name in _OTHER_ALLOCATORS)
    )


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # not a POSIX system, or not this C library
        return False
