"""Returns this process's memory to the system. Knows glibc's malloc (mallopt(3)); does nothing elsewhere.

glibc gives each thread that allocates its own heap, of up to 64 MiB, with up to eight heaps for each processor. Memory
freed by one thread stays in its heap, and no other thread uses it. Python allocates while it holds the interpreter's
lock, so several heaps bring no speed: a mount that wrote and read 32 MiB files used 239 MB with them and 193 MB with
one.

With every large block that is freed, glibc also raises the size from which it returns a block immediately (mmap,
munmap), up to 32 MiB. In a server with a hundred threads, blocks of a few MiB then stay in the heap: under a hundred
large requests at once 150 MB, compared with 85 MB with a fixed size.

Call these before the first thread starts.
"""

from __future__ import annotations

import ctypes
from typing import Final

LARGE_BLOCK_BYTES: Final = 256 * 1024
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


def share_one_heap() -> None:
    """From now on, all threads allocate from the same heap."""
    _set(_M_ARENA_MAX, 1)


def give_back_large_blocks() -> None:
    """From now on, blocks of 256 KiB and more are returned to the system when they are freed."""
    _set(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
