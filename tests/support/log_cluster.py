"""Four servers that hold a real log (`NamespaceStore`), behind a `FakeCluster`: no network, and virtual time."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from support.fake_cluster import FakeCluster
from support.grid import FakeServer, Fault, Grid

from dfs_server.protocol.messages import (
    Batches,
    Error,
    GetBatches,
    GetChanges,
    GetPosition,
    Learn,
    Message,
    Position,
    ReadKeys,
    ReadRange,
)
from dfs_server.protocol.status import Status
from dfs_server.store.store import NamespaceStore
from dfsfuse.log.driving import SOFT_S
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.log.state import Contents, News
from dfsfuse.net.health.health import Health

READS = (GetPosition, GetBatches, GetChanges, ReadKeys, ReadRange)


class LogServer(FakeServer):
    """Answers requests about a log. The cluster implements the faults DOWN and HANG."""

    folder: Path
    store: NamespaceStore
    open: Callable[[], NamespaceStore]

    @contextmanager
    def put_back_later(self) -> Iterator[None]:
        """After the block, restore its folder as it was before, as from a backup."""
        self.store.close()
        backup = self.folder.with_name(self.name + ".backup")
        shutil.copytree(self.folder, backup)
        self.store = self.open()
        try:
            yield
        finally:
            self.store.close()
            shutil.rmtree(self.folder)
            backup.rename(self.folder)
            self.store = self.open()

    def answer(self, request: Message, payload: bytes) -> tuple[Message, bytes]:
        self.asked.append(request)
        if self.before_answer:
            self.before_answer(request)
        if self.fault is Fault.BROKEN_DISK:
            return Error(Status.IO_ERROR, f"{self.name}: the disk failed"), b""
        if self.fault is Fault.FULL and not isinstance(request, READS):
            return Error(Status.NO_SPACE, f"{self.name}: the disk is full"), b""
        return self.store.handle(request), b""  # type: ignore[arg-type]


class LogCluster(FakeCluster):
    """Four servers with a log. It must be closed, since the stores have open files."""

    def __init__(self, folder: Path) -> None:
        grid = Grid()
        for number in grid.servers:
            server = LogServer(f"DFS{number}")
            server.folder = folder / server.name
            server.open = partial(NamespaceStore, server.folder, server.name, monotonic=grid.clock)
            server.store = server.open()
            grid.servers[number] = server
        super().__init__(grid)

    def applied(self) -> list[int]:
        """Return the last applied slot of each server."""
        positions = [server.store.handle(GetPosition()) for server in self.servers]
        assert all(isinstance(position, Position) for position in positions)
        return [position.applied for position in positions]  # type: ignore[union-attr]

    @property
    def servers(self) -> list[LogServer]:
        return [server for server in self.grid.servers.values() if isinstance(server, LogServer)]

    def down(self, *servers: int) -> None:
        """Make these servers refuse connections, which clients know at once."""
        for server in servers:
            self.grid[server].fault = Fault.DOWN
            self.notice_down(server)

    def up(self, *servers: int) -> None:
        """Make these servers answer again."""
        for server in servers:
            self.grid[server].fault = Fault.NONE
            self.notice_up(server)

    def wipe(self, server: int) -> None:
        """Replace its disk by an empty one. The others are up to date, and their logs no longer reach back to the
        beginning."""
        newest = self.servers[self.applied().index(max(self.applied()))].store
        for behind in self.servers:
            missing = newest.handle(GetBatches(self.applied()[self.servers.index(behind)]))
            assert isinstance(missing, Batches)
            behind.store.handle(Learn(missing.first, missing.batches))
        emptied = self.grid[server]
        assert isinstance(emptied, LogServer)
        emptied.store.close()
        shutil.rmtree(emptied.folder)
        emptied.store = emptied.open()
        for other in self.servers:
            other.store.flush()
            with other.store._database.lock, other.store._database.transaction(durable=False) as db:
                db.execute("DELETE FROM log WHERE slot <= (SELECT applied FROM state)")

    def close(self) -> None:
        for server in self.servers:
            server.store.close()


def log_of(cluster: LogCluster, client: bytes = b"client-1") -> QuorumLog:
    """A client of the cluster, in the same virtual time, with its own view of the servers except for which are down."""
    clock = cluster.grid.clock

    def sleep(seconds: float) -> None:
        clock.wait_until(clock() + seconds)

    log = QuorumLog(cluster, client=client, clock=clock, sleep=sleep, time_ns=lambda: 7)  # type: ignore[arg-type]
    own = Health(cluster.grid.servers, clock, lambda: 7)
    log.state.spared, log._pace = own.log, own.pace("log", SOFT_S)
    return log


def put(**values: str) -> Contents:
    """The contents of a batch that writes these keys."""
    return Contents(puts=tuple((key.encode(), value.encode()) for key, value in values.items()))


def never(_news: News) -> bool:
    """For `QuorumLog.commit`: no change by others is a conflict."""
    return False
