"""Fake servers with any behaviour and the lines to them, for tests of concurrent requests."""

from __future__ import annotations

from support.wire_server import CREDENTIALS, DEADLINE_S, WireServer

from dfs_server.protocol.messages import (
    GetPiece,
    GetPosition,
    PutPiece,
    Request,
)
from dfsfuse.net.exchange import Answer, Call, Exchange, Failure
from dfsfuse.net.lines import Lines
from dfsfuse.net.servers import Credentials

STALL_S = 0.15
"""For calls that should stall; long enough for a greeting on a busy machine."""
PIECE = bytes(range(256)) * 4096
GET = GetPiece(b"s" * 16, 1)
PUT = PutPiece(b"s" * 16, 1, b"")


class Bench:
    """Some servers and the lines to them."""

    def __init__(self) -> None:
        self.servers: dict[int, WireServer] = {}
        self._made: list[Lines] = []

    def add(self, server: WireServer) -> WireServer:
        """Add a server with the next number."""
        self.servers[len(self.servers) + 1] = server
        return server

    def lines(self, credentials: Credentials = CREDENTIALS) -> Lines:
        """Make lines to all servers."""
        lines = Lines([server.address(id) for id, server in self.servers.items()], credentials)
        self._made.append(lines)
        return lines

    def close(self) -> None:
        """Close all lines and servers."""
        for lines in self._made:
            lines.close()
        for server in self.servers.values():
            server.close()


def ask(
    lines: Lines, request: Request | None = None, *, server: int = 1, stall_s: float = DEADLINE_S
) -> Answer | Failure:
    """Make one call in an exchange of its own, and return its outcome."""
    with Exchange(lines) as exchange:
        exchange.start(Call(server, request or GetPosition(), stall_s=stall_s))
        outcome = exchange.next(DEADLINE_S)
    assert outcome is not None
    return outcome


def failure(outcome: Answer | Failure | None) -> Failure:
    """Check that the outcome is a failure, and return it."""
    assert isinstance(outcome, Failure), outcome
    return outcome
