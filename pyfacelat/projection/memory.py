"""Keep the C allocator from giving large blocks back between steps.

A step allocates the same activations every time. Blocks above some megabytes are mapped anew and
returned at once by glibc, so that the kernel clears every page of them at every step: from 512 px
up that is half of a step's time. Inside `blocks_kept` freed blocks stay with the process and serve
the next step; afterwards they are returned. Elsewhere than on glibc this does nothing, and with
PYFACELAT_KEEP_BLOCKS=0 it is switched off (for a process whose memory others need between steps).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of malloc.h
_SMALL_MAPS, _MANY_MAPS = 1 << 25, 1 << 16  # what glibc's own adaptation arrives at
_LARGEST = -1  # as an unsigned size

_lock = threading.Lock()
_holders = 0


def keep_blocks(keep: bool) -> bool:
    """Switch keeping on or off for the whole process; returns whether the allocator can.

    `blocks_kept` is what a caller wants; this is for measurements.
    """
    libc = _libc()
    if libc is None:
        return False
    set_option: Callable[[int, int], int] = libc.mallopt
    if keep:
        set_option(_MMAP_MAX, 0)
        set_option(_TRIM_THRESHOLD, _LARGEST)
    else:
        set_option(_MMAP_MAX, _MANY_MAPS)
        set_option(_MMAP_THRESHOLD, _SMALL_MAPS)
        set_option(_TRIM_THRESHOLD, 2 * _SMALL_MAPS)
        libc.malloc_trim(0)
    return True


@contextmanager
def blocks_kept() -> Iterator[None]:
    """Keep freed blocks inside; safe to nest, and to enter from several threads."""
    global _holders
    if os.environ.get("PYFACELAT_KEEP_BLOCKS", "1") == "0":
        yield
        return
    with _lock:
        _holders += 1
        if _holders == 1:
            keep_blocks(True)
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0:
                keep_blocks(False)


def _libc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
    except (OSError, TypeError):  # Windows has no library of that name
        return None
