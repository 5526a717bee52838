"""Keep freed memory for the next step of a training (glibc only).

A training step on a CPU allocates and frees the same dozens of activations of some megabytes. By default the C
library gives such blocks back to the system at once, and every step pays for fresh, zeroed pages. On a GPU torch keeps
its memory by itself.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Names of the two settings in glibc's malloc.h."""
_LARGEST_BLOCK = 32 * 2**20
"""Blocks above this are mapped one by one and given back when freed, so that large arrays leave nothing behind; glibc
takes no higher value."""
_KEPT = 2**30
"""Freed memory beyond this at the end of the heap goes back to the system."""


@cache
def keep_freed_memory() -> bool:
    """Set both thresholds for this process, once; returns whether the C library has them (glibc does)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl, for one, has no mallopt
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) and mallopt(_TRIM_THRESHOLD, _KEPT))
