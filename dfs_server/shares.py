"""A user's share of the server: so many connections, and so many bytes of large messages at once.

It keeps the server's memory bounded and one user from keeping the others out. Knows no socket and no message.

Threads: everything may be called from any thread; each class has one lock, and none is held while another is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

SMALL_BYTES: Final = 64 * 1024
"""A message up to this size costs nothing."""
SHARE_BYTES: Final = 8 * 1024 * 1024
WAIT_S: Final = 30.0
_NOTHING: Final = nullcontext()


class TooBusyError(Exception):
    """There is no room for this now; the client may try again."""


class Share:
    """One user's share. Never less than a largest message."""

    def __init__(self, total_bytes: int = SHARE_BYTES, wait_s: float = WAIT_S) -> None:
        self._free_bytes = total_bytes
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self.connections = 0
        """Guarded by the lock of `Shares`."""

    def hold(self, size_bytes: int) -> AbstractContextManager[None]:
        """Have room for a message; waits for others to finish. Raises `TooBusyError` if that takes too long."""
        return _NOTHING if size_bytes <= SMALL_BYTES else self._hold(size_bytes)

    @contextmanager
    def _hold(self, size_bytes: int) -> Iterator[None]:
        with self._changed:
            if not self._changed.wait_for(lambda: self._free_bytes >= size_bytes, self._wait_s):
                raise TooBusyError("too many large requests of this user at once")
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            with self._changed:
                self._free_bytes += size_bytes
                self._changed.notify_all()


class Shares:
    """The shares of all users. A user's exists while they have a connection."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._shares: dict[str, Share] = {}

    @contextmanager
    def take(self, user: str) -> Iterator[Share]:
        """The share of a user, for one more connection. Raises `TooBusyError` if they have too many."""
        with self._lock:
            share = self._shares.setdefault(user, Share())
            if share.connections >= self._max_connections:
                raise TooBusyError(f"user {user} has {share.connections} connections, which is the most there may be")
            share.connections += 1
        try:
            yield share
        finally:
            with self._lock:
                share.connections -= 1
                if share.connections == 0:
                    del self._shares[user]
