"""A running mount learns that a server has moved: its config file is read again on SIGHUP, and while a server is
missing whenever the file has changed, or the one that has the password.

Taken over are the servers' addresses, and the password. What a mount cannot change under its files is refused with a
sentence in the log, and the config that it has stays: another user, other names or another order of the servers, a
file that is no config. Whether the server at a new address is the right one is found out by talking to it, as always:
it must prove that it knows the user, have the name that the config says, and no other server's folder.

Threads: its own, which looks at the file every `EVERY_S` at most while a server is missing; `read_again` by any.
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
from dfsfuse.common.repeating import Repeating
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
        """`may_open`: whether a file may be opened. One below our own mountpoint must not be: we would wait for
        ourselves."""
        self._cluster = cluster
        self._config = config
        self._environment = os.environ if environment is None else environment
        self._may_open = may_open
        self._seen = self._mark()
        self._lock = threading.Lock()
        self._thread = Repeating("config-watch", EVERY_S, "looking at the config")

    def start(self) -> None:
        """Begin."""
        self._thread.start(self.step)

    def close(self) -> None:
        """End."""
        self._thread.close()

    def step(self) -> None:
        """Read the file again if a server is missing and the file has changed since it was read."""
        if len(self._cluster.usable()) < len(self._config.servers) and self._mark() != self._seen:
            self.read_again("a server is missing, and the file has changed")

    def read_again(self, why: str) -> None:
        """Read the file, and take over what may be. Raises nothing that is to be foreseen."""
        with self._lock:
            self._seen = self._mark()
            path = self._config.path
            try:
                new = read_config(path, self._environment, self._may_open)
            except ConfigError as error:
                log.error("the config cannot be used, and the mount goes on with what it has: %s", error)  # noqa: TRY400
                return
            problem = cannot_change(self._config, new)
            if problem:
                log.error("%s: %s; the mount goes on with what it has", path, problem)
                return
            changes = what_changed(self._config, new)
            self._config = new
            if changes:
                self._cluster.readdress(new.servers, new.credentials)
            log.info("%s was read again (%s): %s", path, why, "; ".join(changes) or "nothing has changed")

    def _mark(self) -> object:
        """Another one when the file has changed, or that of the password."""
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
    """Why a mount with the old config cannot go on with the new one, as a sentence; empty if it can."""
    if new.credentials.username != old.credentials.username:
        return (
            f"the user is {new.credentials.username} now, and the mount is of {old.credentials.username}: mount again"
        )
    names = [[server.name for server in config.servers] for config in (old, new)]
    if names[0] != names[1]:
        return (
            f"the servers are {', '.join(names[1])} now, and this namespace is on {', '.join(names[0])}, "
            "in this order: only their addresses may change"
        )
    return ""


def what_changed(old: ClientConfig, new: ClientConfig) -> list[str]:
    """What is different, as parts of a sentence. No password is in it."""
    moved = [
        f"{after.name} is at {_address(after)} now, it was at {_address(before)}"
        for before, after in zip(old.servers, new.servers, strict=True)
        if (before.host, before.port) != (after.host, after.port)
    ]
    return [*moved, *(["another password"] if new.credentials.password != old.credentials.password else [])]


def _address(server: ServerAddress) -> str:
    return f"[{server.host}]:{server.port}" if ":" in server.host else f"{server.host}:{server.port}"
