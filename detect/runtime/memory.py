"""The memory allocator of the process."""

from __future__ import annotations

import ctypes
import gc
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and values of <malloc.h>
_KEEP_BYTES = 2**30
_MOST_IN_OLD_VERSIONS = 2**25


def keep_freed_memory() -> None:
    """Let freed memory stay with the process instead of going back to the system.

    A training step on a CPU frees all its activations and needs them again in the next. By default glibc returns such
    large blocks at once, and the system hands them back page by page, zeroed: thousands of page faults a step, about
    4 % of the processor's time. Other C libraries are left alone.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        if not mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES):
            mallopt(_M_MMAP_THRESHOLD, _MOST_IN_OLD_VERSIONS)
        mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def return_freed_memory() -> None:
    """Give the system what the process has freed but kept, before worker processes are forked from it.

    A worker has all pages of its parent, shared until one of them writes. Free blocks are what it writes to first:
    a parent that has read a large annotation file would see them copied, one after the other, for many epochs.
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
