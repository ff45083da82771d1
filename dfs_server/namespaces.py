"""The namespaces of one server's users, each opened when first needed.

Threads: everything may be called from any thread. `Namespaces._lock` guards the table of open namespaces; it is held
while one is opened, since a namespace must not be opened twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from dfs_server.namespace import Namespace, room
from dfs_server.pieces.open_pieces import OpenPieces
from dfs_server.shared import durable
from dfs_server.store.store import NamespaceStore
from dfs_server.wire.accounts import is_user_name
from dfs_server.wire.failures import failures_told


class Namespaces:
    """The namespaces of one server, below `root`."""

    def __init__(
        self,
        root: Path,
        server: str,
        *,
        grace_s: float,
        reserve_bytes: int,
        room: Callable[[Path], tuple[int, int]] = room,
    ) -> None:
        self._root = root
        self._server = server
        self._grace_s = grace_s
        self._reserve_bytes = reserve_bytes
        self._room = room
        self._lock = threading.Lock()
        self._open: dict[str, Namespace] = {}
        self._open_pieces = OpenPieces()  # shared by all users, so that there is one limit

    def of(self, user: str) -> Namespace:
        """The namespace of an authenticated user. Raises `RequestFailedError`."""
        with self._lock, failures_told():
            if user not in self._open:
                self._open[user] = self._opened(user)
            return self._open[user]

    def opened(self) -> list[Namespace]:
        """The namespaces that have been needed so far."""
        with self._lock:
            return list(self._open.values())

    def close(self) -> None:
        """Close all. No request may be under way."""
        with self._lock:
            for namespace in self._open.values():
                namespace.close()
            self._open.clear()
            self._open_pieces.close()

    def _opened(self, user: str) -> Namespace:
        if not is_user_name(user):
            raise AssertionError(f"{user!r} must not get this far")
        folder = self._root / user
        durable.make_folder(folder)
        store = NamespaceStore(
            folder,
            self._server,
            grace_s=self._grace_s,
            is_tight=lambda: self._room(folder)[0] <= self._reserve_bytes,
        )
        try:
            return Namespace(folder, self._server, store, self._reserve_bytes, self._room, self._open_pieces)
        except BaseException:
            store.close()
            raise
