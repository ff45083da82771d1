"""Suppresses repeated log lines: each is logged once, and later with the number of repetitions.

One read() of a program becomes many requests of the kernel, and each that fails would log the same line. Threads: any;
guarded by its own lock.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

QUIET_S: Final = 10.0
MAX_LINES: Final = 100


class Repetition:
    """The lines that were logged recently."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._told: dict[
            str, tuple[float, int]
        ] = {}  # line -> when it was logged, and how often it was suppressed since; guarded by _lock

    def worth_logging(self, line: str, now: float) -> str | None:
        """The line to log now; None if it was logged a moment ago."""
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
        return f"{line} (and {untold} more times since it was last logged)" if untold else line
