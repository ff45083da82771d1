"""The composition root: turns a config into an open namespace. The only place that knows how the layers fit together.

`open_session` connects, authenticates to every server, and wires cluster, log, map, segments and Vfs together;
`Session.close` shuts them down in reverse order, so that data is flushed while the servers can still be reached.
Threads are started here (health, log, prefetch), so a process that goes to the background must do so first.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from dfsfuse.cli.config import ClientConfig, password_note
from dfsfuse.cli.mount.room import RoomGauge
from dfsfuse.cli.output import printable
from dfsfuse.common.events import Events
from dfsfuse.data.block_cache import DEFAULT_CACHE_BYTES
from dfsfuse.data.segments import SegmentStore
from dfsfuse.errors import AuthenticationError, DfsError, UnavailableError, WrongServerError
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.log.repairer import Repairer
from dfsfuse.mount.options import MountOptions
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.neighbours import InodeCompanions
from dfsfuse.namespace.map.transactions import View
from dfsfuse.namespace.ops.server_register import KNOWN_S, ServerRegister
from dfsfuse.namespace.records import keys, members
from dfsfuse.net.cluster import Cluster
from dfsfuse.upkeep.heal.background import BackgroundHealer, HealingTurn
from dfsfuse.upkeep.heal.bandwidth import Bucket
from dfsfuse.upkeep.heal.noting import Noter
from dfsfuse.upkeep.map_reader import MapReader
from dfsfuse.upkeep.recovery.manifest import Namespace, Server
from dfsfuse.upkeep.sweep.background import BackgroundSweep
from dfsfuse.vfs.health.incomplete import Policy
from dfsfuse.vfs.open.orphan_keeper import GRACE_S
from dfsfuse.vfs.settings import MountSettings
from dfsfuse.vfs.vfs import Vfs


@dataclass
class Session:
    """An open namespace, and the layers below it."""

    vfs: Vfs
    cluster: Cluster
    log: QuorumLog
    store: LogMap
    segments: SegmentStore
    user: str
    _opened: contextlib.ExitStack

    def namespace(self) -> Namespace:
        """The identity of the namespace, as far as its servers have told it."""
        identity = b""
        with contextlib.suppress(DfsError, OSError):
            identity = self.store.read(members.namespace_identity, max_age_s=KNOWN_S)
        identities = self.cluster.identities()
        servers = [Server(server.name, identities.get(server.id, b"")) for server in self.cluster.servers]
        return Namespace(self.user, identity, tuple(servers))

    def repairer(self) -> Repairer:
        """What brings servers' logs up to date in the background; not started yet, and the caller's to close."""
        return Repairer(self.cluster, lambda: self.log.known)

    def close(self) -> None:
        """Write out unsaved data, and release everything. Raises whatever the writing raises."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_session(config: ClientConfig) -> Session:
    """Connect and open the namespace of the config's user, for a command.

    Raises `AuthenticationError`, `WrongServerError` or `UnavailableError`; then nothing was done on any server.
    """
    return _open(config, MountSettings(), None)


def open_for_mount(config: ClientConfig, options: MountOptions) -> Session:
    """Open a session (`open_session`) for a mount with these options.

    Changes of names and attributes are answered before they are durable while this client is the only writer (fsync()
    is there for programs that need more), and the mount repairs, heals and sweeps in the background. With
    `Policy.REFUSE`, a state that may not be the newest one is not shown.
    """
    settings = MountSettings(
        durability=options.durability,
        save_after_s=options.commit_s,
        lock_lifetime_s=options.lock_timeout_s,
        atime=options.atime,
        diratime=options.diratime,
        incomplete=options.policy,
        removal_grace_s=GRACE_S,
    )
    return _open(config, settings, options)


def _open(config: ClientConfig, settings: MountSettings, mount: MountOptions | None) -> Session:
    """`mount`: the options, if it is for one."""
    with contextlib.ExitStack() as opened:
        events = Events()
        cluster = Cluster(config.servers, config.credentials, events=events)
        opened.callback(cluster.close)
        _connect(cluster, config, wait_for_all=mount is not None)
        log: QuorumLog
        if mount:
            repairer = Repairer(cluster, lambda: log.known)
            log = QuorumLog(cluster, on_lag=repairer.wake)
            opened.enter_context(repairer)
        else:
            log = QuorumLog(cluster)

        def is_newest(view: View, servers: frozenset[int]) -> bool:
            return members.have_forgotten_nothing(view, cluster.identities(), servers)

        store = LogMap(
            log,
            keys.family_of,
            is_newest=is_newest if settings.incomplete is Policy.REFUSE else None,
            wait_s=mount.wait_s if mount else 0.0,
            companions=InodeCompanions(),
            join_of=keys.join_of,
            events=events,
        )
        opened.callback(store.close)
        if mount:
            store.start()
        register = ServerRegister(store, cluster, events)
        register.open()
        register.start()
        opened.callback(register.close)
        healer: BackgroundHealer | Noter
        if mount and mount.heal_mb_s and not mount.read_only:
            healer = background_healer(cluster, store, mount.heal_mb_s)
        else:
            healer = Noter(cluster, store)
        segments = SegmentStore(
            cluster,
            cache_bytes=mount.cache_bytes if mount else DEFAULT_CACHE_BYTES,
            on_bad_piece=healer.found_bad,
        )
        opened.callback(segments.close)
        vfs = Vfs(
            store,
            segments,
            servers=cluster.names,
            settings=settings,
            usable=cluster.usable,
            room=RoomGauge(cluster),
            events=events,
        )
        events.on_keys_changed = vfs.changed_elsewhere
        if mount:
            vfs.background_saver.start()
            vfs.orphan_keeper.start()
        opened.callback(vfs.close)
        opened.callback(healer.close)
        healer.start()
        if mount and not mount.read_only:
            sweeper = BackgroundSweep(cluster, MapReader(QuorumLog(cluster)), store, vfs.save_long_unsaved, log.client)
            opened.callback(sweeper.close)
            sweeper.start()
        return Session(vfs, cluster, log, store, segments, config.credentials.username, opened.pop_all())


def _connect(cluster: Cluster, config: ClientConfig, *, wait_for_all: bool) -> None:
    """Connect; if that fails, the error says which file these servers and this user come from."""
    try:
        cluster.connect(wait_for_all=wait_for_all)
    except (AuthenticationError, WrongServerError, UnavailableError) as error:
        note = password_note(os.environ) if isinstance(error, AuthenticationError) else ""
        where = f"config: {printable(config.path)}{'; ' if note else ''}{note}"
        raise type(error)(f"{error} ({where})") from error


def background_healer(cluster: Cluster, store: LogMap, mb_s: float) -> BackgroundHealer:
    """A mount's healer, with its own view of the log; not started yet."""
    pages = MapReader(QuorumLog(cluster), recall=False)
    return BackgroundHealer(lambda wait: HealingTurn(cluster, pages, store, bucket=Bucket(mb_s * 1_000_000), wait=wait))
