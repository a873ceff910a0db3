"""How much memory there is, and keeping what is freed instead of returning it to the system."""

import ctypes
import os
import sys
from pathlib import Path

__all__ = ["keep_freed_memory", "memory"]

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _TOP_PAD = -3, -1, -2  # <malloc.h>
_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of version 2 and 1


def memory() -> int:
    """Bytes of memory that may be used: the machine's, or the container's where that is less."""
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        most = 4 << 30
    for name in _CONTAINER:
        try:
            most = min(most, int(Path(name).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no container, or one without a limit
            continue
    return most


def keep_freed_memory() -> bool:
    """Tell glibc to reuse large blocks; returns whether it understood. Other systems' allocators do so by themselves.

    By default glibc hands blocks of more than a few MB back and asks for fresh ones, page by page, at each operation:
    a training step on a CPU then spends much of its time in page faults.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    # Older ones refuse more than 32 MB; where both are refused, the rest would only stop the threshold from rising.
    if not any(library.mallopt(_MMAP_THRESHOLD, most) == 1 for most in (1 << 30, 1 << 25)):
        return False
    others = ((_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 1 << 26))
    understood = [library.mallopt(key, value) == 1 for key, value in others]
    return all(understood)
