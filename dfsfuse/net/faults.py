"""What servers did wrong lately: answers that were not what they should be, each caught and made good by another one.

A short memory for people, so that `dfc status` can name the server; nothing is decided by it. Thread-safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Final, NamedTuple

MAX_TEXT: Final = 300


class Fault(NamedTuple):
    """What one server did wrong since this client began: how often, when last (ns since 1970), and what that was."""

    times: int
    last_ns: int
    text: str


class Faults:
    """The memory."""

    def __init__(self, time_ns: Callable[[], int] = time.time_ns) -> None:
        self._time_ns = time_ns
        self._lock = Lock()
        self._faults: dict[int, Fault] = {}  # by server id; guarded by _lock

    def note(self, server: int, text: str) -> None:
        """The server did something wrong."""
        with self._lock:
            times = self._faults[server].times if server in self._faults else 0
            self._faults[server] = Fault(times + 1, self._time_ns(), text[:MAX_TEXT])

    def by_server(self) -> dict[int, Fault]:
        """All that were noted, by server id."""
        with self._lock:
            return dict(self._faults)
