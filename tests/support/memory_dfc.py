"""`dfc` with a namespace in memory: the real command line, the real Vfs, no servers."""

from __future__ import annotations

import io
import os
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.fake_cluster import FakeCluster
from support.memory_map import MemoryMap
from support.memory_segments import MemorySegments

from dfs_server.protocol.messages import ServerStatus
from dfsfuse.cli.dfc import app as program
from dfsfuse.cli.dfc import health_look
from dfsfuse.cli.dfc.client import Client
from dfsfuse.cli.dfc.health_look import Health
from dfsfuse.cli.dfc.piece_reports import PieceReport
from dfsfuse.cli.dfc.server_reports import ServerReport
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.net.servers import ServerAddress
from dfsfuse.upkeep.recovery.manifest import Namespace, Server
from dfsfuse.vfs.vfs import Vfs

SERVERS = tuple(ServerAddress(number, f"DFS{number}", "127.0.0.1", 10000 + number) for number in range(1, 5))


@dataclass(frozen=True)
class Outcome:
    """The result of a run of dfc."""

    code: int
    out: str
    err: str
    out_bytes: bytes


class FakeConfigWatch:
    """Records how a `ConfigWatch` is used."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")

    def close(self) -> None:
        self.done.append("close")

    def read_again(self, why: str) -> None:
        self.done.append(why)


class MemoryAccess:
    """Stands in for the connection to servers. Connecting raises `refusal` if set; `connections` counts connections."""

    def __init__(self) -> None:
        self.store = MemoryMap()
        self.segments = MemorySegments()
        self.names = {server.id: server.name for server in SERVERS}
        self.pieces: PieceReport | None = PieceReport()
        self.refusal: Exception | None = None
        self.connections = 0
        self.refreshed = 0
        self.watch = FakeConfigWatch()
        self.open = 0
        self.repairers = 0
        self.config: Path | None = None

    @property
    def server_names(self) -> dict[int, str]:
        return self.names

    def connect(self) -> MemoryAccess:
        if self.refusal is not None:
            raise self.refusal
        self.connections += 1
        self.open += 1
        self.vfs = Vfs(self.store, self.segments, servers=self.names, usable=self.segments.usable)
        return self

    @property
    def cluster(self) -> FakeCluster:
        raise AssertionError("there are no servers here: see support.stored_dfc")

    def namespace(self) -> Namespace:
        return Namespace(
            "alice", b"namespace of alice", tuple(Server(server.name, server.name.encode()) for server in SERVERS)
        )

    def new_log(self) -> QuorumLog:
        raise AssertionError("there is no log here: see support.stored_dfc")

    def refresh(self) -> None:
        self.refreshed += 1

    def repairer(self) -> nullcontext[None]:
        self.repairers += 1
        return nullcontext()

    def config_watch(self) -> FakeConfigWatch:
        return self.watch

    def health(self, count_s: float) -> Health:
        return health_look.health(self.server_reports(), self.pieces, 0, config=self.config)

    def server_reports(self) -> list[ServerReport]:
        return [
            ServerReport(server, ServerStatus(server.name, "0.1.0", 7, 10**10, 2 * 10**10, 3, 4096), 0.0004)
            if server.id in self.segments.answering and self.refusal is None
            else ServerReport(server, problem="refused", reason="connection refused")
            for server in SERVERS
        ]

    def close(self) -> None:
        self.open -= 1
        self.vfs.close()


class Dfc:
    """Runs command lines of dfc in the folder `here`."""

    def __init__(self, here: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[bytes]) -> None:
        self.here = here
        self.access = MemoryAccess()
        self._monkeypatch = monkeypatch
        self._capture = capture

    def __call__(self, *arguments: str, stdin: bytes = b"", on_terminal: bool = False) -> Outcome:
        self._capture.readouterr()
        self._monkeypatch.setattr(sys.stdout, "isatty", lambda: on_terminal, raising=False)
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        client = Client(self._access_to)
        code = program.run(arguments, client)
        captured = self._capture.readouterr()
        return Outcome(code, os.fsdecode(captured.out), captured.err.decode(), captured.out)

    def ok(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run a command that must succeed, and return its standard output."""
        outcome = self(*arguments, stdin=stdin)
        assert (outcome.code, outcome.err) == (0, ""), outcome
        return outcome.out

    def _access_to(self, config: Path | None) -> MemoryAccess:
        self.access.config = config
        return self.access
