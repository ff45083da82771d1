"""A real daemon inside the test process, on a free port, and a way to wait for effects of other threads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from support.raw_client import RawClient

from dfs_server.config import ServerConfig
from dfs_server.daemon import Daemon
from dfs_server.server_folder import ServerFolder
from dfs_server.wire.accounts import Verifier

PASSWORDS = {"alice": "alice-secret", "bob": "bob-secret"}
VERIFIERS = {user: Verifier.of_password(password) for user, password in PASSWORDS.items()}


def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until the condition holds; raise AssertionError if it does not in time."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.005)


class House:
    """A running daemon and its clients, all of which `close` closes."""

    def __init__(self, root: Path, config: ServerConfig, **options: Any) -> None:
        self.root = root
        self._stack = contextlib.ExitStack()
        folder = self._stack.enter_context(ServerFolder.open(root))
        self.identity = folder.identity
        self.daemon = Daemon(folder, config, "127.0.0.1", 0, **options)
        self.port = self.daemon.address[1]
        self.daemon.start()
        self._stopped = False
        self._stack.callback(self.stop)

    def stranger(self) -> RawClient:
        """Open a connection without authenticating."""
        return self._stack.enter_context(contextlib.closing(RawClient(self.port)))

    def client(self, user: str = "alice") -> RawClient:
        """Open an authenticated connection."""
        client = self.stranger()
        try:
            client.authenticate(user, PASSWORDS[user])
        except BaseException:
            client.close()
            raise
        return client

    def files(self) -> set[str]:
        """Return all files of users' pieces below ROOT."""
        return {str(path.relative_to(self.root)) for path in self.root.glob("*/pieces/**/*") if path.is_file()}

    def stop(self, deadline_s: float = 5.0) -> None:
        """Stop the daemon, with its clients still connected."""
        if not self._stopped:
            self._stopped = True
            self.daemon.stop(deadline_s)

    def close(self) -> None:
        self._stack.close()


class StartHouse(Protocol):
    def __call__(self, name: str = "DFS1", *, root: Path | None = None, **options: Any) -> House: ...
