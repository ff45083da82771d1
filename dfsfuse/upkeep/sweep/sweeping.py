"""Sweeping: removes unreferenced pieces. A client that died left them: they were put, and no batch followed.

A piece is an *orphan* if no region record refers to its segment, in a state of the map that is newer than the list in
which the piece was seen, and if it was stored more than a day ago by its server's own clock. Younger ones may belong to
a batch that is still to come. The server deletes orphans after its grace period, like everything that is dropped.

What must never happen is that a batch refers to such a piece after all. So a sweep first changes the key `u/sweep`: a
client that saves data reads it in the same transaction, and puts again what it had put long before
(`vfs/write/uploads.py`).

Nothing is swept unless everything is understood: if a quorum's map is unreachable, or some record cannot be read, or
there are keys of unknown kinds, it is unknown what is referred to, and all pieces stay. Segments that the map that was
read does not refer to are looked up in the maps of all servers, one by one, since one may be damaged (`every_map`).

Memory: `WINDOW_PIECES` of each server at a time. Single-threaded; abandoned within a moment when `wait` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dfs_server.protocol.message import MAX_AT_ONCE
from dfs_server.protocol.messages import DropPieces, Have, ListPieces, PieceList
from dfs_server.protocol.pieces import PIECE_NUMBERS
from dfsfuse.common import codec
from dfsfuse.common.codec import Codec
from dfsfuse.common.portions import by_count
from dfsfuse.data.transport import ClusterLike
from dfsfuse.errors import StoppedError
from dfsfuse.namespace.map.transactions import MapStore, Transaction
from dfsfuse.namespace.records import keys
from dfsfuse.net.exchange import Answer, Failure
from dfsfuse.upkeep.asking import ask
from dfsfuse.upkeep.every_map import tell_references
from dfsfuse.upkeep.map_reader import Pages
from dfsfuse.upkeep.walk import walk

FORMAT: Final = 1
MIN_AGE_S: Final = 24 * 3600
EVERY_NS: Final = 24 * 3600 * 10**9
WINDOW_PIECES: Final = 200_000

Piece = tuple[bytes, int]
"""Segment and number."""


class SweepMark(msgspec.Struct, frozen=True, array_like=True):
    """The record of the last sweep: different for each sweep."""

    format: int
    time_ns: int
    client: bytes


_marks = Codec(SweepMark, "the last sweep", FORMAT)


@dataclass
class Swept:
    """The outcome of a sweep. `hindrance`: why nothing, or not everything, could be examined."""

    orphans: int = 0
    orphan_bytes: int = 0
    dropped: int = 0
    hindrance: str = ""
    unreachable: dict[int, str] = field(default_factory=dict)
    """Servers that did not answer, and why."""


def claim(store: MapStore, now_ns: int, client: bytes, *, every_ns: int = EVERY_NS) -> bool:
    """Begin a sweep, unless one was begun less than `every_ns` ago. Raises DfsError."""

    def work(tx: Transaction) -> bool:
        value = tx.get(keys.SWEEP)
        if value is not None:
            last = _marks.find(value)  # None: written by a newer program, which then sweeps
            if last is None or abs(now_ns - last.time_ns) < every_ns:
                return False
        tx.put(keys.SWEEP, codec.encode(SweepMark(FORMAT, now_ns, client)))
        return True

    return store.transact(work)


class Sweeper:
    """See the module. `wait` sleeps for a number of seconds and returns whether to stop."""

    def __init__(
        self,
        cluster: ClusterLike,
        pages: Pages,
        *,
        wait: Callable[[float], bool] = lambda _: False,
        min_age_s: int = MIN_AGE_S,
        window_pieces: int = WINDOW_PIECES,
    ) -> None:
        self._cluster = cluster
        self._pages = pages
        self._wait = wait
        self._min_age_s = min_age_s
        self._window_pieces = window_pieces

    def sweep(self, *, drop: bool) -> Swept:
        """Look for orphans on all answering servers, and drop them, or only count them. Call `claim` before a sweep
        that drops. Raises `StoppedError`, UnavailableError, AuthenticationError."""
        swept = Swept()
        start = b""
        while True:
            old, start = self._window(start, swept)
            if old:
                swept.hindrance = self._keep_referred(old)
                if swept.hindrance:
                    return swept
                for server, pieces in sorted(old.by_server().items()):
                    self._drop(server, pieces, swept, drop=drop)
            if not start:
                return swept

    def _window(self, start: bytes, swept: Swept) -> tuple[_Old, bytes]:
        """Return pieces of segments from `start` on that are old enough, on all servers; and where to continue, if
        anywhere."""
        lists: dict[int, list[tuple[bytes, int, int, int]]] = {}
        end = b""
        limit = min(MAX_AT_ONCE, self._window_pieces)
        for server in sorted(self._cluster.names):
            if server in swept.unreachable:
                continue
            found = lists[server] = []
            after = _before(start) if start else None
            while True:
                outcome = ask(self._cluster, {server: ListPieces(after, limit)}, self._wait)[server]
                if not isinstance(outcome, Answer) or not isinstance(outcome.reply, PieceList):
                    swept.unreachable[server] = (
                        outcome.text if isinstance(outcome, Failure) else "does not list its pieces"
                    )
                    del lists[server]
                    break
                found += outcome.reply.pieces
                if not outcome.reply.more or not outcome.reply.pieces:
                    break
                after = (found[-1][0], found[-1][1])
                if len(found) >= self._window_pieces:
                    end = min(end or after[0], after[0])
                    break
        old = _Old()
        for server, pieces in lists.items():
            for segment, number, length, age_s in pieces:
                if age_s >= self._min_age_s and (not end or segment < end):
                    old.add(server, (segment, number), length)
        return old, end

    def _keep_referred(self, old: _Old) -> str:
        """Remove what some record refers to. Returns why that cannot be determined, if it cannot."""
        if not self._pages.begin():
            return "too few servers answer to tell what is referred to"
        for start, end in keys.unknown_ranges():
            for _ in self._pages.pages(start, end):
                return "the map has keys of kinds that this program does not know"
        for page in walk(self._pages):
            if self._wait(0.0):
                raise StoppedError
            for record in page:
                if record.region is None:
                    return f"the record of a part of inode {record.ino} cannot be read"
                for segment in record.region.segments:
                    old.forget(segment.id)
        return tell_references(self._cluster, self._wait, old.forget) if old else ""

    def _drop(self, server: int, pieces: list[tuple[Piece, int]], swept: Swept, *, drop: bool) -> None:
        swept.orphans += len(pieces)
        swept.orphan_bytes += sum(length for _, length in pieces)
        if not drop:
            return
        for portion in by_count(pieces, MAX_AT_ONCE):
            request = DropPieces(tuple(piece for piece, _ in portion), self._min_age_s)
            outcome = ask(self._cluster, {server: request}, self._wait)[server]
            if isinstance(outcome, Answer) and isinstance(outcome.reply, Have):
                swept.dropped += sum(outcome.reply.flags)
            else:
                swept.unreachable[server] = outcome.text if isinstance(outcome, Failure) else "does not drop pieces"
                return


class _Old:
    """Old pieces, by segment."""

    def __init__(self) -> None:
        self._pieces: dict[bytes, list[tuple[int, int, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, server: int, piece: Piece, length: int) -> None:
        self._pieces.setdefault(piece[0], []).append((server, piece[1], length))

    def forget(self, segment: bytes) -> None:
        self._pieces.pop(segment, None)

    def by_server(self) -> dict[int, list[tuple[Piece, int]]]:
        found: dict[int, list[tuple[Piece, int]]] = {}
        for segment, copies in self._pieces.items():
            for server, number, length in copies:
                found.setdefault(server, []).append(((segment, number), length))
        return found


def _before(segment: bytes) -> Piece | None:
    """Return the last possible piece before those of a segment: servers only accept names of pieces."""
    number = int.from_bytes(segment, "big")
    return ((number - 1).to_bytes(len(segment), "big"), PIECE_NUMBERS[-1]) if number else None
