"""Lines of a log that would be the same again: told once, and later how many there were.

One read() of a program becomes many requests of the kernel, and each that fails has the same to say.

Threads: any, by a lock of its own.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

QUIET_S: Final = 10.0
MAX_LINES: Final = 100


class Repetition:
    """What was told lately."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._told: dict[
            str, tuple[float, int]
        ] = {}  # line -> when it was told, how often it was not; guarded by _lock

    def worth_telling(self, line: str, now: float) -> str | None:
        """The line as it should be told now; None if it was told a moment ago."""
        with self._lock:
            at, untold = self._told.get(line, (float("-inf"), 0))
            if now < at + QUIET_S:
                self._told[line] = at, untold + 1
                return None
            if len(self._told) >= MAX_LINES:
                self._told = {line: kept for line, kept in self._told.items() if now < kept[0] + QUIET_S}
            if len(self._told) >= MAX_LINES:
                self._told.clear()
            self._told[line] = now, 0
        return f"{line} (and {untold} times since it was last told)" if untold else line
