"""Four servers in one process, in memory, each with its own fault if a test sets one.

`FakeServer` answers the data layer's requests (PutPiece, PutPieces, GetPiece, GetPieces, HavePieces, DropPieces) as a
real server would: it verifies digests, refuses what does not fit, and reads blocks. It deletes dropped pieces at once,
without a grace period. Its `fault` decides what goes wrong. Time is a `VirtualClock`: nothing here ever sleeps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from threading import Lock

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.messages import (
    MAX_SMALL_PIECE_BYTES,
    Done,
    DropPieces,
    Error,
    Findings,
    GetFindings,
    GetPiece,
    GetPieces,
    GetPosition,
    GetStatus,
    Have,
    HavePieces,
    Message,
    Piece,
    Position,
    PutPiece,
    PutPieces,
    ReadKeys,
    ServerStatus,
    SmallPieces,
    Values,
)
from dfs_server.protocol.pieces import BLOCK_BYTES, block_digests
from dfs_server.protocol.status import Status


class Fault(Enum):
    """A server's fault."""

    NONE = auto()
    DOWN = auto()
    """Refuses connections."""
    HANG = auto()
    """Accepts requests and never answers."""
    FULL = auto()
    """Has no room for pieces."""
    BROKEN_DISK = auto()
    """Answers every request for a piece with IO_ERROR."""
    CORRUPT = auto()
    """Sends pieces with a flipped bit."""
    TRUNCATE = auto()
    """Sends one byte too few."""
    WRONG_DIGESTS = auto()
    """Sends bytes with matching digests, but not those that were stored."""
    BABBLE = auto()
    """Answers with a reply that does not belong to the request."""


class VirtualClock:
    """Time that passes only when a thread waits."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._now = 1000.0

    def __call__(self) -> float:
        with self._lock:
            return self._now

    def wait_until(self, when: float) -> None:
        with self._lock:
            self._now = max(self._now, when)


@dataclass
class FakeServer:
    """One server. `latency_s` is the time that each answer takes (no call stalls meanwhile); `stored` maps (segment,
    number) to (level-one digests, bytes).
    """

    name: str
    fault: Fault = Fault.NONE
    latency_s: float = 0.001
    dies_after: int | None = None
    """Number of further answers until it is DOWN; requests in progress then get no answer."""
    stored: dict[tuple[bytes, int], tuple[bytes, bytes]] = field(default_factory=dict)
    asked: list[Message] = field(default_factory=list)
    before_answer: Callable[[Message], None] | None = None
    applied: int = 0
    """The last applied slot that it reports."""
    trickles: bool = False
    """Whether part of an answer comes at once, and the rest until `latency_s` is over."""
    wants_copy: bool = False
    """Whether its map is damaged."""
    quarantined: int = 0
    findings: tuple[tuple[bytes, int, int], ...] = ()
    identity: bytes = b"a disk"

    def forget(self) -> None:
        """Lose all pieces, as after a wiped disk."""
        self.stored.clear()

    def answer(self, request: Message, payload: bytes) -> tuple[Message, bytes]:
        """Return the reply to a request, and its payload."""
        self.asked.append(request)
        if self.before_answer:
            self.before_answer(request)
        if self.fault is Fault.BABBLE:
            return Have(b"\1"), b""
        if self.fault is Fault.BROKEN_DISK and not isinstance(request, HavePieces):
            return Error(Status.IO_ERROR, f"{self.name}: the disk failed"), b""
        match request:
            case PutPiece():
                return self._put(request, payload), b""
            case PutPieces():
                return self._put_many(request), b""
            case GetPosition():
                return Position(self.applied, b"", ZERO, wants_copy=self.wants_copy), b""
            case GetStatus():
                free = 0 if self.fault is Fault.FULL else 10**10
                size = sum(len(data) for _, data in self.stored.values())
                found = self.quarantined
                return ServerStatus(
                    self.name, "0.1.0", self.applied, free, 2 * 10**10, len(self.stored), size, found
                ), b""
            case ReadKeys():
                return Values(self.applied, tuple(None for _ in request.keys)), b""
            case GetFindings():
                return Findings(self.findings, self.quarantined, 0, 0, 0, 0, 0, ""), b""
            case DropPieces():
                return Have(bytes(self.stored.pop(piece, None) is not None for piece in request.pieces)), b""
            case GetPiece():
                return self._get(request)
            case GetPieces():
                return SmallPieces(tuple(self._get_small(GetPiece(*piece)) for piece in request.pieces)), b""
            case HavePieces():
                return Have(bytes(piece in self.stored for piece in request.pieces)), b""
            case _:
                return Error(Status.BAD_REQUEST, f"{self.name}: unknown message"), b""

    def _put(self, request: PutPiece, payload: bytes) -> Message:
        if self.fault is Fault.FULL:
            return Error(Status.NO_SPACE, f"{self.name}: the disk is full")
        if block_digests(payload) != request.digests:
            return Error(Status.DIGEST_MISMATCH, f"{self.name}: the piece does not have its digests")
        if request.replace:
            self.stored.pop((request.segment, request.number), None)
        self.stored.setdefault((request.segment, request.number), (request.digests, payload))
        return Done()

    def _put_many(self, request: PutPieces) -> Message:
        if self.fault is Fault.FULL:
            return Error(Status.NO_SPACE, f"{self.name}: the disk is full")
        for segment, number, data in request.pieces:
            self.stored[segment, number] = (block_digests(data), data)
        return Done()

    def _get(self, request: GetPiece) -> tuple[Message, bytes]:
        found = self.stored.get((request.segment, request.number))
        if found is None:
            return Error(Status.NOT_FOUND, f"{self.name}: no such piece"), b""
        digests, data = found
        if self.fault is Fault.WRONG_DIGESTS:
            data = bytes(len(data))
            digests = block_digests(data)
        start = request.first_block * BLOCK_BYTES
        end = start + request.block_count * BLOCK_BYTES if request.block_count else len(data)
        part = data[start:end]
        if self.fault is Fault.CORRUPT:
            middle = len(part) // 2
            part = part[:middle] + bytes([part[middle] ^ 1]) + part[middle + 1 :]
        if self.fault is Fault.TRUNCATE:
            part = part[:-1]
        return Piece(len(data), digests), part

    def _get_small(self, request: GetPiece) -> bytes | None:
        found, data = self._get(request)
        return data if isinstance(found, Piece) and found.length <= MAX_SMALL_PIECE_BYTES else None


class Grid:
    """The four servers, with ids 1..4, and their clock."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.servers = {number: FakeServer(f"DFS{number}") for number in range(1, 5)}

    def __getitem__(self, server: int) -> FakeServer:
        return self.servers[server]

    def holders(self, segment: bytes, number: int) -> frozenset[int]:
        """Return the ids of the servers that have this piece, whatever their state."""
        return frozenset(id for id, server in self.servers.items() if (segment, number) in server.stored)

    def asked(self, kind: type[Message]) -> dict[int, int]:
        """Count the requests of this kind for each server that got any."""
        counts = {id: sum(isinstance(m, kind) for m in server.asked) for id, server in self.servers.items()}
        return {id: count for id, count in counts.items() if count}

    def forget_requests(self) -> None:
        """Start counting anew."""
        for server in self.servers.values():
            server.asked.clear()
