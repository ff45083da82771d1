"""Whether only the reserve is left on the disk, without asking the system at each batch.

A measurement is valid for a moment, and as long as what was written since can have used up no more than a part of the
free space. Once only the reserve is left, each batch measures again, so that freed space is noticed immediately. Pure:
free space and time are passed in. Threads: everything may be called from any thread; an extra or missing measurement
does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SEEN_S: Final = 1.0
"""How long a measurement is valid. Others may fill the disk in that time; the reserve is there for that."""
COST: Final = 8
"""Approximate maximum space used by a batch, as a multiple of its bytes: redo log, SQLite's log, tables and what they
leave unused."""
LEAST_BYTES: Final = 64 * 1024
"""Minimum space used by a batch."""


class RoomWatch:
    """`free_bytes` measures the space left without the reserve, negative if the reserve is in use. `monotonic` in
    seconds."""

    def __init__(self, free_bytes: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._look = free_bytes
        self._monotonic = monotonic
        self._left_bytes = 0
        self._until = float("-inf")

    def is_full(self, written_bytes: int) -> bool:
        """Whether only the reserve is left, after this many more bytes of batches were written."""
        self._left_bytes -= max(COST * written_bytes, LEAST_BYTES)
        if self._left_bytes <= 0 or self._monotonic() >= self._until:
            self._left_bytes = self._look()
            self._until = self._monotonic() + SEEN_S
        return self._left_bytes <= 0
