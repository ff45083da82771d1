"""The basis of dfc's commands, made from the config: an open namespace, and the state of the servers.

Knows `session` and `config`, but no commands. `Access` is what `Client` needs of it; tests replace it.
"""

from __future__ import annotations

import time
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfs_server.shared.config_file import ConfigError
from dfsfuse.cli.config import ClientConfig, load_config
from dfsfuse.cli.dfc.health_look import Health, look
from dfsfuse.cli.mount.config_watch import ConfigWatch
from dfsfuse.cli.output import complain
from dfsfuse.cli.session import Session, open_session
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.records import keys
from dfsfuse.net.cluster import Cluster

if TYPE_CHECKING:
    from dfsfuse.log.repairer import Repairer
    from dfsfuse.namespace.map.transactions import MapStore
    from dfsfuse.upkeep.recovery.manifest import Namespace
    from dfsfuse.vfs.context import Segments
    from dfsfuse.vfs.vfs import Vfs


@dataclass(frozen=True)
class Connection:
    """A `Session`, as the commands see it."""

    session: Session
    config: ClientConfig

    @property
    def vfs(self) -> Vfs:
        """The namespace."""
        return self.session.vfs

    @property
    def server_names(self) -> dict[int, str]:
        """The four servers' names by id, in the order of the config."""
        return {server.id: server.name for server in self.session.cluster.servers}

    @property
    def cluster(self) -> Cluster:
        """The four servers."""
        return self.session.cluster

    @property
    def store(self) -> MapStore:
        """The namespace's map."""
        return self.session.store

    @property
    def segments(self) -> Segments:
        """The data of the namespace."""
        return self.session.segments

    def namespace(self) -> Namespace:
        """Which namespace it is."""
        return self.session.namespace()

    def new_log(self) -> QuorumLog:
        """A separate view of the log for a thread that walks the whole map, bypassing the cache."""
        return QuorumLog(self.session.cluster)

    def health(self, count_s: float) -> Health:
        """The state of everything, queried now; copies are counted for at most `count_s`."""
        store = nullcontext(self.session.store)
        return look(self.session.cluster, self.new_log, lambda: store, time.time_ns(), count_s=count_s)

    def repairer(self) -> Repairer:
        """What brings servers' logs up to date in the background."""
        return self.session.repairer()

    def hurry(self) -> None:
        """See `Cluster.hurry`."""
        self.session.cluster.hurry()

    def config_watch(self) -> ConfigWatch:
        """The watcher that takes over the servers' new addresses from the config; not started yet."""
        return ConfigWatch(self.session.cluster, self.config)

    def close(self) -> None:
        """Release everything."""
        self.session.close()


class Access:
    """Access to the servers that the config names. Nothing is read or connected before it is used."""

    def __init__(self, config: Path | None) -> None:
        self._explicit = config
        self._read: ClientConfig | None = None

    def connect(self) -> Connection:
        """Open the namespace. Raises ConfigError and DfsError."""
        config = self._config()
        return Connection(open_session(config), config)

    def refresh(self) -> None:
        """Read the config again, if possible: it may have changed."""
        with suppress(ConfigError):
            self._read = load_config(self._explicit)

    def health(self, count_s: float) -> Health:
        """The state of everything, without opening the namespace: works even when too few servers answer for that."""
        config = self._config()
        with Cluster(config.servers, config.credentials) as cluster:
            return look(
                cluster,
                lambda: QuorumLog(cluster),
                lambda: closing(LogMap(QuorumLog(cluster), keys.family_of)),
                time.time_ns(),
                count_s=count_s,
                config=config.path,
            )

    def _config(self) -> ClientConfig:
        if self._read is None:
            self._read = load_config(self._explicit)
            for warning in self._read.warnings:
                complain(f"warning: {warning}")
        return self._read
