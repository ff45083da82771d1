"""Which servers let this client wait lately. (How long is waited: `dfsfuse.net.pace`.)

A server that did not answer in time is a suspect for a while, so that one that hangs costs one short wait and not one
for every request. It is a hint: what is correct never depends on it. Thread-safe.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

from dfsfuse.net.pace import Pace

__all__ = ["Pace", "Suspects"]

FIRST_SUSPICION_S: Final = 2.0
LONGEST_SUSPICION_S: Final = 60.0
_NOBODY: Final[frozenset[int]] = frozenset()


class Suspects:
    """Servers that let somebody wait lately. Each time in a row they are spared for twice as long."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._until: dict[int, tuple[float, float]] = {}  # server -> (until when, for how long); guarded by _lock

    def lagged(self, server: int, now: float) -> None:
        """The server let us wait for too long."""
        with self._lock:
            until, span_s = self._until.get(server, (0.0, FIRST_SUSPICION_S / 2))
            if now >= until:
                span_s = min(2 * span_s, LONGEST_SUSPICION_S)
                self._until[server] = (now + span_s, span_s)

    def answered(self, server: int) -> None:
        """The server answered in time."""
        if server not in self._until:
            return
        with self._lock:
            self._until.pop(server, None)

    def now(self, now: float) -> frozenset[int]:
        """Who is spared at the moment."""
        if not self._until:
            return _NOBODY
        with self._lock:
            return frozenset(server for server, (until, _) in self._until.items() if now < until)
