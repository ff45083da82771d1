"""Which servers have no room for data. Thread-safe.

A full server is like one that is down for writing: its part goes to others. It says so itself, with its answers; and as
nothing is sent to it any more, it is asked from time to time whether there is room again (`pinger`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Final

ASK_AGAIN_S: Final = 1.0

log = logging.getLogger(__name__)


class Full:
    """The servers that are full."""

    def __init__(self, names: Mapping[int, str], clock: Callable[[], float]) -> None:
        self._names = names
        self._clock = clock
        self._lock = Lock()
        self._due_at: dict[int, float] = {}  # when a full server is to be asked again; guarded by _lock

    def now(self) -> frozenset[int]:
        """The servers that are believed to be full. Costs nothing."""
        return frozenset(self._due_at)

    def told(self, server: int, *, full: bool) -> None:
        """The server's answer said whether it has room."""
        if not full and server not in self._due_at:
            return
        with self._lock:
            known = server in self._due_at
            if full:
                self._due_at[server] = self._clock() + ASK_AGAIN_S
            else:
                self._due_at.pop(server, None)
        if full != known:
            log.warning("%s %s", self._names[server], "is full: data goes to others" if full else "has room again")

    def to_ask(self) -> list[int]:
        """Those that should be asked now whether they have room. They are not named again for a while."""
        if not self._due_at:
            return []
        now = self._clock()
        with self._lock:
            due = [server for server, at in self._due_at.items() if now >= at]
            self._due_at.update(dict.fromkeys(due, now + ASK_AGAIN_S))
        return due
