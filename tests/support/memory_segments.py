"""Four servers' pieces in memory: the part of a `SegmentStore` that the Vfs uses, for tests of the layers above it.

Segments are split and placed by the real rules, and assembled from the servers that answer (`answering`). `lose` wipes
a server. What was written, read and prefetched is recorded for inspection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from dfs_server.protocol.batches import InlinePiece
from dfs_server.protocol.pieces import PIECE_NUMBERS, Buffer, block_digests, piece_digest
from dfsfuse.data.extents import Segment
from dfsfuse.data.placement import place
from dfsfuse.data.segments import INLINE_SEGMENT_MAX_BYTES, Written
from dfsfuse.data.striping import split
from dfsfuse.errors import IncompleteError, ReadOnlyError

NAMES = {1: "DFS1", 2: "DFS2", 3: "DFS3", 4: "DFS4"}


class MemorySegments:
    """May be shared by several mounts, which then see the same servers. Thread-safe: one lock guards everything."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self.answering = {1, 2, 3, 4}
        self.pieces: dict[int, dict[tuple[bytes, int], bytes]] = {server: {} for server in NAMES}
        """By server: (segment, number) -> the piece."""
        self.written: list[tuple[bytes, int]] = []
        """Data and rotation of each segment, in order."""
        self.reads: list[tuple[bytes, int, int]] = []
        """Segment, offset and length of each read."""
        self.prefetched: list[bytes] = []
        self.fetched_small: list[list[bytes]] = []
        """The segments of each request for several small ones."""
        self.missing_calls = 0
        self.joins: list[int] = []
        """How long the segments were that were made of others."""
        self.is_at_hand = True
        """Whether the data of small segments is in memory, so that they can be joined."""
        self.before_write: Callable[[bytes], None] = lambda _: None
        """Called with the data before each write; may raise, or wait."""

    def usable(self) -> frozenset[int]:
        """Return the servers that answer."""
        return frozenset(self.answering)

    def write(self, data: Buffer, rotation: int) -> Written:
        content = bytes(data)
        self.before_write(content)
        with self._lock:
            if len(self.answering) < 3:
                raise ReadOnlyError("two of four servers do not answer")
            self.written.append((content, rotation))
            return self._made(content, rotation)

    def joined(self, segments: Sequence[Segment], rotation: int) -> Written | None:
        if not self.is_at_hand or len(self.answering) < 3:
            return None
        with self._lock, suppress(IncompleteError):
            content = b"".join([self._piece(one, number) for one in segments for number in PIECE_NUMBERS])
            self.joins.append(len(content))
            return self._made(content, rotation)
        return None

    def _made(self, content: bytes, rotation: int) -> Written:
        self._count += 1
        segment = self._count.to_bytes(16, "big")
        homes = place(rotation, self.answering)
        pieces = [bytes(piece) for piece in split(content)]
        one, two, three, four = (piece_digest(block_digests(piece)) for piece in pieces)
        for number, home, piece in zip(PIECE_NUMBERS, homes, pieces, strict=True):
            for server in home:
                self.pieces[server][segment, number] = piece
        inline: tuple[InlinePiece, ...] = ()
        if len(content) <= INLINE_SEGMENT_MAX_BYTES:
            inline = tuple(
                InlinePiece(segment, number, tuple(NAMES[server] for server in home), piece)
                for number, home, piece in zip(PIECE_NUMBERS, homes, pieces, strict=True)
            )
        return Written(Segment(segment, len(content), homes, (one, two, three, four)), inline)

    def read(self, segment: Segment, offset: int, length: int) -> bytes:
        with self._lock:
            self.reads.append((segment.id, offset, length))
            start, data = 0, b""
            for number, size in zip(PIECE_NUMBERS, map(len, split(bytes(segment.length))), strict=True):
                low, high = max(offset, start), min(offset + length, start + size)
                if low < high:
                    data += self._piece(segment, number)[low - start : high - start]
                start += size
            return data

    def _piece(self, segment: Segment, number: int) -> bytes:
        for server in self._holders(segment, number):
            return self.pieces[server][segment.id, number]
        raise IncompleteError(f"P{number} of a segment cannot be had")

    def _holders(self, segment: Segment, number: int) -> frozenset[int]:
        return frozenset(server for server in self.answering if (segment.id, number) in self.pieces[server])

    def prefetch(self, segment: Segment) -> None:
        self.prefetched.append(segment.id)

    def fetch_small(self, segments: Sequence[Segment]) -> None:
        self.fetched_small.append([segment.id for segment in segments])

    def copies(self, segments: Sequence[Segment]) -> list[dict[int, frozenset[int]]]:
        with self._lock:
            return [{number: self._holders(segment, number) for number in PIECE_NUMBERS} for segment in segments]

    def missing(self, segments: Sequence[Segment]) -> list[frozenset[int]]:
        self.missing_calls += 1
        return [
            frozenset(number for number, servers in copies.items() if not servers) for copies in self.copies(segments)
        ]

    def lose(self, server: int) -> None:
        """Empty the server's disk."""
        self.pieces[server].clear()

    def close(self) -> None:
        pass
