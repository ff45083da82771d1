"""A user's share of the server: a number of connections, and a number of bytes of large messages at once.

It limits the server's memory and keeps one user from locking out the others. Knows no sockets and no messages.

Threads: everything may be called from any thread; each class has one lock, and none is held while another is acquired.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final

SMALL_BYTES: Final = 64 * 1024
"""Messages up to this size are free."""
SHARE_BYTES: Final = 8 * 1024 * 1024
WAIT_S: Final = 30.0


class TooBusyError(Exception):
    """There is no capacity for this now; the client may try again."""


class Share:
    """One user's share. Never smaller than the largest message."""

    def __init__(self, total_bytes: int = SHARE_BYTES, wait_s: float = WAIT_S) -> None:
        self._free_bytes = total_bytes
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self.connections = 0
        """Guarded by the lock of `Shares`."""

    def hold(self, size_bytes: int = 0) -> Hold:
        """Reserve memory for a message, and later for others in its place, until the end of a `with`. Waits, and
        raises, like `Hold.change`."""
        hold = Hold(self)
        hold.change(size_bytes)
        return hold

    def take(self, size_bytes: int) -> None:
        """Take this many bytes, once they are available. Raises `TooBusyError` if that takes too long."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free_bytes >= size_bytes, self._wait_s):
                raise TooBusyError("too many large requests of this user at once")
            self._free_bytes -= size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Make these bytes available to others."""
        with self._changed:
            self._free_bytes += size_bytes
            self._changed.notify_all()


class Hold:
    """The part of a user's share that one connection holds. For one thread."""

    __slots__ = ("_share", "size_bytes")

    def __init__(self, share: Share) -> None:
        self._share = share
        self.size_bytes = 0

    def change(self, size_bytes: int) -> None:
        """Reserve memory for a message of this size, replacing the previous reservation; waits for others to finish.
        Raises `TooBusyError` if that takes too long.

        It never waits while it holds anything, since two sessions would block each other.
        """
        if self.size_bytes:
            self._share.give_back(self.size_bytes)
            self.size_bytes = 0
        if size_bytes > SMALL_BYTES:
            self._share.take(size_bytes)
            self.size_bytes = size_bytes

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.change(0)


class Shares:
    """The shares of all users. A user's exists while they have a connection."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._lock = threading.Lock()
        self._shares: dict[str, Share] = {}

    @contextmanager
    def take(self, user: str) -> Iterator[Share]:
        """A user's share, for one more connection. Raises `TooBusyError` if the user has too many."""
        with self._lock:
            share = self._shares.setdefault(user, Share())
            if share.connections >= self._max_connections:
                raise TooBusyError(f"user {user} has {share.connections} connections, which is the maximum")
            share.connections += 1
        try:
            yield share
        finally:
            with self._lock:
                share.connections -= 1
                if share.connections == 0:
                    del self._shares[user]
