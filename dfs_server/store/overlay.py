"""Chosen batches that are not yet in SQLite's tables: readers combine them with what they find there.

An accept is durable through its record in the redo log. The batches themselves, and their changes, are gathered here
and reach the tables many at a time (`NamespaceWriter.flush`): a key that changes with each of them, such as a folder's
inode, is then written only once. Uses no disk and no clock.

Invariants:
- It holds the batches of the slots `flushed + 1` to `applied`. All of them are in the redo log, from which the overlay
  is rebuilt when the server starts.
- The tables as of `flushed` with the overlay on top are the map as of `applied`: changes are absolute. Tables as of
  another slot have another overlay, so code that reads both compares `flushed` with what the tables say.
- It only grows. A flush replaces it with an empty one once its transaction is committed; code that still reads this one
  finds all of it.
- It is small: when it is full, or the redo log is, all of it is flushed before anything more is added.

Threads: `add` under the database's lock; everything else from any thread. `_lock` makes a batch appear as a whole; it
is held while memory is copied, never during disk access.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from dfs_server.protocol.ballots import Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.store.acceptor import ParsedBatch

MAX_BATCHES: Final = 512
"""Maximum number of waiting batches. They are also what a server has to read when it starts after a crash."""

PieceName = tuple[bytes, int]
"""A segment's id and a piece's number."""


class WaitingBatch(NamedTuple):
    """A batch as received, and the ballot of the last promise at that time."""

    slot: int
    ballot: Ballot
    digest: bytes
    encoded: bytes


class WaitingPiece(NamedTuple):
    """A small piece, and when it arrived (the server's clock, ns)."""

    data: bytes
    came_ns: int


class Overlay:
    """An overlay for tables as of slot `flushed`; below slot `read_from` they are a mixture (an incomplete copy)."""

    def __init__(self, flushed: int, read_from: int) -> None:
        self.flushed = flushed
        self.read_from = read_from
        self.applied = flushed
        """The last slot whose batch is in the overlay."""
        self._lock = threading.Lock()
        self._values: dict[bytes, bytes | None] = {}
        self._pieces: dict[PieceName, WaitingPiece] = {}
        self._drops: dict[bytes, int] = {}
        self._batches: list[WaitingBatch] = []

    def add(self, slot: int, ballot: Ballot, parsed: ParsedBatch, server: str, now_ns: int) -> None:
        """Add the next batch; `server` keeps those pieces that have it among their homes."""
        batch = parsed.batch
        with self._lock:
            self._values.update(batch.puts)
            for key in batch.deletes:
                self._values[key] = None
            self.add_pieces(batch, server, now_ns)
            for segment in batch.drops:
                self._drops.setdefault(segment, now_ns)
            self._batches.append(WaitingBatch(slot, ballot, parsed.digest, parsed.encoded))
            self.applied = slot

    def add_pieces(self, batch: Batch, server: str, now_ns: int) -> None:
        """Add only the pieces of a batch that may or may not have been chosen: nothing else of it may take effect."""
        for piece in batch.pieces:
            if server in piece.homes:
                self._pieces.setdefault((piece.segment, piece.number), WaitingPiece(piece.data, now_ns))

    # -------------------------------------------------------------- how much there is

    @property
    def is_empty(self) -> bool:
        """Whether no batch waits."""
        return not self._batches

    @property
    def is_full(self) -> bool:
        """Whether it is time to flush."""
        return len(self._batches) >= MAX_BATCHES

    # -------------------------------------------------------------- for readers

    def values(self, keys: Sequence[bytes]) -> tuple[int, dict[bytes, bytes | None]]:
        """`applied`, and the values of those keys that have changed since `flushed`; None: deleted."""
        with self._lock:
            return self.applied, {key: self._values[key] for key in keys if key in self._values}

    def items(self, start: bytes, end: bytes) -> tuple[int, list[tuple[bytes, bytes | None]]]:
        """`applied`, and the changes from `start` to before `end`, in order."""
        with self._lock:
            applied, found = self.applied, [item for item in self._values.items() if start <= item[0] < end]
        return applied, sorted(found)

    def batches(self, after: int) -> tuple[int, list[WaitingBatch]]:
        """`applied`, and the waiting batches of the slots after this one."""
        with self._lock:
            return self.applied, [waiting for waiting in self._batches if waiting.slot > after]

    def piece(self, name: PieceName) -> bytes | None:
        """The bytes of a waiting small piece, or None."""
        found = self._pieces.get(name)
        return None if found is None else found.data

    def have(self, names: Iterable[PieceName]) -> set[PieceName]:
        """Those of the small pieces that wait here."""
        return {name for name in names if name in self._pieces}

    # -------------------------------------------------------------- for the flush

    def changes(self) -> Mapping[bytes, bytes | None]:
        """The current values by key; None: deleted. Under the database's lock, like the following."""
        return self._values

    def pieces(self) -> Mapping[PieceName, WaitingPiece]:
        """The waiting small pieces."""
        return self._pieces

    def drops(self) -> Mapping[bytes, int]:
        """The times of drops, by segment."""
        return self._drops
