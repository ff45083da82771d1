"""Whether only the reserve is left on the disk, without asking the system at each batch.

What was seen counts for a moment, and for as long as what was written since can have used up no more than a part of
what was free. Once only the reserve is left, each batch asks, so that room that comes back is seen at once. Pure: room
and time are handed in. Threads: everything may be called from any thread; a look more or less does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SEEN_S: Final = 1.0
"""For so long what was seen counts. Others may fill the disk meanwhile; the reserve is there for that."""
COST: Final = 8
"""A batch takes at most about so many times its bytes: redo log, SQLite's log, tables and what they leave unused."""
LEAST_BYTES: Final = 64 * 1024
"""And at least so much."""


class RoomWatch:
    """`free_bytes` looks: what is left without the reserve, less than 0 if that is begun. `monotonic` in seconds."""

    def __init__(self, free_bytes: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._look = free_bytes
        self._monotonic = monotonic
        self._left_bytes = 0
        self._until = float("-inf")

    def is_full(self, written_bytes: int) -> bool:
        """Whether only the reserve is left, after so many bytes of batches more were written."""
        self._left_bytes -= max(COST * written_bytes, LEAST_BYTES)
        if self._left_bytes <= 0 or self._monotonic() >= self._until:
            self._left_bytes = self._look()
            self._until = self._monotonic() + SEEN_S
        return self._left_bytes <= 0
