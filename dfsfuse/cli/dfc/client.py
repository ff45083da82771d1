"""What the commands of one `dfc` share: the connection, opened when the first command needs it, and the global options.

Knows that there is access to the servers (`Access`, which tests replace) and nothing about the protocol.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dfs_server.shared import homes
from dfsfuse.cli.dfc.remote import Remote

if TYPE_CHECKING:
    from dfsfuse.cli.dfc.health_look import Health
    from dfsfuse.cli.mount.config_watch import ConfigWatch
    from dfsfuse.log.quorum_log import QuorumLog
    from dfsfuse.namespace.map.transactions import MapStore
    from dfsfuse.upkeep.fsck.snapshot import Asked
    from dfsfuse.upkeep.heal.background import ClusterWithComebacks
    from dfsfuse.upkeep.recovery.manifest import Namespace
    from dfsfuse.vfs.context import Segments
    from dfsfuse.vfs.vfs import Vfs

    class Servers(ClusterWithComebacks, Asked, Protocol):
        """What upkeep needs of a `Cluster`."""


class Connection(Protocol):
    """An open namespace: connected to the servers, and authenticated by all that answer."""

    @property
    def vfs(self) -> Vfs:
        """The namespace."""

    @property
    def server_names(self) -> dict[int, str]:
        """The four servers' names by id, in the order of the config."""

    @property
    def cluster(self) -> Servers:
        """The four servers."""

    @property
    def store(self) -> MapStore:
        """The namespace's map."""

    @property
    def segments(self) -> Segments:
        """The data of the namespace."""

    def namespace(self) -> Namespace:
        """Which namespace it is."""

    def new_log(self) -> QuorumLog:
        """A separate view of the log for a thread that walks the whole map, bypassing the cache."""

    def health(self, count_s: float) -> Health:
        """The state of everything, queried now; copies are counted for at most `count_s`."""

    def config_watch(self) -> ConfigWatch:
        """The watcher that takes over the servers' new addresses from the config; not started yet."""

    def repairer(self) -> AbstractContextManager[object]:
        """What brings servers' logs up to date in the background, while it is entered."""

    def hurry(self) -> None:
        """The user wants this to end: do not wait for slow servers. May be called by a signal handler."""

    def close(self) -> None:
        """Release everything."""


class Access(Protocol):
    """Access to the servers."""

    def connect(self) -> Connection:
        """Open the namespace. Raises ConfigError and DfsError."""

    def refresh(self) -> None:
        """Read the config again, if possible: it may have changed."""

    def health(self, count_s: float) -> Health:
        """The state of everything, without opening the namespace: works even when too few servers answer for that."""


class Client:
    """The state of one run of dfc. Used by one thread, except that completion at the prompt reads `remote`."""

    def __init__(self, access_to: Callable[[Path | None], Access]) -> None:
        self._access_to = access_to
        self._access: Access | None = None
        self._connection: Connection | None = None
        self._remote: Remote | None = None
        self.config: Path | None = None
        self.debug = False
        self.at_prompt = False

    @property
    def access(self) -> Access:
        """Access to the servers of the config that the command line names."""
        if self._access is None:
            self._access = self._access_to(self.config)
        return self._access

    @property
    def connection(self) -> Connection:
        """The connection, which is made on first use. Raises DfsError and ConfigError."""
        if self._connection is None:
            self._connection = self.access.connect()
        return self._connection

    @property
    def remote(self) -> Remote:
        """The namespace by paths."""
        if self._remote is None:
            self._remote = Remote(self.connection.vfs)
        return self._remote

    def health(self, count_s: float) -> Health:
        """The state of everything; copies are counted for at most `count_s`. Works without a connection, and does not
        make one."""
        return self._connection.health(count_s) if self._connection else self.access.health(count_s)

    def local_path(self, text: str) -> Path:
        """A local path as typed. At the prompt no shell has expanded a leading `~`, or refused a zero byte.

        Raises OSError.
        """
        if "\0" in text:
            raise OSError(errno.EINVAL, "a name cannot have a zero byte", text)
        return homes.expanded(text) if self.at_prompt else Path(text)

    def hurry(self) -> None:
        """The user wants this to end: do not wait for slow servers. May be called by a signal handler."""
        if self._connection is not None:
            self._connection.hurry()

    def close(self) -> None:
        """Close the connection, if there is one. May be called twice."""
        connection, self._connection, self._remote = self._connection, None, None
        if connection is not None:
            connection.close()
