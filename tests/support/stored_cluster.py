"""Four servers that store what a real one does (log, map, small and large pieces), behind a `FakeCluster`: no network.

Each has its `Namespace` in a folder of its own, so a request costs a server's disk the same as with a real one. A
client can be opened on them by `open_session`, as on a `Cluster`.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from support.fake_cluster import FakeCluster, FakeExchange
from support.grid import FakeServer, Grid, VirtualClock

from dfs_server.namespace import Namespace
from dfs_server.namespaces import Namespaces
from dfs_server.pieces.open_piece import OpenPiece
from dfs_server.protocol.messages import Done, Error, GetPiece, Message, Piece, PutPiece, Request
from dfs_server.protocol.pieces import BLOCK_BYTES
from dfs_server.wire.failures import RequestFailedError, failures_told
from dfsfuse.net.exchange import Call
from dfsfuse.net.health.server import Fault

USER = "alice"
RESERVE_BYTES = 1 << 20


def _much_room(_folder: Path) -> tuple[int, int]:
    return 1 << 40, 1 << 41


class StoringServer(FakeServer):
    """One server, which stores everything below `folder`."""

    def open(self, folder: Path) -> None:
        folder.mkdir()
        self.namespaces = Namespaces(folder, self.name, grace_s=600.0, reserve_bytes=RESERVE_BYTES, room=_much_room)

    @property
    def namespace(self) -> Namespace:
        return self.namespaces.of(USER)

    def answer(self, request: Message, payload: bytes) -> tuple[Message, bytes]:
        self.asked.append(request)
        try:
            match request:
                case PutPiece():
                    with self.namespace.put_piece(request, len(payload)) as upload, failures_told():
                        upload.write(memoryview(payload))
                        upload.commit()
                    return Done(), b""
                case GetPiece():
                    return self._piece(request)
                case _:
                    return self.namespace.answer(request), b""  # type: ignore[arg-type]
        except RequestFailedError as error:
            return Error(error.status, str(error)), b""

    def _piece(self, request: GetPiece) -> tuple[Message, bytes]:
        start = request.first_block * BLOCK_BYTES
        found = self.namespace.get_piece(request)
        if isinstance(found, OpenPiece):
            with found:
                size = request.block_count * BLOCK_BYTES or found.length
                return Piece(found.length, found.digests), found.read(start, size)
        end = start + request.block_count * BLOCK_BYTES if request.block_count else None
        return Piece(len(found.data), found.digests), found.data[start:end]


class StoredExchange(FakeExchange):
    """Requests that were sent arrive even if their answers are no longer waited for, since a quorum was enough."""

    def abandon(self, call: Call) -> None:
        self._arrive(call)
        super().abandon(call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, _, call in sorted(self._events):
            self._arrive(call)
        super().__exit__(kind, error, trace)

    def _arrive(self, call: Call) -> None:
        if any(started is call for _, _, started in self._events):
            self._grid[call.server].answer(call.request, b"".join(call.payload))


class StoredCluster(FakeCluster):
    """See the module. Close it."""

    def __init__(self, folder: Path, clock: VirtualClock) -> None:
        grid = Grid()
        grid.clock = clock
        for id in grid.servers:
            server = StoringServer(f"DFS{id}")
            server.identity = server.name.encode()
            server.open(folder / server.name)
            grid.servers[id] = server
        super().__init__(grid)

    def exchange(self, *, in_order: bool = False) -> StoredExchange:
        return StoredExchange(self)

    def connect(self, *, wait_for_all: bool = False) -> None:
        """Do nothing: all servers are there."""

    def faults(self) -> dict[int, Fault]:
        return {}

    def sent(self) -> list[Request]:
        """Return all requests so far, whatever became of them."""
        return [call.request for call in self.started]

    def close_servers(self) -> None:
        for server in self.grid.servers.values():
            assert isinstance(server, StoringServer)
            server.namespaces.close()
