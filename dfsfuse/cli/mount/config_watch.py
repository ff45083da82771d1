"""Lets a running mount learn that a server has moved: the config file is read again on SIGHUP, and, while a server is
missing, whenever the file or the separate password file has changed.

The servers' addresses and the password are taken over. Anything that a mount cannot change under its open files (a
different user, different names or another order of the servers, an invalid file) is refused with a sentence in the log,
and the old config stays. Whether the server at a new address is the right one is found out by connecting, as always: it
must prove that it knows the user, have the name that the config says, and must not have another server's folder.

Threads: its own, which checks the file at most every `EVERY_S` while a server is missing; `read_again` by any.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from dfs_server.shared.config_file import ConfigError
from dfsfuse.cli.config import ClientConfig, read_config
from dfsfuse.common.worker import Worker
from dfsfuse.net.servers import Credentials, ServerAddress

EVERY_S: Final = 5.0

log = logging.getLogger(__name__)


class ClusterLike(Protocol):
    """What is needed of a `Cluster`."""

    def usable(self) -> frozenset[int]: ...
    def readdress(self, servers: Sequence[ServerAddress], credentials: Credentials) -> None: ...


class ConfigWatch:
    """See the module."""

    def __init__(
        self,
        cluster: ClusterLike,
        config: ClientConfig,
        *,
        environment: Mapping[str, str] | None = None,
        may_open: Callable[[Path], bool] = lambda _: True,
    ) -> None:
        """`may_open` decides whether a file may be opened. A file below our own mountpoint must not be: the process
        would wait for itself."""
        self._cluster = cluster
        self._config = config
        self._environment = os.environ if environment is None else environment
        self._may_open = may_open
        self._seen = self._mark()
        self._lock = threading.Lock()
        self._thread = Worker("config-watch", EVERY_S, "looking at the config")

    def start(self) -> None:
        """Begin."""
        self._thread.start(self.step)

    def close(self) -> None:
        """End."""
        self._thread.close()

    def step(self) -> None:
        """Read the file again if a server is missing and the file has changed since it was last read."""
        if len(self._cluster.usable()) < len(self._config.servers) and self._mark() != self._seen:
            self.read_again("a server is missing, and the file has changed")

    def read_again(self, why: str) -> None:
        """Read the file, and take over what may change. Raises no expected errors."""
        with self._lock:
            self._seen = self._mark()
            path = self._config.path
            try:
                new = read_config(path, self._environment, self._may_open)
            except ConfigError as error:
                log.error("the config cannot be used, and the mount goes on with its old one: %s", error)  # noqa: TRY400
                return
            problem = cannot_change(self._config, new)
            if problem:
                log.error("%s: %s; the mount goes on with its old config", path, problem)
                return
            changes = what_changed(self._config, new)
            self._config = new
            if changes:
                self._cluster.readdress(new.servers, new.credentials)
            log.info("%s was read again (%s): %s", path, why, "; ".join(changes) or "nothing has changed")

    def _mark(self) -> object:
        """A value that changes when the file or the password file has changed."""
        return tuple(map(self._mark_of, filter(None, (self._config.path, self._config.password_file))))

    def _mark_of(self, file: Path) -> object:
        if not self._may_open(file):
            return None
        try:
            found = file.stat()
        except OSError as error:
            return error.errno
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def cannot_change(old: ClientConfig, new: ClientConfig) -> str:
    """Why a mount with the old config cannot take over the new one, as a sentence; empty if it can."""
    if new.credentials.username != old.credentials.username:
        return (
            f"the user is now {new.credentials.username}, but the mount belongs to {old.credentials.username}: mount "
            "again"
        )
    names = [[server.name for server in config.servers] for config in (old, new)]
    if names[0] != names[1]:
        return (
            f"the servers are now {', '.join(names[1])}, but this namespace is on {', '.join(names[0])}, "
            "in this order: only their addresses may change"
        )
    return ""


def what_changed(old: ClientConfig, new: ClientConfig) -> list[str]:
    """The differences, as parts of a sentence. Never contains a password."""
    moved = [
        f"{after.name} is now at {_address(after)} (formerly {_address(before)})"
        for before, after in zip(old.servers, new.servers, strict=True)
        if (before.host, before.port) != (after.host, after.port)
    ]
    return [*moved, *(["another password"] if new.credentials.password != old.credentials.password else [])]


def _address(server: ServerAddress) -> str:
    return f"[{server.host}]:{server.port}" if ":" in server.host else f"{server.host}:{server.port}"
